/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Convert guest_memfd memory between private and shared, in place.
 *
 * Two files, gmem_convert.h and gmem_convert.c, meant to be copied into a VMM.
 * They need libc and any linux/kvm.h, also one that is older than the interface:
 * what it lacks is defined here.  C99 and C++11 can include this header; compile the
 * .c as C, C11 or later, also in a C++ program.  There is no global state: every
 * function may be called from several threads at once.
 *
 * Documentation/vmm-guide.md, of the repository that has these files in vmm/, says more
 * about VMMs.  What has to be known to call the functions:
 *
 *  - All or nothing.  A call of the ioctl that fails has changed no attribute and
 *    no byte of any page, unless it fails with EIO, i.e. the VM is dead: then a TD
 *    may have lost memory.  It may have removed pages of the range from host and
 *    guest page tables, and what shares a huge page with the range; those fault back
 *    in by themselves.  A guest physical range that takes several calls is not
 *    converted as a whole: gmem_convert_gpa() says how far it came.
 *
 *  - Contents.  Without a content mode (0) nothing is promised about the bytes
 *    after a successful conversion.  What a converted page happens to hold
 *    differs between VM types, hardware and firmware: write it before it is read.
 *    There are two promises to ask for:
 *
 *      KVM_SET_MEMORY_ATTRIBUTES2_ZERO      the range reads as zeros afterwards
 *      KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE  the range reads as it did before
 *
 *    A mode speaks for every page of the range, whatever it was.  In
 *    particular, ZERO also wipes pages that are shared already, with what the
 *    host has written there.
 *
 *  - EOPNOTSUPP: the VM cannot give the content mode.  That depends on the VM
 *    type, on the direction (no VM gives ZERO to private), and on the time
 *    (PRESERVE to private ends where a confidential VM is finalized).
 *    gmem_content_modes() says what there is.  Do without, or take another mode;
 *    trying again does not help.  No VM gives one for addresses without a
 *    guest_memfd, see gmem_convert_gpa().
 *
 *  - A kernel can have the conversion without content modes; then every mode is
 *    EINVAL, and gmem_content_modes() returns 0.  gmem_probe() does not care.
 *
 *  - EHWPOISON: with a content mode only, a page is poisoned, i.e. its memory is
 *    broken and its bytes are lost.  error_offset is the first such page.
 *    Convert around it, or the range without a mode; an access to the page
 *    raises SIGBUS or a machine check.
 *
 *  - EAGAIN, to private: a page is in use outside the guest.  A user is
 *    anything that holds a reference: O_DIRECT or io_uring I/O in flight, a
 *    page spliced into a pipe, a VFIO mapping, or the kernel itself for a
 *    moment.  Host mappings (page table entries) are no such users; KVM removes
 *    them.
 *
 *    A file with huge pages (GUEST_MEMFD_FLAG_HUGE) fails so in both directions if a
 *    part of a huge page is converted, and any page of it is in use: error_offset is
 *    the first page of the range in that huge page, and the user may hold a page of
 *    it that is outside of the range.
 *
 *    The kernel does not wait for references to go away: it flushes what it holds
 *    itself, looks, and answers at once.  The waiting is done here, without any
 *    lock of the kernel held, see struct gmem_retry.  A VMM that calls the ioctl
 *    directly sees EAGAIN for references that last some microseconds, and has
 *    to repeat the call, a bounded number of times and with pauses.
 *
 *  - KVM is a user too, when it maps guest memory for itself on behalf of a
 *    vCPU (kvm_vcpu_map(): a GHCB, a nested VMCB).  That goes away only when
 *    *that vCPU runs*.  Never retry without bound in a vCPU's own thread.
 *
 *  - What to do with an EAGAIN that outlives the retries depends on the guest.
 *    A guest of TDX asks again when it is told (Linux: three times in all), and
 *    so does one of SNP, without an end, if KVM completes a page state change that
 *    fails with EAGAIN without an error.  Where KVM doesn't, the guest terminates
 *    itself, and the VMM has to absorb it.  Do not enter the vCPU again, find and
 *    end what holds the page, convert the rest of the range (struct
 *    gmem_gpa_report has it), and only then complete the exit with success.
 *
 *  - EIO: the VM is dead, or KVM has found a bug and stopped it.  Nothing can be
 *    converted any more; close it.
 *
 *  - error_offset is written for EAGAIN, EOPNOTSUPP, EHWPOISON and ENOMEM, and
 *    means nothing after any other error.  struct gmem_report tells them apart.
 *
 *  - There is one physical page, private or shared.  Do not punch a hole after a
 *    conversion, as VMMs do whose shared memory is somewhere else: there is no
 *    second copy to free, only the one in use.
 *
 *  - A guest_memfd is not close-on-exec when KVM returns it, and a process that has
 *    it may convert.  A VMM that executes other programs sets FD_CLOEXEC.
 */
