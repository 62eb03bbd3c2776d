// SPDX-License-Identifier: GPL-2.0 OR MIT
/* struct timespec and nanosleep(), which -std=c11 hides otherwise. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sys/ioctl.h>
#include <unistd.h>

#include "gmem_convert.h"

/*
 * What a linux/kvm.h lacks that is older than the interface.  A structure cannot
 * be asked for by name, but it comes with the ioctl that takes it.  The numbers
 * of these ioctls are the same in all kernels that have them, and so are those of
 * the two capabilities, which came with guest_memfd.  The numbers of the interface's
 * own capabilities are not, so this file asks for none of them.
 */
#ifndef KVM_MEMORY_ATTRIBUTE_PRIVATE
#define KVM_MEMORY_ATTRIBUTE_PRIVATE	(1ULL << 3)
#endif

#ifndef KVM_CAP_MEMORY_ATTRIBUTES
#define KVM_CAP_MEMORY_ATTRIBUTES	233
#endif

#ifndef KVM_CAP_GUEST_MEMFD
#define KVM_CAP_GUEST_MEMFD		234
#endif

#ifndef KVM_CREATE_GUEST_MEMFD
struct kvm_create_guest_memfd {
	__u64 size;
	__u64 flags;
	__u64 reserved[6];
};

#define KVM_CREATE_GUEST_MEMFD	_IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)
#endif

#ifndef KVM_SET_MEMORY_ATTRIBUTES2
struct kvm_memory_attributes2 {
	union {
		__u64 address;
		__u64 offset;
	};
	__u64 size;
	__u64 attributes;
	__u64 flags;
	__u64 error_offset;
	__u64 reserved[11];
};

#define KVM_SET_MEMORY_ATTRIBUTES2	_IOWR(KVMIO, 0xd2, struct kvm_memory_attributes2)
#endif

/* Wherever they come from, this is what the kernel reads. */
#define CHECK(condition) _Static_assert(condition, #condition)
CHECK(sizeof(struct kvm_create_guest_memfd) == 64);
CHECK(KVM_CREATE_GUEST_MEMFD == 0xc040aed4);
CHECK(sizeof(struct kvm_memory_attributes2) == 128);
CHECK(offsetof(struct kvm_memory_attributes2, offset) == 0);
CHECK(offsetof(struct kvm_memory_attributes2, size) == 8);
CHECK(offsetof(struct kvm_memory_attributes2, attributes) == 16);
CHECK(offsetof(struct kvm_memory_attributes2, flags) == 24);
CHECK(offsetof(struct kvm_memory_attributes2, error_offset) == 32);
CHECK(offsetof(struct kvm_memory_attributes2, reserved) == 40);
CHECK(KVM_SET_MEMORY_ATTRIBUTES2 == 0xc080aed2);
CHECK(KVM_MEMORY_ATTRIBUTE_PRIVATE == 8);
CHECK(KVM_CAP_MEMORY_ATTRIBUTES == 233);
CHECK(KVM_CAP_GUEST_MEMFD == 234);
CHECK(KVM_SET_MEMORY_ATTRIBUTES2_ZERO == 1);
CHECK(KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE == 2);

#define PARAMETERS "/sys/module/kvm/parameters/"

const struct gmem_retry gmem_retry_default = { .max_tries = 12, .delay_us = 50 };

static uint64_t page_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

/* ---- what there is ---- */

/* A guest_memfd of one page; -1 and errno if there is none. */
static int open_scratch(int vm_fd)
{
	struct kvm_create_guest_memfd args = { .size = page_size() };
	int fd = ioctl(vm_fd, KVM_CREATE_GUEST_MEMFD, &args);

	/* KVM does not make it close-on-exec, and other threads may execute. */
	if (fd >= 0)
		fcntl(fd, F_SETFD, FD_CLOEXEC);

	return fd;
}

/* Convert the page of a scratch file.  Return: 0, or a positive errno. */
static int convert_scratch(int fd, bool to_private, uint64_t mode)
{
	const struct gmem_retry once = { .max_tries = 1 };

	return -gmem_convert(fd, 0, page_size(), to_private, mode, &once, NULL);
}

/*
 * A conversion has failed with ENOTTY, which comes before anything else that KVM
 * checks: why, and would another parameter help this VM?
 */
static enum gmem_support explain_enotty(int vm_fd)
{
	int attributes;

