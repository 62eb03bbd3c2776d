// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/stat.h>

#include "observe.h"
#include "vmm.h"

#define INSTANCES "/sys/kernel/tracing/instances"

/* The events of interest; TRACE_PREFIX finds them in a line of the trace. */
#define TRACE_PREFIX "kvm_gmem_"

static const char *const trace_events[] = {
	"kvm_gmem_set_memory_attributes",
	"kvm_gmem_page_in_use",
};

/* ---- /proc ---- */

/* The number in the line "@name:<tab>number" of @text, which has to be there. */
static uint64_t fdinfo_number(const char *text, const char *name, int base)
{
	const char *line = text;
	size_t len = strlen(name);
	unsigned long long number;
	char *end;

	while (strncmp(line, name, len) || line[len] != ':') {
		line = strchr(line, '\n');
		if (!line)
			fail("fdinfo of the guest_memfd has no line \"%s\"", name);
		line++;
	}

	line += len + 1;
	errno = 0;
	number = strtoull(line, &end, base);
	if (*line != '\t' || errno || *end != '\n' || (base == 16 && strncmp(line, "\t0x", 3)))
		fail("fdinfo of the guest_memfd: not a number after \"%s:\": %.40s", name, line);
	return number;
}

int fdinfo_read(int gmem_fd, struct gmem_fdinfo *info)
{
	char path[64], text[4096];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", gmem_fd);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	n = fread(text, 1, sizeof(text) - 1, f);
	if (ferror(f))
		fail_errno("read of %s", path);
	fclose(f);
	text[n] = '\0';

	*info = (struct gmem_fdinfo) {
		.size = fdinfo_number(text, "gmem-size", 10),
		.flags = fdinfo_number(text, "gmem-flags", 16),
		.private = fdinfo_number(text, "gmem-private", 10),
		.shared = fdinfo_number(text, "gmem-shared", 10),
		.allocated = fdinfo_number(text, "gmem-allocated", 10),
		.extents = fdinfo_number(text, "gmem-extents", 10),
	};
	return 0;
}

/* ---- tracefs ---- */

/* The instance's directory; empty: there is none. */
static char instance[128];

static void remove_instance(void)
{
	if (*instance)
		rmdir(instance);
	*instance = '\0';
}

static int instance_open(const char *name, int flags)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", instance, name);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		fail_errno("open of %s", path);
	return fd;
}

static void instance_write(const char *name, const char *text)
{
	int fd = instance_open(name, O_WRONLY | O_TRUNC);

	if (write(fd, text, strlen(text)) < 0)
		fail_errno("write of \"%s\" to %s/%s", text, instance, name);
	close(fd);
}

int trace_start(int gmem_fd)
{
	char name[128], filter[64];
	struct stat st;
	unsigned int i;

	if (fstat(gmem_fd, &st))
		fail_errno("fstat of the guest_memfd");

	snprintf(instance, sizeof(instance), INSTANCES "/vmm-%d", getpid());
	if (mkdir(instance, 0700)) {
		*instance = '\0';
		return -errno;
	}
	/* fail() exits. */
	atexit(remove_instance);

	/* Other VMs of the machine convert memory too. */
	snprintf(filter, sizeof(filter), "ino == %llu", (unsigned long long)st.st_ino);

	for (i = 0; i < sizeof(trace_events) / sizeof(trace_events[0]); i++) {
		snprintf(name, sizeof(name), "events/kvm/%s/filter", trace_events[i]);
		instance_write(name, filter);
		snprintf(name, sizeof(name), "events/kvm/%s/enable", trace_events[i]);
		instance_write(name, "1");
	}
	return 0;
}

/* "comm-pid [cpu] flags time: name: args"; false: another kind of line. */
static bool parse_event(const char *line, struct trace_event *event)
{
	const char *name = strstr(line, ": " TRACE_PREFIX);
	const char *args;

	if (!name || *line == '#')
		return false;

	name += strlen(": ");
	args = strstr(name, ": ");
	if (!args)
		return false;

	snprintf(event->name, sizeof(event->name), "%.*s", (int)(args - name), name);
	args += strlen(": ");
	snprintf(event->args, sizeof(event->args), "%.*s", (int)strcspn(args, "\n"), args);
	return true;
}

unsigned int trace_stop(struct trace_event *events, unsigned int max)
{
	struct trace_event event;
	unsigned int n = 0;
	char line[512];
	FILE *f;

	instance_write("tracing_on", "0");
	f = fdopen(instance_open("trace", O_RDONLY), "r");
	if (!f)
		fail_errno("fdopen of the trace");

	while (fgets(line, sizeof(line), f)) {
		if (!parse_event(line, &event))
			continue;
		if (n < max)
			events[n] = event;
		n++;
	}
	if (ferror(f))
		fail_errno("read of the trace");
	fclose(f);

	if (rmdir(instance))
		fail_errno("rmdir of %s", instance);
	*instance = '\0';
	return n;
}
