// SPDX-License-Identifier: GPL-2.0
/*
 * What a 32-bit program sees of KVM where no VM has private memory: what makes memory
 * private doesn't exist, or refuses everything, and VMs work as before.
 * On 32-bit x86 there is no guest_memfd either; on 64-bit x86, whose kernel this gets
 * to by way of its compat ioctls, there is.
 *
 * usage: x86_32_test [guest_memfd]    the kernel has guest_memfd
 *
 * Built with the kernel's nolibc: few machines have a 32-bit libc.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/kvm.h>

#define PAGE_SIZE	4096
#define MEM_SIZE	(4 * PAGE_SIZE)

static int failed, number;

static void expect(const char *what, int got, int wanted)
{
	number++;
	if (got == wanted) {
		printf("ok %d %s\n", number, what);
	} else {
		printf("not ok %d %s: wanted %d, got %d\n", number, what, wanted, got);
		failed = 1;
	}
}

/* The ioctl's result, or -errno. */
static int do_ioctl(int fd, unsigned int cmd, void *arg)
{
	int ret = ioctl(fd, cmd, arg);

	return ret < 0 ? -errno : ret;
}

static void expect_cap(const char *what, int kvm, int vm, long cap, int wanted)
{
	printf("# %s on /dev/kvm and on a VM\n", what);
	expect(what, do_ioctl(kvm, KVM_CHECK_EXTENSION, (void *)cap), wanted);
	expect(what, do_ioctl(vm, KVM_CHECK_EXTENSION, (void *)cap), wanted);
}

static void test_caps(int kvm, int vm, int has_gmem)
{
	int flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;

#ifdef GUEST_MEMFD_FLAG_HUGE		/* It comes with a later topic. */
	flags |= GUEST_MEMFD_FLAG_HUGE;
#endif

#define EXPECT_CAP(cap, wanted)	expect_cap(#cap, kvm, vm, cap, wanted)
	EXPECT_CAP(KVM_CAP_VM_TYPES, 1 << KVM_X86_DEFAULT_VM);
	EXPECT_CAP(KVM_CAP_GUEST_MEMFD, has_gmem);
	EXPECT_CAP(KVM_CAP_GUEST_MEMFD_FLAGS, has_gmem ? flags : 0);
	EXPECT_CAP(KVM_CAP_MEMORY_ATTRIBUTES, 0);
	EXPECT_CAP(KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES, 0);
	EXPECT_CAP(KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS, 0);
#ifdef KVM_CAP_MEMORY_ATTRIBUTES2	/* It comes with a later topic. */
	EXPECT_CAP(KVM_CAP_MEMORY_ATTRIBUTES2, 0);
#endif

	expect("no VM with private memory",
	       do_ioctl(kvm, KVM_CREATE_VM, (void *)KVM_X86_SW_PROTECTED_VM), -EINVAL);
}

/* A call that is refused, and leaves the struct alone. */
static void expect_refused(const char *what, int fd, __u64 attributes, __u64 flags,
			   int wanted)
{
	struct kvm_memory_attributes2 attr = {
		.size = PAGE_SIZE,
		.attributes = attributes,
		.flags = flags,
		.error_offset = 0x5a5a5a5a5a5a5a5aull,
	}, orig = attr;

	expect(what, do_ioctl(fd, KVM_SET_MEMORY_ATTRIBUTES2, &attr), wanted);
	expect("struct untouched", memcmp(&attr, &orig, sizeof(attr)), 0);
}

static void expect_all_refused(int fd, int wanted, int wanted_for_null)
{
	const __u64 private = KVM_MEMORY_ATTRIBUTE_PRIVATE;

	expect_refused("to private", fd, private, 0, wanted);
	expect_refused("to shared", fd, 0, 0, wanted);
	expect_refused("zero", fd, 0, KVM_SET_MEMORY_ATTRIBUTES2_ZERO, wanted);
	expect_refused("preserve", fd, private, KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE, wanted);
	expect_refused("bad flag", fd, private, 1ull << 63, wanted);
	expect("no struct", do_ioctl(fd, KVM_SET_MEMORY_ATTRIBUTES2, NULL), wanted_for_null);
}

static void test_ioctls(int kvm, int vm)
{
	struct kvm_memory_attributes old = {
		.size = PAGE_SIZE,
		.attributes = KVM_MEMORY_ATTRIBUTE_PRIVATE,
	};

	printf("# the old ioctl, on a VM and /dev/kvm\n");
	expect("to private", do_ioctl(vm, KVM_SET_MEMORY_ATTRIBUTES, &old), -ENOTTY);
	expect("no struct", do_ioctl(vm, KVM_SET_MEMORY_ATTRIBUTES, NULL), -ENOTTY);
	expect("to private", do_ioctl(kvm, KVM_SET_MEMORY_ATTRIBUTES, &old), -EINVAL);

	printf("# the new ioctl on a VM\n");
	expect_all_refused(vm, -ENOTTY, -ENOTTY);
	/* KVM's answer to all ioctls that it doesn't know on this file. */
	printf("# the new ioctl on /dev/kvm\n");
	expect_all_refused(kvm, -EINVAL, -EINVAL);
}