#ifndef GMEM_CONVERT_H
#define GMEM_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/kvm.h>

/* The content modes, for a linux/kvm.h that is older than they are. */
#ifndef KVM_SET_MEMORY_ATTRIBUTES2_ZERO
#define KVM_SET_MEMORY_ATTRIBUTES2_ZERO        (1ULL << 0)
#endif
#ifndef KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE
#define KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE    (1ULL << 1)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Can memory of this VM be converted through its guest_memfd? */
enum gmem_support {
	/* Yes. */
	GMEM_SUPPORTED,

	/* The kernel has no conversion through guest_memfd. */
	GMEM_NO_FEATURE,

	/*
	 * The kernel can, but the VM owns the attributes, by a parameter
	 * of the kvm module: vm_memory_attributes=1, or, in kernels that call it
	 * so, gmem_in_place_conversion=0.  KVM_SET_MEMORY_ATTRIBUTES on the VM fd
	 * is the way to convert.
	 */
	GMEM_VM_OWNS_STATE,

	/*
	 * The kernel can, but a VM of this type has no private memory; perhaps none
	 * has.  No parameter changes that.
	 */
	GMEM_NO_PRIVATE_MEMORY,

	/*
	 * The question could not be asked, errno says why: not a VM's fd
	 * (ENOTTY, EINVAL), a VM that is dead, or of another process, where a
	 * conversion would work nevertheless (EIO), no file descriptor left ...
	 */
	GMEM_PROBE_FAILED
};

/*
 * @vm_fd: what KVM_CREATE_VM returned.
 *
 * Asks the ioctl itself, with a guest_memfd of one page that nothing else uses and
 * that is closed again, so the answer is right for every kernel that has the
 * ioctl, whatever the number of its capability is and whatever linux/kvm.h this
 * was compiled with.  Where the answer is no, /sys/module/kvm/parameters/ tells
 * a kernel that lacks the feature from one where the VM owns the attributes, and
 * KVM_CAP_MEMORY_ATTRIBUTES tells whether this VM has private memory at all, i.e.
 * whether the administrator has a reason to change the parameter.
 *
 * A VMM that confines itself (seccomp) calls this before, or allows
 * KVM_CREATE_GUEST_MEMFD.
 */
enum gmem_support gmem_probe(int vm_fd);

/* One sentence without a full stop, for a person; never NULL. */
const char *gmem_support_str(enum gmem_support support);

/*
 * Which content modes can this VM give in one direction, now?  Asked in the same way
 * as gmem_probe() does.
 *
 * @vm_fd:      what KVM_CREATE_VM returned.
 * @to_private: the direction.
 *
 * The answer can change once: PRESERVE to private ends when a VM of type SNP or
 * TDX is finalized.
 *
 * Return: KVM_SET_MEMORY_ATTRIBUTES2_ZERO and _PRESERVE, or'ed; 0 if there are
 * none, because of the VM type, because the kernel has no content modes, or because
 * gmem_probe() would not return GMEM_SUPPORTED; or a negative errno where
 * it would return GMEM_PROBE_FAILED.
 */
int gmem_content_modes(int vm_fd, bool to_private);

/* "ZERO", "PRESERVE", "no content mode" or "unknown content mode"; never NULL. */
const char *gmem_mode_str(uint64_t mode);

/* gmem_report.gpa of a conversion that was asked for by file offset. */
#define GMEM_NO_GPA UINT64_MAX

/* How the conversion of a range of one guest_memfd went, failed or not. */
struct gmem_report {
	/* What was asked for. */
	int gmem_fd;
	uint64_t offset;
	uint64_t size;
	bool to_private;
	uint64_t mode;

	/* The guest physical address of @offset, or GMEM_NO_GPA. */
	uint64_t gpa;

	/* 0, or a positive errno. */
	int error;

	/*
	 * Whether KVM has written error_offset, with a page of the range, and what
	 * it says: bytes into the file.
	 */
	bool has_error_offset;
	uint64_t error_offset;

	/* How many times the ioctl was called. */
	unsigned int tries;

	/* The callback said GMEM_GIVE_UP. */
	bool gave_up;
};

/* What a gmem_busy_fn wants to happen next. */
enum gmem_busy_action {
	GMEM_RETRY,
	GMEM_GIVE_UP
};