	if (access(PARAMETERS "vm_memory_attributes", F_OK) &&
	    access(PARAMETERS "gmem_in_place_conversion", F_OK))
		return GMEM_NO_FEATURE;

	/* The VM is the owner, so this is what its type has. */
	attributes = ioctl(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MEMORY_ATTRIBUTES);
	if (attributes < 0)
		return GMEM_PROBE_FAILED;
	if (!(attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE))
		return GMEM_NO_PRIVATE_MEMORY;

	return GMEM_VM_OWNS_STATE;
}

enum gmem_support gmem_probe(int vm_fd)
{
	int fd, error, r;

	/*
	 * Asked, because what KVM_CREATE_GUEST_MEMFD returns where it does not
	 * exist depends on the architecture: ENOTTY, but EINVAL on arm64 and RISC-V.
	 */
	r = ioctl(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD);
	if (r < 0)
		return GMEM_PROBE_FAILED;
	if (!r)
		return GMEM_NO_FEATURE;

	fd = open_scratch(vm_fd);
	if (fd < 0)
		return GMEM_PROBE_FAILED;

	error = convert_scratch(fd, true, 0);
	close(fd);

	switch (error) {
	case 0:
		return GMEM_SUPPORTED;
	case EINVAL:
		return GMEM_NO_PRIVATE_MEMORY;
	case ENOTTY:
		return explain_enotty(vm_fd);
	}

	errno = error;
	return GMEM_PROBE_FAILED;
}

const char *gmem_support_str(enum gmem_support support)
{
	switch (support) {
	case GMEM_SUPPORTED:
		return "guest_memfd owns the attributes and converts in place";
	case GMEM_NO_FEATURE:
		return "this kernel cannot convert memory through guest_memfd";
	case GMEM_VM_OWNS_STATE:
		return "this kernel can convert through guest_memfd, but the VM owns the attributes: set kvm.vm_memory_attributes=0 (or kvm.gmem_in_place_conversion=1, whichever parameter it has)";
	case GMEM_NO_PRIVATE_MEMORY:
		return "this kernel can convert through guest_memfd, but a VM of this type has no private memory";
	case GMEM_PROBE_FAILED:
		return "cannot find out whether this VM can convert memory through guest_memfd";
	}

	return "unknown";
}

int gmem_content_modes(int vm_fd, bool to_private)
{
	const uint64_t modes[] = {
		KVM_SET_MEMORY_ATTRIBUTES2_ZERO,
		KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE,
	};
	unsigned int i;
	int result = 0;
	int fd;

	switch (gmem_probe(vm_fd)) {
	case GMEM_SUPPORTED:
		break;
	case GMEM_PROBE_FAILED:
		return -errno;
	default:
		return 0;
	}

	fd = open_scratch(vm_fd);
	if (fd < 0)
		return -errno;

	for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		int error = convert_scratch(fd, to_private, modes[i]);

		if (!error) {
			result |= (int)modes[i];
		} else if (error != EOPNOTSUPP && error != EINVAL) {
			/* EINVAL: a kernel that does not know the mode. */
			result = -error;
			break;
		}
	}

	close(fd);
	return result;
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

/* ---- a range of a file ---- */

/* No page begins here. */
#define NOT_WRITTEN UINT64_MAX

static void convert_once(struct gmem_report *report)
{
	/* The initializer zeroes the reserved words, KVM insists on that. */
	struct kvm_memory_attributes2 args = {
		.offset = report->offset,
		.size = report->size,
		.attributes = report->to_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
		.flags = report->mode,
		.error_offset = NOT_WRITTEN,
	};

	report->error = 0;
	if (ioctl(report->gmem_fd, KVM_SET_MEMORY_ATTRIBUTES2, &args))
		report->error = errno;

	/*
	 * The errno alone does not tell whether KVM has written it: a filter of
	 * system calls can return any of them.
	 */
	report->has_error_offset = args.error_offset != NOT_WRITTEN &&
				   args.error_offset - report->offset < report->size;
	report->error_offset = report->has_error_offset ? args.error_offset : 0;
	report->tries++;
}

static void sleep_us(unsigned int us)
{
	struct timespec ts = { .tv_nsec = us * 1000L };

	/* A signal that cuts the sleep short only makes the next try early. */
	nanosleep(&ts, NULL);
}

static unsigned int at_most(unsigned int us, unsigned int max)
{
	return us < max ? us : max;
}

