// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <asm/kvm_para.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>

#include "vm.h"
#include "vmm.h"

/* Faults in a row that the guest gets for one instruction to make progress. */
#define MAX_MEMORY_FAULTS 16

extern const char guest_image[], guest_image_end[];

int vm_check_extension(int fd, long cap)
{
	int r = ioctl(fd, KVM_CHECK_EXTENSION, cap);

	if (r < 0)
		fail_errno("KVM_CHECK_EXTENSION(%ld)", cap);
	return r;
}

void vm_open(struct vm *vm)
{
	int version;

	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		unsupported("cannot open /dev/kvm: %s", strerror(errno));

	version = ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0);
	if (version < 0)
		fail_errno("KVM_GET_API_VERSION");
	if (version != KVM_API_VERSION)
		fail("KVM API version is %d, not %d", version, KVM_API_VERSION);

	if (!(vm_check_extension(vm->kvm_fd, KVM_CAP_VM_TYPES) &
	      (1 << KVM_X86_SW_PROTECTED_VM)))
		unsupported("no KVM_X86_SW_PROTECTED_VM: the kernel needs CONFIG_KVM_SW_PROTECTED_VM and two-dimensional paging");

	vm->vm_fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM);
	if (vm->vm_fd < 0)
		fail_errno("KVM_CREATE_VM(KVM_X86_SW_PROTECTED_VM)");
}

static void load_guest(struct vm *vm)
{
	size_t size = guest_image_end - guest_image;
	uint64_t *pml4 = vm_host(vm, GUEST_PML4);
	uint64_t *pdpt = vm_host(vm, GUEST_PDPT);
	uint64_t *pd = vm_host(vm, GUEST_PD);

	if (size > GUEST_CODE_MAX)
		fail("the guest image has %zu bytes, more than %d", size, GUEST_CODE_MAX);
	memcpy(vm_host(vm, GUEST_CODE), guest_image, size);

	/* Present and writable; the last one is a 2 MiB page at address 0. */
	pml4[0] = GUEST_PDPT | 0x3;
	pdpt[0] = GUEST_PD | 0x3;
	pd[0] = 0x83;
}

static void create_slot(struct vm *vm, unsigned int slot)
{
	const struct gmem_slot *wanted = &vm->slots[slot];
	struct kvm_userspace_memory_region2 region = {
		.slot = slot,
		.flags = KVM_MEM_GUEST_MEMFD,
		.guest_phys_addr = wanted->gpa,
		.memory_size = wanted->size,
		/*
		 * Guest accesses are served from the guest_memfd.  The same memory
		 * as userspace_addr is for KVM's own accesses, e.g. to the
		 * instruction that it emulates: with any other memory there, KVM
		 * and the guest would see different bytes at the same address.
		 */
		.userspace_addr = (uintptr_t)vm->mem + wanted->offset,
		.guest_memfd = wanted->gmem_fd,
		.guest_memfd_offset = wanted->offset,
	};

	if (ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION2, &region))
		fail_errno("KVM_SET_USER_MEMORY_REGION2, slot %u", slot);
}

void vm_create_memory(struct vm *vm)
{
	const int wanted = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
	struct kvm_create_guest_memfd gmem = {
		.size = GUEST_MEM_SIZE,
		.flags = wanted,
	};
	unsigned int slot;
	int flags = vm_check_extension(vm->vm_fd, KVM_CAP_GUEST_MEMFD_FLAGS);

	if ((flags & wanted) != wanted)
		fail("KVM_CAP_GUEST_MEMFD_FLAGS of the VM is 0x%x, without MMAP and INIT_SHARED (0x%x)",
		     flags, wanted);

	vm->gmem_fd = ioctl(vm->vm_fd, KVM_CREATE_GUEST_MEMFD, &gmem);
	if (vm->gmem_fd < 0)
		fail_errno("KVM_CREATE_GUEST_MEMFD(MMAP | INIT_SHARED)");

	/*
	 * The descriptor is all it takes to convert, and to map what is shared.  KVM
	 * makes those of the VM and of the vCPU close-on-exec, but not this one.
	 */
	if (fcntl(vm->gmem_fd, F_SETFD, FD_CLOEXEC))
		fail_errno("fcntl(F_SETFD) of the guest_memfd");

	vm->mem = mmap(NULL, GUEST_MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		       vm->gmem_fd, 0);
	if (vm->mem == MAP_FAILED)
		fail_errno("mmap of the guest_memfd");

	vm->slots[0] = (struct gmem_slot) {
		.gpa = 0,
		.size = VM_SLOT_BORDER,
		.gmem_fd = vm->gmem_fd,
		.offset = 0,
	};
	vm->slots[1] = (struct gmem_slot) {
		.gpa = VM_SLOT_BORDER,
		.size = GUEST_MEM_SIZE - VM_SLOT_BORDER,
		.gmem_fd = vm->gmem_fd,
		.offset = VM_SLOT_BORDER,
	};
	for (slot = 0; slot < VM_SLOTS; slot++)
		create_slot(vm, slot);

	load_guest(vm);
}