/*
 * "Drop your references": called between a try that failed with EAGAIN and the
 * next one, in the thread that called gmem_convert().  Not called after the last
 * try, struct gmem_report has what it would have been told.
 *
 * @opaque: gmem_retry.opaque.
 * @report: how it stands.  error_offset is the first page that is in use, or whose
 *          huge page is, tries is 1 after the first try.
 *
 * KVM reports one page a try.  Drop everything from error_offset to the end of the
 * range at once where that is possible, or give gmem_retry.max_tries room for one
 * page a try.  If the file has huge pages, begin where the 2 MiB of the file do that
 * error_offset is in, and end where those of the range's last page do.
 *
 * References are often dropped later than the call that should drop them
 * returns (an I/O that is being cancelled).  That is what the retries are for.
 */
typedef enum gmem_busy_action (*gmem_busy_fn)(void *opaque,
					      const struct gmem_report *report);

/* How to deal with EAGAIN. */
struct gmem_retry {
	/* How many times to try at most; 0 means 1, i.e. no retry. */
	unsigned int max_tries;

	/*
	 * How long to sleep before the second try, in microseconds.  Doubles
	 * with each further try, up to GMEM_MAX_DELAY_US.  0: never sleep.
	 */
	unsigned int delay_us;

	/* NULL: only wait. */
	gmem_busy_fn busy;
	void *opaque;
};

/* All sleeps of a call take at most (max_tries - 1) times this. */
#define GMEM_MAX_DELAY_US 5000u

/*
 * What is used where a gmem_retry is NULL: 12 tries with pauses from 50 us on,
 * 26 ms in all, no callback.  Long enough for references that the kernel, or a
 * page fault, holds for a moment, and short enough for a vCPU's thread.  Copy it
 * to add a callback.  For a single try, max_tries is 1.
 */
extern const struct gmem_retry gmem_retry_default;

/*
 * Convert [@offset, @offset + @size) of a guest_memfd.
 *
 * @gmem_fd:    what KVM_CREATE_GUEST_MEMFD returned.
 * @offset:     bytes into the file, page aligned.
 * @size:       bytes, page aligned, not 0; the range must end within the file.
 *              Nothing is rounded.
 * @to_private: true: only the guest may access the range afterwards.
 *              false: the guest and host userspace may.
 * @mode:       the content mode: 0, KVM_SET_MEMORY_ATTRIBUTES2_ZERO, or
 *              KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE; see the top of this file.
 * @retry:      what to do on EAGAIN; NULL: gmem_retry_default.
 * @report:     filled in whatever the result; NULL if not wanted.
 *
 * The range may have pages of both kinds, may contain pages that were never touched,
 * and may be bound to any number of memslots.  Converting what already has the
 * wanted attributes succeeds, and changes nothing unless @mode is ZERO.
 *
 * Return: 0, or a negative errno:
 *
 *  -ENOTTY  @gmem_fd is no guest_memfd, the kernel is too old, or the VM owns
 *           the attributes; gmem_probe() tells which
 *  -EIO     the VM is dead, or KVM has found a bug and stopped it
 *  -EINVAL  @offset or @size unaligned, @size 0, range beyond the end of the
 *           file; @mode not known to this kernel, or more than one; or a VM without
 *           private memory
 *  -EOPNOTSUPP  the VM cannot give @mode in this direction, or not at this time;
 *           error_offset is @offset
 *  -EHWPOISON  with a @mode: a page is poisoned; error_offset is the first one
 *  -EAGAIN  a page was still in use after the last try, or the callback gave up;
 *           error_offset is the first page that was.  To shared only for a part of
 *           a huge page
 *  -ENOMEM  no memory to record the new attributes, or to split a huge page (the
 *           caller's memcg limit counts); error_offset is @offset
 *  -EINTR   a fatal signal is pending, i.e. the caller never sees this
 */
int gmem_convert(int gmem_fd, uint64_t offset, uint64_t size, bool to_private,
		 uint64_t mode, const struct gmem_retry *retry,
		 struct gmem_report *report);

/* gmem_convert() with @to_private true, or false. */
int gmem_make_private(int gmem_fd, uint64_t offset, uint64_t size, uint64_t mode,
		      const struct gmem_retry *retry, struct gmem_report *report);
int gmem_make_shared(int gmem_fd, uint64_t offset, uint64_t size, uint64_t mode,
		     const struct gmem_retry *retry, struct gmem_report *report);

/*
 * Say in words how a conversion went.  Like snprintf(), writes at most @len
 * bytes to @buf, the terminating NUL included.
 *
 * Return: @buf
 */
const char *gmem_report_str(const struct gmem_report *report, char *buf,
			    size_t len);

