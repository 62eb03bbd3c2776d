// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "gmem_convert.h"

#define OWNER_PARAMETER "/sys/module/kvm/parameters/vm_memory_attributes"

/* Whether @fd (/dev/kvm or a VM) reports PRIVATE for @cap; -1 on error. */
static int has_private(int fd, long cap)
{
	int attributes = ioctl(fd, KVM_CHECK_EXTENSION, cap);

	if (attributes < 0)
		return -1;

	return !!(attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE);
}

enum gmem_support gmem_probe(int kvm_fd, int vm_fd)
{
	int r;

	r = has_private(vm_fd, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES);
	if (r < 0)
		return GMEM_PROBE_FAILED;
	if (r)
		return GMEM_SUPPORTED;

	/* /dev/kvm speaks for all VM types. */
	r = has_private(kvm_fd, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES);
	if (r < 0)
		return GMEM_PROBE_FAILED;
	if (r)
		return GMEM_NO_PRIVATE_MEMORY;

	/*
	 * Exactly one owner ever advertises PRIVATE.  If guest_memfd is not the
	 * one, then only the parameter tells a kernel on which it could be from
	 * a kernel that knows no owner but the VM.
	 */
	return access(OWNER_PARAMETER, F_OK) ? GMEM_NO_FEATURE : GMEM_VM_OWNS_STATE;
}

const char *gmem_support_str(enum gmem_support support)
{
	switch (support) {
	case GMEM_SUPPORTED:
		return "guest_memfd owns the private/shared state and converts in place";
	case GMEM_NO_FEATURE:
		return "this kernel cannot convert memory through guest_memfd (no KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES)";
	case GMEM_VM_OWNS_STATE:
		return "this kernel can convert through guest_memfd, but the VM owns the state: load kvm with vm_memory_attributes=0";
	case GMEM_NO_PRIVATE_MEMORY:
		return "this kernel can convert through guest_memfd, but a VM of this type has no private memory";
	case GMEM_PROBE_FAILED:
		return "KVM_CHECK_EXTENSION failed";
	}

	return "unknown";
}

int gmem_content_modes(int fd)
{
	int modes = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS);

	return modes < 0 ? -errno : modes;
}

const char *gmem_mode_str(uint64_t mode)
{
	switch (mode) {
	case 0:
		return "no content mode";
	case KVM_SET_MEMORY_ATTRIBUTES2_ZERO:
		return "ZERO";
	case KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE:
		return "PRESERVE";
	}

	return "unknown content mode";
}

static bool writes_error_offset(int error)
{
	return error == EAGAIN || error == EOPNOTSUPP || error == EHWPOISON ||
	       error == ENOMEM;
}

static void convert_once(int gmem_fd, struct gmem_report *report)
{
	/* The initializer zeroes the reserved words, KVM insists on that. */
	struct kvm_memory_attributes2 args = {
		.offset = report->offset,
		.size = report->size,
		.attributes = report->to_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
		.flags = report->mode,
	};

	report->error = 0;
	if (ioctl(gmem_fd, KVM_SET_MEMORY_ATTRIBUTES2, &args))
		report->error = errno;

	report->has_error_offset = writes_error_offset(report->error);
	report->error_offset = report->has_error_offset ? args.error_offset : 0;
	report->tries++;
}

static void sleep_us(unsigned int us)
{
	struct timespec ts = {
		.tv_sec = us / 1000000,
		.tv_nsec = us % 1000000 * 1000L,
	};

	/* A signal that cuts the sleep short only makes the next try early. */
	nanosleep(&ts, NULL);
}

static unsigned int next_delay(unsigned int us)
{
	return us > GMEM_MAX_DELAY_US / 2 ? GMEM_MAX_DELAY_US : us * 2;
}

int gmem_convert(int gmem_fd, uint64_t offset, uint64_t size, bool to_private,
		 uint64_t mode, const struct gmem_retry *retry,
		 struct gmem_report *report)
{
	static const struct gmem_retry no_retry = { .max_tries = 1 };
	struct gmem_report local;
	unsigned int delay;

	if (!retry)
		retry = &no_retry;
	if (!report)
		report = &local;

	*report = (struct gmem_report) {
		.offset = offset,
		.size = size,
		.to_private = to_private,
		.mode = mode,
	};

	delay = retry->delay_us;
	if (delay > GMEM_MAX_DELAY_US)
		delay = GMEM_MAX_DELAY_US;

	for (;;) {
		convert_once(gmem_fd, report);
		if (report->error != EAGAIN || report->tries >= retry->max_tries)
			break;

		if (retry->busy &&
		    retry->busy(retry->opaque, report->error_offset, offset + size,
				report->tries) == GMEM_GIVE_UP) {
			report->gave_up = true;
			break;
		}

		if (delay)
			sleep_us(delay);
		delay = next_delay(delay);
	}

	return -report->error;
}

static const char *explain(int error)
{
	switch (error) {
	case EAGAIN:
		return "page in use outside the guest";
	case EINVAL:
		return "range unaligned, empty or beyond the end of the file, or not a content mode, or a VM without private memory";
	case EOPNOTSUPP:
		return "content mode not available for this VM type, direction or time";
	case EHWPOISON:
		return "page is poisoned, its contents are lost";
	case ENOTTY:
		return "not a guest_memfd, or the kernel is too old, or the VM owns the state";
	case ENOMEM:
		return "no memory to record the new state";
	default:
		return strerror(error);
	}
}

const char *gmem_report_str(const struct gmem_report *report, char *buf,
			    size_t len)
{
	const char *to = report->to_private ? "private" : "shared";
	unsigned long long start = report->offset;
	unsigned long long size = report->size;
	const char *mode = gmem_mode_str(report->mode);
	char where[64] = "";

	if (!report->error) {
		snprintf(buf, len, "offset 0x%llx size 0x%llx made %s (%s, tries: %u)",
			 start, size, to, mode, report->tries);
		return buf;
	}

	if (report->has_error_offset)
		snprintf(where, sizeof(where), " at offset 0x%llx",
			 (unsigned long long)report->error_offset);

	snprintf(buf, len,
		 "offset 0x%llx size 0x%llx not made %s: %s%s (errno %d, %s, tries: %u%s)",
		 start, size, to, explain(report->error), where, report->error, mode,
		 report->tries, report->gave_up ? ", gave up" : "");
	return buf;
}
