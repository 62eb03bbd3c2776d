/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Convert guest_memfd memory between private and shared, in place.
 *
 * Two files, gmem_convert.h and gmem_convert.c, meant to be copied into a VMM.
 * They need libc and the uAPI headers of a kernel that has
 * KVM_SET_MEMORY_ATTRIBUTES2 on guest_memfd, and nothing else.  No global
 * state: every function may be called from several threads at once.
 *
 * What a VMM author has to know:
 *
 *  - All or nothing.  A call that fails has changed no attribute and no byte of
 *    any page.  It may have removed pages of the range from host and guest page
 *    tables; those fault back in by themselves, and nothing has to be repaired.
 *
 *  - Contents.  Without a content mode (0) nobody promises anything about the
 *    bytes after a successful conversion.  What a converted page happens to hold
 *    differs between VM types, hardware and firmware: whoever reads it next has
 *    to write it first.  A VMM that wants more says so:
 *
 *      KVM_SET_MEMORY_ATTRIBUTES2_ZERO      the range reads as zeros afterwards
 *      KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE  the range reads as it did before
 *
 *    A mode speaks for every page of the range, whatever its state was.  In
 *    particular, ZERO also wipes pages that are shared already, with what the
 *    host has written there.
 *
 *  - EOPNOTSUPP: the VM cannot give the content mode.  That depends on the VM
 *    type, on the direction (nobody gives ZERO to private), and on the time
 *    (PRESERVE to private ends where a confidential VM is finalized).
 *    gmem_content_modes() says what the VM can give in at least one direction;
 *    for one direction the only answer is that of the conversion itself, which
 *    has then changed nothing.  Do without, or take another mode; trying again
 *    does not help.
 *
 *  - EHWPOISON: with a content mode only, a page is poisoned, i.e. its memory is
 *    broken and its bytes are lost.  Nobody can promise anything about it.
 *    error_offset is the first such page.  Convert around it, or the range
 *    without a mode; whoever touches the page gets SIGBUS or a machine check.
 *
 *  - EAGAIN, to private only: a page is in use outside the guest.  A user is
 *    anything that holds a reference: O_DIRECT or io_uring I/O in flight, a
 *    page spliced into a pipe, a VFIO mapping, or the kernel itself for a
 *    moment.  Host mappings (page table entries) are no such users; KVM removes
 *    them.
 *
 *  - KVM is a user too, when it maps guest memory for itself on behalf of a
 *    vCPU (kvm_vcpu_map(): a GHCB, a nested VMCB).  That goes away only when
 *    *that vCPU runs*.  Never retry without bound in a vCPU's own thread: give
 *    up, go back to KVM_RUN with an error for the guest, and let it ask again.
 *
 *  - error_offset is written for EAGAIN, EOPNOTSUPP, EHWPOISON and ENOMEM, and
 *    means nothing after any other error.  struct gmem_report tells them apart.
 *
 *  - The reserved words of struct kvm_memory_attributes2 must be zero, and the
 *    offset and the size must be multiples of the page size, else EINVAL.  A
 *    range that is partly unaligned is not rounded.
 *
 *  - There is one physical page, private or shared.  Do not punch a hole after a
 *    conversion, as VMMs do whose shared memory is somewhere else: there is no
 *    second copy to free, only the one in use.
 *
 *  - Where the conversion was asked for by guest physical address, translate it
 *    through the memslot: offset = gpa - slot's guest_phys_addr + slot's
 *    guest_memfd_offset, and split the range where it crosses memslots.  The
 *    parts are then converted one by one, not atomically.
 */
#ifndef GMEM_CONVERT_H
#define GMEM_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Can memory of this VM be converted through its guest_memfd? */
enum gmem_support {
	/* Yes. */
	GMEM_SUPPORTED,

	/*
	 * The kernel has no conversion through guest_memfd, or was built
	 * without any VM type that has private memory.
	 */
	GMEM_NO_FEATURE,

	/*
	 * The kernel can, but the VM owns the private/shared state: kvm was
	 * loaded with vm_memory_attributes=1, the default where the parameter
	 * exists.  KVM_SET_MEMORY_ATTRIBUTES on the VM fd is the way to convert.
	 */
	GMEM_VM_OWNS_STATE,

	/* The kernel can, but a VM of this type has no private memory. */
	GMEM_NO_PRIVATE_MEMORY,

	/* KVM_CHECK_EXTENSION failed, errno says why; not an fd of KVM? */
	GMEM_PROBE_FAILED,
};

/*
 * @kvm_fd: an open /dev/kvm.
 * @vm_fd:  what KVM_CREATE_VM returned.
 *
 * The VM speaks for itself, /dev/kvm for all VM types.  Where neither offers it,
 * /sys/module/kvm/parameters/vm_memory_attributes tells a kernel that is too old
 * from one whose administrator has to change the parameter.
 */
enum gmem_support gmem_probe(int kvm_fd, int vm_fd);

/* One sentence without a full stop, for a person; never NULL. */
const char *gmem_support_str(enum gmem_support support);