/* A guest in real mode writes to the memory that is its slot 0. */
static void run_guest(int kvm, int vm, unsigned char *mem)
{
	/* mov $0x42, %al; mov %al, 0x800; hlt */
	static const unsigned char code[] = { 0xb0, 0x42, 0xa2, 0x00, 0x08, 0xf4 };
	struct kvm_regs regs = { .rip = 0, .rflags = 2 };
	struct kvm_sregs sregs;
	struct kvm_run *run;
	int vcpu, size;

	memcpy(mem, code, sizeof(code));
	mem[0x800] = 0;

	vcpu = do_ioctl(vm, KVM_CREATE_VCPU, NULL);
	size = do_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	expect("vCPU", vcpu >= 0 && run != MAP_FAILED, 1);
	if (vcpu < 0 || run == MAP_FAILED)
		return;

	expect("get registers", do_ioctl(vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	expect("set registers", do_ioctl(vcpu, KVM_SET_SREGS, &sregs), 0);
	expect("set registers", do_ioctl(vcpu, KVM_SET_REGS, &regs), 0);
	expect("run", do_ioctl(vcpu, KVM_RUN, NULL), 0);
	expect("the guest halts", run->exit_reason, KVM_EXIT_HLT);
	expect("the guest has written", mem[0x800], 0x42);

	munmap(run, size);
	close(vcpu);
}

static void test_guest(int kvm, int vm)
{
	struct kvm_userspace_memory_region slot = { .memory_size = MEM_SIZE };
	void *mem;

	printf("# a guest in anonymous memory\n");
	mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	expect("mmap", mem != MAP_FAILED, 1);
	if (mem == MAP_FAILED)
		return;

	slot.userspace_addr = (unsigned long)mem;
	expect("memslot", do_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), 0);
	run_guest(kvm, vm, mem);
	munmap(mem, MEM_SIZE);
}

static void test_no_gmem(int vm)
{
	struct kvm_create_guest_memfd gmem = { .size = MEM_SIZE };
	struct kvm_userspace_memory_region2 slot = {
		.slot = 1,
		.flags = KVM_MEM_GUEST_MEMFD,
		.guest_phys_addr = 1ull << 32,
		.memory_size = MEM_SIZE,
		.guest_memfd = vm,
	};

	printf("# no guest_memfd\n");
	expect("create", do_ioctl(vm, KVM_CREATE_GUEST_MEMFD, &gmem), -ENOTTY);
	expect("memslot", do_ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &slot), -EINVAL);
}

static void test_gmem(int kvm, int vm)
{
	struct kvm_create_guest_memfd gmem = {
		.size = MEM_SIZE,
		.flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
	};
	struct kvm_userspace_memory_region2 slot = {
		.flags = KVM_MEM_GUEST_MEMFD,
		.memory_size = MEM_SIZE,
	};
	struct kvm_memory_attributes old = {
		.size = PAGE_SIZE,
		.attributes = KVM_MEMORY_ATTRIBUTE_PRIVATE,
	};
	unsigned char *mem;
	int fd;

	printf("# a guest in guest_memfd\n");
	fd = do_ioctl(vm, KVM_CREATE_GUEST_MEMFD, &gmem);
	mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	expect("create and mmap", fd >= 0 && mem != MAP_FAILED, 1);
	if (fd < 0 || mem == MAP_FAILED)
		return;

	slot.guest_memfd = fd;
	slot.userspace_addr = (unsigned long)mem;
	expect("memslot", do_ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &slot), 0);
	run_guest(kvm, vm, mem);

	printf("# the ioctls on guest_memfd\n");
	expect_all_refused(fd, -EINVAL, -EFAULT);
	expect("old ioctl", do_ioctl(fd, KVM_SET_MEMORY_ATTRIBUTES, &old), -ENOTTY);
	expect("other ioctl", do_ioctl(fd, KVM_CHECK_EXTENSION, NULL), -ENOTTY);
	expect("the memory is still there", mem[0x800], 0x42);

	munmap(mem, MEM_SIZE);
	close(fd);
}

int main(int argc, char *argv[])
{
	int has_gmem = argc > 1 && !strcmp(argv[1], "guest_memfd");
	int kvm, vm, gmem_vm;

	_Static_assert(sizeof(void *) == 4, "This is about 32 bits");
	_Static_assert(sizeof(struct kvm_memory_attributes2) == 128,
		       "The struct is the same for all");

	kvm = open("/dev/kvm", O_RDWR);
	vm = do_ioctl(kvm, KVM_CREATE_VM, NULL);
	gmem_vm = do_ioctl(kvm, KVM_CREATE_VM, NULL);
	expect("VMs", kvm >= 0 && vm >= 0 && gmem_vm >= 0, 1);

	test_caps(kvm, vm, has_gmem);
	test_ioctls(kvm, vm);
	test_guest(kvm, vm);
	if (has_gmem)
		test_gmem(kvm, gmem_vm);
	else
		test_no_gmem(gmem_vm);

	printf("1..%d\n", number);

	/*
	 * nolibc ends but this thread.  KVM has added one to the process, which would
	 * be the last, and have the exit code.
	 */
	syscall(__NR_exit_group, failed);
	return 1;
}