/* What KVM supports, plus the hypercall that this VMM implements. */
static void set_cpuid(struct vm *vm)
{
	const unsigned int max = 256;
	struct kvm_cpuid2 *cpuid;
	bool found = false;
	unsigned int i;

	cpuid = calloc(1, sizeof(*cpuid) + max * sizeof(cpuid->entries[0]));
	if (!cpuid)
		fail_errno("calloc");

	cpuid->nent = max;
	if (ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid))
		fail_errno("KVM_GET_SUPPORTED_CPUID");

	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function != KVM_CPUID_FEATURES)
			continue;
		cpuid->entries[i].eax |= 1u << KVM_FEATURE_HC_MAP_GPA_RANGE;
		found = true;
	}
	if (!found)
		fail("KVM_GET_SUPPORTED_CPUID has no leaf 0x%x", KVM_CPUID_FEATURES);

	if (ioctl(vm->vcpu_fd, KVM_SET_CPUID2, cpuid))
		fail_errno("KVM_SET_CPUID2");
	free(cpuid);
}

/* Straight to 64-bit mode; flat segments, no interrupts, no descriptor tables. */
static void set_registers(struct vm *vm)
{
	const struct kvm_segment code = {
		.selector = 0x8, .limit = 0xffffffff, .type = 0xb,
		.present = 1, .s = 1, .g = 1, .l = 1,
	};
	const struct kvm_segment data = {
		.selector = 0x10, .limit = 0xffffffff, .type = 0x3,
		.present = 1, .s = 1, .g = 1, .db = 1,
	};
	struct kvm_regs regs = {
		.rip = GUEST_CODE,
		/* What a call would have left, the ABI's alignment. */
		.rsp = GUEST_STACK_TOP - 8,
		.rflags = 0x2,
	};
	struct kvm_sregs sregs;

	if (ioctl(vm->vcpu_fd, KVM_GET_SREGS, &sregs))
		fail_errno("KVM_GET_SREGS");

	sregs.cs = code;
	sregs.ds = data;
	sregs.es = data;
	sregs.fs = data;
	sregs.gs = data;
	sregs.ss = data;
	sregs.cr0 = 0x80010033;		/* PG, WP, NE, ET, MP, PE */
	sregs.cr3 = GUEST_PML4;
	sregs.cr4 = 0x20;		/* PAE */
	sregs.efer = 0x500;		/* LMA, LME */

	if (ioctl(vm->vcpu_fd, KVM_SET_SREGS, &sregs))
		fail_errno("KVM_SET_SREGS");
	if (ioctl(vm->vcpu_fd, KVM_SET_REGS, &regs))
		fail_errno("KVM_SET_REGS");
}

void vm_create_vcpu(struct vm *vm)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_EXIT_HYPERCALL,
		.args[0] = 1 << KVM_HC_MAP_GPA_RANGE,
	};
	int size;

	/* Before the feature bit in CPUID says that the hypercall is there. */
	if (ioctl(vm->vm_fd, KVM_ENABLE_CAP, &cap))
		fail_errno("KVM_ENABLE_CAP(KVM_CAP_EXIT_HYPERCALL)");

	vm->vcpu_fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, 0);
	if (vm->vcpu_fd < 0)
		fail_errno("KVM_CREATE_VCPU");

	size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < 0)
		fail_errno("KVM_GET_VCPU_MMAP_SIZE");
	vm->run_size = size;

	vm->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		       vm->vcpu_fd, 0);
	if (vm->run == MAP_FAILED)
		fail_errno("mmap of the vCPU");

	set_cpuid(vm);
	set_registers(vm);
}

/* Any @gpa and @size, both come from the guest. */
static int convert(struct vm *vm, uint64_t gpa, uint64_t size, bool to_private)
{
	uint64_t mode = to_private ? vm->mode_to_private : vm->mode_to_shared;
	uint64_t page;
	int r;

	r = gmem_convert_gpa(vm->slots, VM_SLOTS, gpa, size, to_private, mode, &vm->retry,
			     &vm->report);

	/* A range that crosses memslots can fail when a part of it is converted. */
	for (page = 0; page < GUEST_MEM_SIZE; page += GUEST_PAGE_SIZE) {
		if (page >= gpa && page - gpa < vm->report.done)
			vm->is_private[page / GUEST_PAGE_SIZE] = to_private;
	}

	if (!r)
		vm->conversions++;
	return r;
}

/*
 * The guest asks for a conversion and is told how it went.  A guest that is told
 * of EAGAIN can ask again later; the VMM must not insist in its place, because
 * this is the vCPU's own thread (see gmem_convert.h).
 *
 * On this VM type the guest gets the result as it is, a negative error number.  On
 * SNP and TDX KVM itself reads it, and takes only 0, EINVAL and EAGAIN, positive.
 */
