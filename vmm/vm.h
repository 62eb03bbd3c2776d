/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The machine: one KVM_X86_SW_PROTECTED_VM, one vCPU, and two memslots whose
 * memory is a guest_memfd that the host has mapped as well.
 *
 * What goes wrong here ends the tour through fail().
 */
#ifndef VM_H
#define VM_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/kvm.h>

#include "gmem_convert.h"
#include "guest.h"

/*
 * Where the first memslot ends and the second one begins.  One would do; two are what
 * a PC has at 4 GiB, and make conversions that cross the border.
 */
#define VM_SLOT_BORDER	(GUEST_DATA + 128 * GUEST_PAGE_SIZE)
#define VM_SLOTS	2

struct vm {
	int kvm_fd;
	int vm_fd;
	int vcpu_fd;
	int gmem_fd;

	struct kvm_run *run;
	size_t run_size;

	/*
	 * The host's mapping of the whole guest_memfd.  The memslots are bound to
	 * the file in such a way that an offset into the file, into this mapping and
	 * a gpa are the same number.
	 */
	char *mem;

	/* What KVM was told, for the translation of what the guest asks for. */
	struct gmem_slot slots[VM_SLOTS];

	/* How conversions that the guest asks for deal with EAGAIN. */
	struct gmem_retry retry;

	/*
	 * What becomes of the bytes when the guest asks for a conversion, one
	 * content mode (see gmem_convert.h) a direction.  The guest cannot say,
	 * the hypercall has no word for it: it is the VMM's policy.
	 */
	uint64_t mode_to_private;
	uint64_t mode_to_shared;

	/* The last conversion that the guest asked for. */
	struct gmem_gpa_report report;

	/* Successful ones that the guest asked for. */
	unsigned long conversions;

	/*
	 * Which pages are private, by all conversions so far.  Nothing here needs
	 * to know; it is compared with what the kernel says.
	 */
	bool is_private[GUEST_MEM_SIZE / GUEST_PAGE_SIZE];

	/* KVM_EXIT_MEMORY_FAULT exits. */
	unsigned long memory_faults;
};

/* Open /dev/kvm and create the VM; enough to ask what the kernel offers. */
void vm_open(struct vm *vm);
void vm_create_memory(struct vm *vm);
void vm_create_vcpu(struct vm *vm);

/* KVM_CHECK_EXTENSION on /dev/kvm or a VM. */
int vm_check_extension(int fd, long cap);

/* Where the host sees a guest physical address. */
static inline void *vm_host(struct vm *vm, uint64_t gpa)
{
	return vm->mem + gpa;
}

/*
 * Have the guest execute a command (guest.h), handling whatever exits happen on
 * the way, and return its result.
 */
int64_t vm_command(struct vm *vm, enum guest_op op, uint64_t gpa, uint64_t len);

#endif /* VM_H */
