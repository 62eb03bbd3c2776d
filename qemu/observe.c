// SPDX-License-Identifier: GPL-2.0
/*
 * What the steps need beyond a shell, in the test machine:
 *
 *   observe search PID TEXT
 *	Look for TEXT in all of a process's memory, through process_vm_readv() and
 *	through /proc/PID/mem.  Prints how often each of them finds it, and how many
 *	MiB they read.
 *   observe hold PID FD OFFSET MS
 *	Keep a page of the process's guest_memfd in a pipe for a while: a user that
 *	KVM can't take it away from.  Prints a line once it does.
 *
 * exit: 0 done, 1 it could not be done, 2 bad usage
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096ul
/* What one call reads at most; a part of it fails for a single page. */
#define CHUNK (256 * PAGE)

struct search {
	pid_t pid;
	int mem;
	const char *text;
	size_t len;
	/* Bytes read, and finds, by either way. */
	uint64_t read_vm, read_mem;
	unsigned int found_vm, found_mem;
};

/* Returns the number of bytes that could be read, from @address on. */
static size_t read_vm(struct search *s, void *buf, uint64_t address, size_t len)
{
	struct iovec local = { .iov_base = buf, .iov_len = len };
	struct iovec remote = { .iov_base = (void *)address, .iov_len = len };
	ssize_t ret = process_vm_readv(s->pid, &local, 1, &remote, 1, 0);

	return ret < 0 ? 0 : ret;
}

static size_t read_mem(struct search *s, void *buf, uint64_t address, size_t len)
{
	ssize_t ret = pread(s->mem, buf, len, address);

	return ret < 0 ? 0 : ret;
}

static unsigned int count(const struct search *s, const char *buf, size_t len)
{
	unsigned int n = 0;
	const char *p = buf;

	while ((p = memmem(p, len - (p - buf), s->text, s->len))) {
		p += s->len;
		n++;
	}

	return n;
}

static void search_range(struct search *s, uint64_t start, uint64_t end, bool vm)
{
	/* What was read last before @start, for finds across two reads. */
	static char buf[PAGE + CHUNK];
	size_t kept = 0;

	while (start < end) {
		size_t want = end - start < CHUNK ? end - start : CHUNK;
		size_t got = vm ? read_vm(s, buf + PAGE, start, want) :
				  read_mem(s, buf + PAGE, start, want);
		char *first = buf + PAGE - kept;

		*(vm ? &s->read_vm : &s->read_mem) += got;
		*(vm ? &s->found_vm : &s->found_mem) += count(s, first, got + kept);

		if (got == want) {
			kept = s->len - 1;
			memmove(buf + PAGE - kept, buf + PAGE + got - kept, kept);
			start += got;
		} else {
			kept = 0;
			start = (start + got + PAGE) & ~(PAGE - 1);
		}
	}
}

static int search(pid_t pid, const char *text)
{
	struct search s = { .pid = pid, .text = text, .len = strlen(text) };
	unsigned long long start, end;
	char path[64], line[512];
	FILE *maps;

	if (s.len < 8 || s.len > PAGE)
		errx(2, "the text has %zu characters", s.len);

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	s.mem = open(path, O_RDONLY);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "r");
	if (s.mem < 0 || !maps)
		err(1, "%s", path);

	while (fgets(line, sizeof(line), maps)) {
		/* Addresses with the top bit set are the kernel's. */
		if (sscanf(line, "%llx-%llx", &start, &end) != 2 || (int64_t)start < 0)
			continue;
		search_range(&s, start, end, true);
		search_range(&s, start, end, false);
	}

	printf("process_vm_readv %u %llu mem %u %llu\n",
	       s.found_vm, (unsigned long long)s.read_vm >> 20,
	       s.found_mem, (unsigned long long)s.read_mem >> 20);
	return 0;
}

static int hold(pid_t pid, int remote_fd, uint64_t offset, unsigned int ms)
{
	int pidfd = syscall(SYS_pidfd_open, pid, 0);
	int fd = syscall(SYS_pidfd_getfd, pidfd, remote_fd, 0);
	struct iovec iov = { .iov_len = PAGE };
	int pipefd[2];

	if (fd < 0)
		err(1, "cannot get file descriptor %d of process %d", remote_fd, pid);

	iov.iov_base = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
	if (iov.iov_base == MAP_FAILED)
		err(1, "mmap");
	if (pipe(pipefd) || vmsplice(pipefd[1], &iov, 1, 0) != PAGE)
		err(1, "vmsplice");

	printf("held\n");
	fflush(stdout);
	usleep(ms * 1000);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "search"))
		return search(atoi(argv[2]), argv[3]);
	if (argc == 6 && !strcmp(argv[1], "hold"))
		return hold(atoi(argv[2]), atoi(argv[3]), strtoull(argv[4], NULL, 0), atoi(argv[5]));

	fprintf(stderr, "usage: observe search PID TEXT | observe hold PID FD OFFSET MS\n");
	return 2;
}