static void handle_hypercall(struct vm *vm)
{
	const uint64_t known = KVM_MAP_GPA_RANGE_ENCRYPTED | 0xf /* page size hint */;
	uint64_t gpa = vm->run->hypercall.args[0];
	uint64_t npages = vm->run->hypercall.args[1];
	uint64_t attributes = vm->run->hypercall.args[2];
	int r;

	if (vm->run->hypercall.nr != KVM_HC_MAP_GPA_RANGE)
		fail("unexpected hypercall %llu", vm->run->hypercall.nr);

	if (attributes & ~known || npages > UINT64_MAX / GUEST_PAGE_SIZE) {
		vm->run->hypercall.ret = -KVM_EINVAL;
		return;
	}

	/*
	 * On x86, KVM's error numbers for guests are Linux's.  It is the guest's
	 * mistake to want private what is no memory.
	 */
	r = convert(vm, gpa, npages * GUEST_PAGE_SIZE,
		    attributes & KVM_MAP_GPA_RANGE_ENCRYPTED);
	vm->run->hypercall.ret = r == -ENXIO ? -KVM_EINVAL : r;
}

/*
 * The guest accessed memory of the other kind.  Confidential hardware has two
 * kinds of accesses and raises this; an implicit conversion is then what the
 * guest wants, and it executes the instruction again.
 *
 * KVM_X86_SW_PROTECTED_VM does not raise it: its accesses have no kind of their
 * own, each takes the kind that the attributes of the page give it.  The tour
 * checks that this stays unused.
 */
static void handle_memory_fault(struct vm *vm, unsigned int in_a_row)
{
	uint64_t flags = vm->run->memory_fault.flags;
	uint64_t gpa = vm->run->memory_fault.gpa;
	uint64_t size = vm->run->memory_fault.size;
	bool to_private = flags & KVM_MEMORY_EXIT_FLAG_PRIVATE;
	char text[256];

	vm->memory_faults++;

	if (flags & ~KVM_MEMORY_EXIT_FLAG_PRIVATE)
		fail("KVM_EXIT_MEMORY_FAULT that cannot be resolved: gpa 0x%llx size 0x%llx flags 0x%llx",
		     (unsigned long long)gpa, (unsigned long long)size,
		     (unsigned long long)flags);

	if (in_a_row > MAX_MEMORY_FAULTS)
		fail("KVM_EXIT_MEMORY_FAULT again and again: gpa 0x%llx flags 0x%llx",
		     (unsigned long long)gpa, (unsigned long long)flags);

	/* EAGAIN is not the end: the guest faults again, and so asks again. */
	if (convert(vm, gpa, size, to_private) && vm->report.error != EAGAIN)
		fail("KVM_EXIT_MEMORY_FAULT: %s",
		     gmem_gpa_report_str(&vm->report, text, sizeof(text)));
}

static bool is_done(const struct kvm_run *run)
{
	return run->io.direction == KVM_EXIT_IO_OUT && run->io.port == GUEST_PORT_DONE;
}

/* Run the guest until it says that it is done with the mailbox. */
static void run_guest(struct vm *vm)
{
	struct kvm_run *run = vm->run;
	unsigned int faults = 0;

	for (;;) {
		/*
		 * KVM_EXIT_MEMORY_FAULT is the one exit that comes with an error:
		 * EFAULT, or EHWPOISON, which asks for nothing.
		 */
		if (ioctl(vm->vcpu_fd, KVM_RUN, 0)) {
			if (errno == EINTR)
				continue;
			if (errno == EHWPOISON && run->exit_reason == KVM_EXIT_MEMORY_FAULT)
				fail("the guest's memory at 0x%llx is poisoned",
				     (unsigned long long)run->memory_fault.gpa);
			if (errno != EFAULT || run->exit_reason != KVM_EXIT_MEMORY_FAULT)
				fail_errno("KVM_RUN");
			handle_memory_fault(vm, ++faults);
			continue;
		}
		faults = 0;

		switch (run->exit_reason) {
		case KVM_EXIT_IO:
			if (is_done(run))
				return;
			fail("unexpected I/O at port 0x%x", run->io.port);
		case KVM_EXIT_HYPERCALL:
			handle_hypercall(vm);
			break;
		case KVM_EXIT_SHUTDOWN:
			fail("the guest crashed (KVM_EXIT_SHUTDOWN)");
		case KVM_EXIT_INTERNAL_ERROR:
			fail("KVM internal error, suberror %u", run->internal.suberror);
		default:
			fail("unexpected exit, reason %u", run->exit_reason);
		}
	}
}

int64_t vm_command(struct vm *vm, enum guest_op op, uint64_t gpa, uint64_t len)
{
	struct guest_mailbox *mailbox = vm_host(vm, GUEST_MAILBOX);

	mailbox->op = op;
	mailbox->gpa = gpa;
	mailbox->len = len;
	run_guest(vm);
	return mailbox->result;
}