/*
 * Which content modes are there?
 *
 * @fd: what KVM_CREATE_VM returned: those that this VM can give in at least one
 *      direction, at the time of the call.  Or an open /dev/kvm: those that some
 *      VM type can give.
 *
 * Return: KVM_SET_MEMORY_ATTRIBUTES2_ZERO and _PRESERVE, or'ed; 0 if there are
 * none, the VM owns the state, or the kernel is too old; or a negative errno of
 * KVM_CHECK_EXTENSION.
 */
int gmem_content_modes(int fd);

/* "ZERO", "PRESERVE", "no content mode" or "unknown content mode"; never NULL. */
const char *gmem_mode_str(uint64_t mode);

/* What a gmem_busy_fn wants to happen next. */
enum gmem_busy_action {
	GMEM_RETRY,
	GMEM_GIVE_UP,
};

/*
 * "Drop your references": called between a try that failed with EAGAIN and the
 * next one, in the thread that called gmem_convert().  Not called after the last
 * try, struct gmem_report has what it would have been told.
 *
 * @opaque: gmem_retry.opaque.
 * @offset: the first page of the range that is still in use, bytes into the
 *          file, page aligned, in [the requested offset, @end).
 * @end:    the end of the requested range, bytes into the file.
 * @try:    1 after the first try.
 *
 * KVM reports one page a try.  Drop everything in [@offset, @end) at once where
 * that is possible, or give gmem_retry.max_tries room for one page a try.
 *
 * References are often dropped later than the call that should drop them
 * returns (an I/O that is being cancelled).  That is what the retries are for.
 */
typedef enum gmem_busy_action (*gmem_busy_fn)(void *opaque, uint64_t offset,
					      uint64_t end, unsigned int try);

/* How to deal with EAGAIN. */
struct gmem_retry {
	/* How many times to try at most; 0 means 1, i.e. no retry. */
	unsigned int max_tries;

	/*
	 * How long to sleep before the second try, in microseconds.  Doubles
	 * with each further try, up to GMEM_MAX_DELAY_US.  0: never sleep.
	 *
	 * Total sleep is bounded by (max_tries - 1) * GMEM_MAX_DELAY_US.
	 */
	unsigned int delay_us;

	/* NULL: only wait. */
	gmem_busy_fn busy;
	void *opaque;
};

#define GMEM_MAX_DELAY_US 100000u

/* How a conversion went, failed or not. */
struct gmem_report {
	/* What was asked for. */
	uint64_t offset;
	uint64_t size;
	bool to_private;
	uint64_t mode;

	/* 0, or a positive errno. */
	int error;

	/* Whether error_offset was written by KVM. */
	bool has_error_offset;
	uint64_t error_offset;

	/* How many times the ioctl was called, at least 1. */
	unsigned int tries;

	/* The callback said GMEM_GIVE_UP. */
	bool gave_up;
};

/*
 * Convert [@offset, @offset + @size) of a guest_memfd.
 *
 * @gmem_fd:    what KVM_CREATE_GUEST_MEMFD returned.
 * @offset:     bytes into the file, page aligned.
 * @size:       bytes, page aligned, not 0; the range must end within the file.
 * @to_private: true: only the guest may access the range afterwards.
 *              false: the guest and host userspace may.
 * @mode:       the content mode: 0, KVM_SET_MEMORY_ATTRIBUTES2_ZERO, or
 *              KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE; see the top of this file.
 * @retry:      what to do on EAGAIN; NULL: one try.
 * @report:     filled in whatever the result; NULL if not wanted.
 *
 * The range may be of mixed state, may contain pages that were never touched,
 * and may be bound to any number of memslots.  Converting what already has the
 * wanted state succeeds, and changes nothing unless @mode is ZERO.
 *
 * Return: 0, or a negative errno:
 *
 *  -ENOTTY  @gmem_fd is no guest_memfd, the kernel is too old, or the VM owns
 *           the state; gmem_probe() tells which
 *  -EINVAL  @offset or @size unaligned, @size 0, range beyond the end of the
 *           file; @mode unknown, or more than one; or a VM without private memory
 *  -EOPNOTSUPP  the VM cannot give @mode in this direction, or not at this time;
 *           error_offset is @offset
 *  -EHWPOISON  with a @mode: a page is poisoned; error_offset is the first one
 *  -EAGAIN  to private: a page was still in use after the last try, or the
 *           callback gave up; error_offset is the first page that was
 *  -ENOMEM  no memory to record the new state (the caller's memcg limit counts);
 *           error_offset is @offset
 *  -EINTR   a fatal signal is pending, i.e. nobody but the kernel sees this
 */
int gmem_convert(int gmem_fd, uint64_t offset, uint64_t size, bool to_private,
		 uint64_t mode, const struct gmem_retry *retry,
		 struct gmem_report *report);

/*
 * Say in words how a conversion went.  Like snprintf(), writes at most @len
 * bytes to @buf, the terminating NUL included.
 *
 * Return: @buf
 */
const char *gmem_report_str(const struct gmem_report *report, char *buf,
			    size_t len);

#endif /* GMEM_CONVERT_H */