/* What was asked for is in @report. */
static int convert(struct gmem_report *report, const struct gmem_retry *retry)
{
	unsigned int delay;

	if (!retry)
		retry = &gmem_retry_default;
	delay = at_most(retry->delay_us, GMEM_MAX_DELAY_US);

	for (;;) {
		convert_once(report);
		if (report->error != EAGAIN || report->tries >= retry->max_tries)
			break;

		if (retry->busy && retry->busy(retry->opaque, report) == GMEM_GIVE_UP) {
			report->gave_up = true;
			break;
		}

		if (delay)
			sleep_us(delay);
		delay = at_most(2 * delay, GMEM_MAX_DELAY_US);
	}

	return -report->error;
}

int gmem_convert(int gmem_fd, uint64_t offset, uint64_t size, bool to_private,
		 uint64_t mode, const struct gmem_retry *retry,
		 struct gmem_report *report)
{
	struct gmem_report local;

	if (!report)
		report = &local;

	*report = (struct gmem_report) {
		.gmem_fd = gmem_fd,
		.offset = offset,
		.size = size,
		.to_private = to_private,
		.mode = mode,
		.gpa = GMEM_NO_GPA,
	};

	return convert(report, retry);
}

int gmem_make_private(int gmem_fd, uint64_t offset, uint64_t size, uint64_t mode,
		      const struct gmem_retry *retry, struct gmem_report *report)
{
	return gmem_convert(gmem_fd, offset, size, true, mode, retry, report);
}

int gmem_make_shared(int gmem_fd, uint64_t offset, uint64_t size, uint64_t mode,
		     const struct gmem_retry *retry, struct gmem_report *report)
{
	return gmem_convert(gmem_fd, offset, size, false, mode, retry, report);
}