/*
 * Guest physical ranges
 *
 * What the VMM told KVM about a memslot, in KVM_SET_USER_MEMORY_REGION2.
 */
struct gmem_slot {
	uint64_t gpa;		/* guest_phys_addr */
	uint64_t size;		/* memory_size; 0 for a slot that is not in use */
	int gmem_fd;		/* guest_memfd; -1: without KVM_MEM_GUEST_MEMFD */
	uint64_t offset;	/* guest_memfd_offset */
};

/* A part of a guest physical range that needs, or allows, one call of the ioctl. */
struct gmem_piece {
	uint64_t gpa;
	uint64_t size;

	/* NULL: a gap, i.e. there is no memslot at these addresses. */
	const struct gmem_slot *slot;

	/* Where in which file; -1 and 0 if there is no guest_memfd here. */
	int gmem_fd;
	uint64_t offset;
};

/* A walk over the pieces of a range, for gmem_split_next() alone to look into. */
struct gmem_split {
	const struct gmem_slot *slots;
	size_t nr_slots;
	uint64_t gpa;
	uint64_t size;
};

/*
 * Begin to split [@gpa, @gpa + @size) where it crosses memslots.
 *
 * @slots:    the memslots of one address space, in any order.  They must not overlap
 *            (KVM refuses that too), and must stay as they are until the walk ends.
 *            Slots of other address spaces (SMM) do not belong here.
 *
 * The range may end at the very top of the address space.
 *
 * Return: 0, or -EINVAL if @size is 0, if the range wraps around, or if the end of a
 * slot, in memory or in the file, does.
 */
int gmem_split_begin(struct gmem_split *split, const struct gmem_slot *slots,
		     size_t nr_slots, uint64_t gpa, uint64_t size);

/*
 * The next piece, in ascending order.  All pieces together are the range, gaps
 * included.
 *
 * Return: false when there is none left.
 */
bool gmem_split_next(struct gmem_split *split, struct gmem_piece *piece);

/* How the conversion of a guest physical range went, failed or not. */
struct gmem_gpa_report {
	/* What was asked for. */
	uint64_t gpa;
	uint64_t size;
	bool to_private;
	uint64_t mode;

	/* 0, or a positive errno: the first and only error. */
	int error;

	/*
	 * On an error, the page to look at: the one that error_offset stands for,
	 * or the start of the piece that failed.
	 */
	uint64_t error_gpa;

	/*
	 * How far it came: [gpa, gpa + done) has the wanted attributes, the rest is as
	 * it was.  Continue with [gpa + done, gpa + size); to begin again would
	 * zero the first part once more if @mode is ZERO.
	 */
	uint64_t done;

	/* Bytes of the first part that have no guest_memfd, and are shared anyway. */
	uint64_t without_gmem;

	/* How many times the ioctl was called, for all pieces together. */
	unsigned int tries;

	/* The last piece that was converted, or failed; tries is 0 if there is none. */
	struct gmem_report piece;
};

/*
 * Convert [@gpa, @gpa + @size), piece by piece in ascending order, until one fails.
 * Pieces are not undone when a later one fails.
 *
 * Before anything is converted, all of the range is checked: it must be page
 * aligned, and to private, or with a content mode, all of it must have a guest_memfd.
 * To shared without a mode, what has none is skipped: KVM takes such addresses for
 * shared in any case, and guests ask for it, e.g. for device memory.  With a mode it
 * is not, as nothing would keep the promise about its bytes: a VMM that wants a mode
 * for the rest walks the pieces itself, with gmem_split_next().
 *
 * @slots:    as for gmem_split_begin()
 * @mode, @retry: as for gmem_convert(), @retry separately for each piece
 * @report:   filled in whatever the result; NULL if not wanted.
 *
 * Return: 0, or a negative errno: what gmem_convert() returned for the piece that
 * failed, or, before anything was converted,
 *
 *  -EINVAL  @gpa or @size unaligned, or what gmem_split_begin() does not accept;
 *           @mode is more than one, or unknown here
 *  -ENXIO   to private: a part of the range has no guest_memfd, error_gpa is its start
 *  -EOPNOTSUPP  to shared with a @mode: the same; then the tries are 0
 */
int gmem_convert_gpa(const struct gmem_slot *slots, size_t nr_slots, uint64_t gpa,
		     uint64_t size, bool to_private, uint64_t mode,
		     const struct gmem_retry *retry,
		     struct gmem_gpa_report *report);

/* As gmem_report_str(). */
const char *gmem_gpa_report_str(const struct gmem_gpa_report *report, char *buf,
				size_t len);

#ifdef __cplusplus
}
#endif

#endif /* GMEM_CONVERT_H */