static const char *explain(int error)
{
	switch (error) {
	case EAGAIN:
		return "page in use outside the guest";
	case EINVAL:
		return "range unaligned, empty or beyond the end, or not a content mode, or a VM without private memory";
	case EOPNOTSUPP:
		return "content mode not available for this VM type, direction or time, or no guest_memfd";
	case EHWPOISON:
		return "page is poisoned, its contents are lost";
	case ENOTTY:
		return "not a guest_memfd, or the kernel is too old, or the VM owns the attributes";
	case ENOMEM:
		return "no memory to record the new attributes, or to split a huge page";
	case EIO:
		return "the VM is dead or KVM has stopped it";
	case ENXIO:
		return "no guest_memfd";
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

/* ---- a range of guest physical memory ---- */

/* Does [@start, @start + @size) wrap around?  Its last byte may be the very last one. */
static bool wraps(uint64_t start, uint64_t size)
{
	return size && size - 1 > UINT64_MAX - start;
}

int gmem_split_begin(struct gmem_split *split, const struct gmem_slot *slots,
		     size_t nr_slots, uint64_t gpa, uint64_t size)
{
	size_t i;

	*split = (struct gmem_split) { .slots = slots };

	if (!size || wraps(gpa, size))
		return -EINVAL;

	for (i = 0; i < nr_slots; i++) {
		if (wraps(slots[i].gpa, slots[i].size))
			return -EINVAL;
		if (slots[i].gmem_fd >= 0 && wraps(slots[i].offset, slots[i].size))
			return -EINVAL;
	}

	split->nr_slots = nr_slots;
	split->gpa = gpa;
	split->size = size;
	return 0;
}

bool gmem_split_next(struct gmem_split *split, struct gmem_piece *piece)
{
	uint64_t size = split->size;
	uint64_t gpa = split->gpa;
	size_t i;

	if (!size)
		return false;

	*piece = (struct gmem_piece) { .gpa = gpa, .gmem_fd = -1 };

	/* Differences instead of ends, which may be 2^64. */
	for (i = 0; i < split->nr_slots; i++) {
		const struct gmem_slot *slot = &split->slots[i];

		if (gpa >= slot->gpa && gpa - slot->gpa < slot->size) {
			/* To the end of the slot, no other one can matter. */
			piece->slot = slot;
			if (size > slot->size - (gpa - slot->gpa))
				size = slot->size - (gpa - slot->gpa);
			break;
		}

		/* A gap, unless another slot says otherwise, to the next slot. */
		if (slot->size && slot->gpa > gpa && size > slot->gpa - gpa)
			size = slot->gpa - gpa;
	}

	if (piece->slot && piece->slot->gmem_fd >= 0) {
		piece->gmem_fd = piece->slot->gmem_fd;
		piece->offset = piece->slot->offset + (gpa - piece->slot->gpa);
	}

	piece->size = size;
	split->gpa += size;
	split->size -= size;
	return true;
}

/* 0, or the errno with which a piece without guest_memfd ends the call. */
static int check_without_gmem(const struct gmem_gpa_report *report)
{
	if (report->to_private)
		return ENXIO;

	/* It is shared as it is, but KVM promises nothing about its bytes. */
	return report->mode ? EOPNOTSUPP : 0;
}

static int check_gpa(const struct gmem_slot *slots, size_t nr_slots,
		     struct gmem_gpa_report *report)
{
	struct gmem_piece piece;
	struct gmem_split split;
	int error;

	if ((report->gpa | report->size) & (page_size() - 1))
		return EINVAL;
	if (gmem_split_begin(&split, slots, nr_slots, report->gpa, report->size))
		return EINVAL;

	/* KVM would say so, but there may be nothing to ask KVM for. */
	if (report->mode && report->mode != KVM_SET_MEMORY_ATTRIBUTES2_ZERO &&
	    report->mode != KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE)
		return EINVAL;

	while (gmem_split_next(&split, &piece)) {
		if (piece.gmem_fd >= 0)
			continue;

		error = check_without_gmem(report);
		if (error) {
			report->error_gpa = piece.gpa;
			return error;
		}
	}

	return 0;
}

/* The guest physical address of the page that the report of a piece is about. */
static uint64_t error_gpa(const struct gmem_report *piece)
{
	if (!piece->has_error_offset)
		return piece->gpa;

	return piece->gpa + (piece->error_offset - piece->offset);
}

static void convert_pieces(struct gmem_split *split, const struct gmem_retry *retry,
			   struct gmem_gpa_report *report)
{
	struct gmem_piece piece;

	while (gmem_split_next(split, &piece)) {
		if (piece.gmem_fd < 0) {
			report->without_gmem += piece.size;
			report->done += piece.size;
			continue;
		}

		report->piece = (struct gmem_report) {
			.gmem_fd = piece.gmem_fd,
			.offset = piece.offset,
			.size = piece.size,
			.to_private = report->to_private,
			.mode = report->mode,
			.gpa = piece.gpa,
		};

		/* The first error ends it, so that no success can hide it. */
		report->error = -convert(&report->piece, retry);
		report->tries += report->piece.tries;
		if (report->error) {
			report->error_gpa = error_gpa(&report->piece);
			return;
		}
		report->done += piece.size;
	}
}

int gmem_convert_gpa(const struct gmem_slot *slots, size_t nr_slots, uint64_t gpa,
		     uint64_t size, bool to_private, uint64_t mode,
		     const struct gmem_retry *retry,
		     struct gmem_gpa_report *report)
{
	struct gmem_gpa_report local;
	struct gmem_split split;

	if (!report)
		report = &local;

	*report = (struct gmem_gpa_report) {
		.gpa = gpa,
		.size = size,
		.to_private = to_private,
		.mode = mode,
		.error_gpa = gpa,
		.piece = { .gmem_fd = -1, .gpa = GMEM_NO_GPA },
	};

	report->error = check_gpa(slots, nr_slots, report);
	if (!report->error) {
		gmem_split_begin(&split, slots, nr_slots, gpa, size);
		convert_pieces(&split, retry, report);
	}

	return -report->error;
}

const char *gmem_gpa_report_str(const struct gmem_gpa_report *report, char *buf,
				size_t len)
{
	const char *to = report->to_private ? "private" : "shared";
	unsigned long long start = report->gpa;
	unsigned long long size = report->size;
	const char *mode = gmem_mode_str(report->mode);
	char skipped[64] = "";

	if (report->without_gmem)
		snprintf(skipped, sizeof(skipped), ", 0x%llx bytes without guest_memfd",
			 (unsigned long long)report->without_gmem);

	if (!report->error) {
		snprintf(buf, len, "gpa 0x%llx size 0x%llx made %s (%s, tries: %u%s)",
			 start, size, to, mode, report->tries, skipped);
		return buf;
	}

	snprintf(buf, len,
		 "gpa 0x%llx size 0x%llx not made %s: %s at gpa 0x%llx, done: 0x%llx bytes (errno %d, %s, tries: %u%s%s)",
		 start, size, to, explain(report->error),
		 (unsigned long long)report->error_gpa, (unsigned long long)report->done,
		 report->error, mode, report->tries,
		 report->piece.gave_up ? ", gave up" : "", skipped);
	return buf;
}
