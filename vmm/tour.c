// SPDX-License-Identifier: GPL-2.0
/*
 * The tour.  It directs two actors: the host, which is this process and sees the
 * guest_memfd through its mapping, and the guest, which does what the mailbox
 * says.  A step is a function; the table at the end puts them in order.
 *
 * No step relies on what a page holds after a conversion without a content mode:
 * flags 0 promise nothing.  Whoever wants to read something after one has written
 * it after, or has asked for a mode; the steps that do set vm.mode_to_*.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/stat.h>
#include <sys/uio.h>

#include "observe.h"
#include "vm.h"
#include "vmm.h"

#define PAGE GUEST_PAGE_SIZE

/* The pages of the tour: one for messages, a range to pin in, one to count in, */
#define MESSAGE_GPA	GUEST_DATA
#define RANGE_GPA	(GUEST_DATA + 16 * PAGE)
#define RANGE_PAGES	4
#define RANGE_SIZE	(RANGE_PAGES * PAGE)
#define PINNED_GPA	(RANGE_GPA + 2 * PAGE)
#define COUNTER_GPA	(GUEST_DATA + 32 * PAGE)
/* and a range for each step about content modes or about what the kernel tells. */
#define ZERO_GPA	(GUEST_DATA + 48 * PAGE)
#define PRESERVE_GPA	(GUEST_DATA + 64 * PAGE)
#define REFUSED_GPA	(GUEST_DATA + 80 * PAGE)
#define FDINFO_GPA	(GUEST_DATA + 96 * PAGE)
#define TRACE_GPA	(GUEST_DATA + 112 * PAGE)
/* One that crosses from one memslot to the next, and one for the reset. */
#define CROSS_GPA	(VM_SLOT_BORDER - 2 * PAGE)
#define CROSS_PAGES	4
#define RESET_GPA	(GUEST_DATA + 144 * PAGE)

#define ROUNDS		500

/*
 * Nothing of the host's own is in the way, but the kernel may hold a reference
 * for a moment, and a VMM always has to expect that.  Waiting is enough, for longer
 * than the default does, as this also runs on slow emulated machines.
 */
static const struct gmem_retry patient = { .max_tries = 20, .delay_us = 1000 };

static unsigned long long ull(uint64_t x)
{
	return x;
}

/* ---- the guest ---- */

static void guest_write(struct vm *vm, uint64_t gpa, const void *data, size_t len)
{
	struct guest_mailbox *mailbox = vm_host(vm, GUEST_MAILBOX);

	if (len > GUEST_TEXT_MAX)
		fail("%zu bytes do not fit into the mailbox", len);
	memcpy(mailbox->text, data, len);
	vm_command(vm, GUEST_WRITE, gpa, len);
}

/* Does the guest read @data at @gpa? */
static bool guest_reads(struct vm *vm, uint64_t gpa, const void *data, size_t len)
{
	struct guest_mailbox *mailbox = vm_host(vm, GUEST_MAILBOX);

	if (len > GUEST_TEXT_MAX)
		fail("%zu bytes do not fit into the mailbox", len);
	memset(mailbox->text, 0, sizeof(mailbox->text));
	vm_command(vm, GUEST_READ, gpa, len);
	return !memcmp(mailbox->text, data, len);
}

/* A conversion that has to work. */
static void guest_converts(struct vm *vm, uint64_t gpa, uint64_t size, bool to_private)
{
	int64_t r = vm_command(vm, to_private ? GUEST_MAKE_PRIVATE : GUEST_MAKE_SHARED,
			       gpa, size);
	char text[256];

	if (r)
		fail("the guest's hypercall returned %lld; last conversion: %s", (long long)r,
		     gmem_gpa_report_str(&vm->report, text, sizeof(text)));
}

/* ---- the host ---- */

static sigjmp_buf touch_env;
static void *volatile touch_addr;
static volatile int touch_code;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	touch_addr = info->si_addr;
	touch_code = info->si_code;
	siglongjmp(touch_env, 1);
}

/*
 * Read or write one byte of guest memory.  True: SIGBUS, as it has to be for a
 * private page.  Only here is SIGBUS caught; anywhere else it ends the tour.
 */
static bool host_touch_gets_sigbus(struct vm *vm, uint64_t gpa, bool write)
{
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	volatile char *p = vm_host(vm, gpa);
	struct sigaction old;
	volatile bool got = false;

	if (sigaction(SIGBUS, &action, &old))
		fail_errno("sigaction(SIGBUS)");

	if (sigsetjmp(touch_env, 1))
		got = true;
	else if (write)
		*p = 'x';
	else
		(void)*p;

	if (sigaction(SIGBUS, &old, NULL))
		fail_errno("sigaction(SIGBUS)");

	if (got && (touch_addr != p || touch_code != BUS_ADRERR))
		fail("SIGBUS, but for address %p with code %d, not for %p with code %d",
		     touch_addr, touch_code, (void *)p, BUS_ADRERR);
	return got;
}

static void expect_private(struct vm *vm, uint64_t gpa)
{
	if (!host_touch_gets_sigbus(vm, gpa, false))
		fail("the host could read gpa 0x%llx, which is private", ull(gpa));
	if (!host_touch_gets_sigbus(vm, gpa, true))
		fail("the host could write gpa 0x%llx, which is private", ull(gpa));
}

static void expect_shared(struct vm *vm, uint64_t gpa)
{
	if (host_touch_gets_sigbus(vm, gpa, false))
		fail("the host got SIGBUS at gpa 0x%llx, which is shared", ull(gpa));
}

/* All of the shared page reads as zeros, for the host and (its start) the guest. */
static void expect_zeros(struct vm *vm, uint64_t gpa)
{
	static const char zeros[PAGE];

	expect_shared(vm, gpa);
	if (memcmp(vm_host(vm, gpa), zeros, PAGE))
		fail("the host does not read zeros at gpa 0x%llx", ull(gpa));
	if (!guest_reads(vm, gpa, zeros, GUEST_TEXT_MAX))
		fail("the guest does not read zeros at gpa 0x%llx", ull(gpa));
}

/*
 * The page frame behind the host's mapping, from /proc/self/pagemap; 0 where
 * that is not told (it takes CAP_SYS_ADMIN).
 */
static uint64_t host_pfn(struct vm *vm, uint64_t gpa)
{
	const uint64_t present = 1ULL << 63;
	const uint64_t pfn_mask = (1ULL << 55) - 1;
	uintptr_t addr = (uintptr_t)vm_host(vm, gpa);
	uint64_t entry = 0;
	int fd;

	/* Only what is in the page table is told. */
	expect_shared(vm, gpa);

	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (pread(fd, &entry, sizeof(entry), addr / PAGE * sizeof(entry)) != sizeof(entry))
		entry = 0;
	close(fd);

	return entry & present ? entry & pfn_mask : 0;
}

/*
 * A pin, made of nothing but system calls that every kernel has: vmsplice() puts
 * the page itself into a pipe, not a copy, so the pipe holds a reference until
 * somebody reads the pipe.  It stands for any I/O in flight.
 */
struct pin {
	int pipe[2];
	size_t len;
};

static void pin_page(struct vm *vm, struct pin *pin, uint64_t gpa, size_t len)
{
	struct iovec iov = { .iov_base = vm_host(vm, gpa), .iov_len = len };
	ssize_t n;

	if (pipe(pin->pipe))
		fail_errno("pipe");

	n = vmsplice(pin->pipe[1], &iov, 1, 0);
	if (n < 0)
		fail_errno("vmsplice of a shared page");
	if ((size_t)n != len)
		fail("vmsplice took %zd bytes, not %zu", n, len);
	pin->len = len;
}

/* The I/O completes; @data gets what the page held. */
static void unpin_page(struct pin *pin, char *data)
{
	ssize_t n = read(pin->pipe[0], data, pin->len);

	if (n < 0)
		fail_errno("read of the pipe");
	if ((size_t)n != pin->len)
		fail("the pipe had %zd bytes, not %zu", n, pin->len);
	close(pin->pipe[0]);
	close(pin->pipe[1]);
}

/* ---- the steps ---- */

static void print_capability(struct vm *vm, const char *name, long cap)
{
	say("%s: 0x%x on /dev/kvm, 0x%x on this VM", name,
	    vm_check_extension(vm->kvm_fd, cap),
	    vm_check_extension(vm->vm_fd, cap));
}

static void step_capabilities(struct vm *vm)
{
	const int zero = KVM_SET_MEMORY_ATTRIBUTES2_ZERO;
	const int preserve = KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE;
	enum gmem_support support;
	int to_shared, to_private, modes;

	vm_open(vm);
	print_capability(vm, "KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES",
			 KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES);
	print_capability(vm, "KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS",
			 KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS);
	print_capability(vm, "KVM_CAP_MEMORY_ATTRIBUTES", KVM_CAP_MEMORY_ATTRIBUTES);
	print_capability(vm, "KVM_CAP_GUEST_MEMFD_FLAGS", KVM_CAP_GUEST_MEMFD_FLAGS);

	support = gmem_probe(vm->vm_fd);
	if (support == GMEM_PROBE_FAILED)
		fail_errno("%s", gmem_support_str(support));
	if (support != GMEM_SUPPORTED)
		unsupported("%s", gmem_support_str(support));
	say("%s", gmem_support_str(support));

	/* The helper has asked the ioctl, the capability has to say the same. */
	if (!(vm_check_extension(vm->vm_fd, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES) &
	      KVM_MEMORY_ATTRIBUTE_PRIVATE))
		fail("the ioctl works, but the VM's capability says that it does not");

	to_shared = gmem_content_modes(vm->vm_fd, false);
	to_private = gmem_content_modes(vm->vm_fd, true);
	if (to_shared < 0 || to_private < 0)
		fail("content modes of the VM: %s",
		     strerror(-(to_shared < 0 ? to_shared : to_private)));
	if (to_shared != (zero | preserve) || to_private != preserve)
		fail("the content modes of this VM are 0x%x to shared and 0x%x to private, not 0x%x and 0x%x",
		     to_shared, to_private, zero | preserve, preserve);

	modes = vm_check_extension(vm->vm_fd, KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS);
	if (modes != (to_shared | to_private))
		fail("the capability of the VM says 0x%x", modes);
	if ((vm_check_extension(vm->kvm_fd, KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS) & modes) != modes)
		fail("this VM has a content mode that /dev/kvm does not know of");
	say("content modes of this VM: ZERO and PRESERVE to shared, PRESERVE to private");
}

static void step_create(struct vm *vm)
{
	vm_create_memory(vm);
	vm_create_vcpu(vm);
	say("KVM_X86_SW_PROTECTED_VM, one vCPU, %d KiB of guest_memfd (MMAP | INIT_SHARED),",
	    GUEST_MEM_SIZE / 1024);
	say("mapped by the host; KVM gets no other memory to serve the guest from");
}

static void step_shared_page(struct vm *vm)
{
	static const char question[] = "hello guest, this is the host";
	static const char answer[] = "HELLO GUEST, THIS IS THE HOST";
	char *page = vm_host(vm, MESSAGE_GPA);

	memcpy(page, question, sizeof(question));
	say("host writes \"%s\" to gpa 0x%x", question, MESSAGE_GPA);

	if (!guest_reads(vm, MESSAGE_GPA, question, sizeof(question)))
		fail("the guest read something else");
	say("guest reads the same");

	vm_command(vm, GUEST_ANSWER, MESSAGE_GPA, 0);
	if (memcmp(page, answer, sizeof(answer)))
		fail("the host read \"%.40s\", not \"%s\"", page, answer);
	say("guest answers in the same bytes, host reads \"%s\"", page);
	say("one page of one file: the host's mapping and the guest's memory, nobody copied");
}

static void step_to_private(struct vm *vm)
{
	static const char secret[] = "the guest's secret";

	guest_converts(vm, MESSAGE_GPA, PAGE, true);
	say("guest asks by hypercall to make gpa 0x%x private, VMM converts it", MESSAGE_GPA);

	guest_write(vm, MESSAGE_GPA, secret, sizeof(secret));
	if (!guest_reads(vm, MESSAGE_GPA, secret, sizeof(secret)))
		fail("the guest does not read what it wrote to its private page");
	say("guest writes \"%s\" there and reads it back", secret);
}

static void step_host_is_kept_out(struct vm *vm)
{
	struct iovec iov = { .iov_base = vm_host(vm, MESSAGE_GPA), .iov_len = PAGE };
	int fds[2];

	expect_private(vm, MESSAGE_GPA);
	say("host reads and writes the private page through its mapping: SIGBUS, caught, twice");

	if (pipe(fds))
		fail_errno("pipe");

	if (write(fds[1], iov.iov_base, 1) != -1 || errno != EFAULT)
		fail("write(2) from the private page did not fail with EFAULT");
	if (write(fds[1], "x", 1) != 1)
		fail_errno("write to a pipe");
	if (read(fds[0], iov.iov_base, 1) != -1 || errno != EFAULT)
		fail("read(2) into the private page did not fail with EFAULT");
	if (vmsplice(fds[1], &iov, 1, SPLICE_F_NONBLOCK) != -1 || errno != EFAULT)
		fail("vmsplice(2) of the private page did not fail with EFAULT");
	say("write(2) from it, read(2) into it: EFAULT; vmsplice(2), which would pin it: EFAULT");

	close(fds[0]);
	close(fds[1]);
}

static void step_back_to_shared(struct vm *vm)
{
	static const char message[] = "shared again, says the guest";
	char *page = vm_host(vm, MESSAGE_GPA);

	guest_converts(vm, MESSAGE_GPA, PAGE, false);
	expect_shared(vm, MESSAGE_GPA);
	say("guest asks to share gpa 0x%x again, VMM converts it, host can touch it", MESSAGE_GPA);

	say("flags 0: no guarantee on bytes, so nobody looks; the guest writes its message now");
	guest_write(vm, MESSAGE_GPA, message, sizeof(message));
	if (memcmp(page, message, sizeof(message)))
		fail("the host read \"%.40s\", not \"%s\"", page, message);
	say("host reads \"%s\"", page);
}

static void step_in_place(struct vm *vm)
{
	uint64_t before = host_pfn(vm, MESSAGE_GPA);
	uint64_t after;

	guest_converts(vm, MESSAGE_GPA, PAGE, true);
	guest_write(vm, MESSAGE_GPA, "x", 1);
	guest_converts(vm, MESSAGE_GPA, PAGE, false);
	after = host_pfn(vm, MESSAGE_GPA);

	if (!before || !after) {
		say("not shown: /proc/self/pagemap tells page frame numbers to root only");
		return;
	}

	if (before != after)
		fail("page frame 0x%llx became 0x%llx: not the same physical page",
		     ull(before), ull(after));
	say("gpa 0x%x is page frame 0x%llx before, and after a trip to private and back",
	    MESSAGE_GPA, ull(after));
}

static void step_zero_to_shared(struct vm *vm)
{
	static const char secret[] = "what the guest forgot to wipe";
	static const char old[] = "what the host had in the next page";
	const uint64_t next = ZERO_GPA + PAGE;
	char report[256];

	guest_converts(vm, ZERO_GPA, PAGE, true);
	guest_write(vm, ZERO_GPA, secret, sizeof(secret));
	say("guest writes \"%s\" to a private page, gpa 0x%x", secret, ZERO_GPA);
	memcpy(vm_host(vm, next), old, sizeof(old));
	say("host writes \"%s\", gpa 0x%llx, which is shared", old, ull(next));

	vm->mode_to_shared = KVM_SET_MEMORY_ATTRIBUTES2_ZERO;
	guest_converts(vm, ZERO_GPA, 2 * PAGE, false);
	vm->mode_to_shared = 0;
	say("guest asks to share both, VMM: %s",
	    gmem_gpa_report_str(&vm->report, report, sizeof(report)));

	expect_zeros(vm, ZERO_GPA);
	say("host and guest read zeros, the secret is gone");
	expect_zeros(vm, next);
	say("and zeros in the next page: a mode speaks for every page of the range");
}

static void step_preserve(struct vm *vm)
{
	static const char question[] = "initial memory, by the host";
	static const char answer[] = "INITIAL MEMORY, BY THE HOST";
	char *page = vm_host(vm, PRESERVE_GPA);
	char report[256];

	memcpy(page, question, sizeof(question));
	say("host writes \"%s\" to gpa 0x%x", question, PRESERVE_GPA);

	vm->mode_to_private = KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE;
	guest_converts(vm, PRESERVE_GPA, PAGE, true);
	vm->mode_to_private = 0;
	say("VMM: %s", gmem_gpa_report_str(&vm->report, report, sizeof(report)));

	expect_private(vm, PRESERVE_GPA);
	if (!guest_reads(vm, PRESERVE_GPA, question, sizeof(question)))
		fail("the guest does not read in private what the host wrote before");
	say("guest reads the same in private, where the host gets SIGBUS, and answers there");
	vm_command(vm, GUEST_ANSWER, PRESERVE_GPA, 0);

	vm->mode_to_shared = KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE;
	guest_converts(vm, PRESERVE_GPA, PAGE, false);
	vm->mode_to_shared = 0;
	say("VMM: %s", gmem_gpa_report_str(&vm->report, report, sizeof(report)));

	expect_shared(vm, PRESERVE_GPA);
	if (memcmp(page, answer, sizeof(answer)))
		fail("the host read \"%.40s\", not \"%s\"", page, answer);
	say("host reads \"%s\", which the guest wrote before the conversion", page);
}

static void step_mode_refused(struct vm *vm)
{
	static const char secret[] = "private before, private after";
	static const char message[] = "shared before, shared after";
	const uint64_t shared = REFUSED_GPA + PAGE;
	char report[256];
	int64_t r;

	guest_converts(vm, REFUSED_GPA, PAGE, true);
	guest_write(vm, REFUSED_GPA, secret, sizeof(secret));
	memcpy(vm_host(vm, shared), message, sizeof(message));
	say("guest asks to make 2 pages from gpa 0x%x private, the first one already is;",
	    REFUSED_GPA);

	vm->mode_to_private = KVM_SET_MEMORY_ATTRIBUTES2_ZERO;
	r = vm_command(vm, GUEST_MAKE_PRIVATE, REFUSED_GPA, 2 * PAGE);
	vm->mode_to_private = 0;
	if (r != -EOPNOTSUPP || vm->report.error != EOPNOTSUPP)
		fail("the guest's hypercall returned %lld, not -EOPNOTSUPP; %s", (long long)r,
		     gmem_gpa_report_str(&vm->report, report, sizeof(report)));
	if (!vm->report.piece.has_error_offset ||
	    vm->report.piece.error_offset != REFUSED_GPA || vm->report.tries != 1)
		fail("error_offset is 0x%llx after %u tries, not 0x%x after 1",
		     ull(vm->report.piece.error_offset), vm->report.tries, REFUSED_GPA);
	say("VMM: %s", gmem_gpa_report_str(&vm->report, report, sizeof(report)));

	expect_private(vm, REFUSED_GPA);
	if (!guest_reads(vm, REFUSED_GPA, secret, sizeof(secret)))
		fail("the guest's private bytes changed");
	expect_shared(vm, shared);
	if (memcmp(vm_host(vm, shared), message, sizeof(message)) ||
	    !guest_reads(vm, shared, message, sizeof(message)))
		fail("the shared bytes changed");
	say("nothing has changed: not the attributes of a page, and not a byte");
	say("a guest cannot trust the host to have zeroed its private memory: no VM type has this");
}

/* What the callback for EAGAIN saw, and what it is to do. */
struct busy {
	struct pin *pin;	/* NULL: do not let go */
	char data[GUEST_TEXT_MAX];
	unsigned int calls;
	uint64_t offset;
};

static enum gmem_busy_action on_busy(void *opaque, const struct gmem_report *report)
{
	struct busy *busy = opaque;

	busy->calls++;
	busy->offset = report->error_offset;
	say("VMM: try %u failed with EAGAIN, error_offset 0x%llx", report->tries,
	    ull(report->error_offset));

	if (!busy->pin)
		return GMEM_GIVE_UP;

	unpin_page(busy->pin, busy->data);
	busy->pin = NULL;
	say("VMM: the callback drains the pipe, the pin is gone");
	return GMEM_RETRY;
}

static void range_message(char *text, size_t len, unsigned int i)
{
	snprintf(text, len, "page %u of the range", i);
}

/* Every page of the range is shared and holds its message, for host and guest. */
static void expect_range_untouched(struct vm *vm)
{
	char text[GUEST_TEXT_MAX];
	unsigned int i;

	for (i = 0; i < RANGE_PAGES; i++) {
		uint64_t gpa = RANGE_GPA + i * PAGE;
		size_t len;

		range_message(text, sizeof(text), i);
		len = strlen(text) + 1;

		expect_shared(vm, gpa);
		if (memcmp(vm_host(vm, gpa), text, len))
			fail("host does not read \"%s\" at gpa 0x%llx any more", text,
			     ull(gpa));
		if (!guest_reads(vm, gpa, text, len))
			fail("guest does not read \"%s\" at gpa 0x%llx any more", text,
			     ull(gpa));
	}
}

static void expect_busy_once(const struct busy *busy)
{
	if (busy->calls != 1)
		fail("%u tries failed with EAGAIN, not 1", busy->calls);
	if (busy->offset != PINNED_GPA)
		fail("error_offset is 0x%llx, the pinned page is at 0x%x", ull(busy->offset),
		     PINNED_GPA);
}

static void step_busy_page(struct vm *vm)
{
	struct busy busy = { .pin = NULL };
	char text[GUEST_TEXT_MAX];
	char report[256];
	struct pin pin;
	unsigned int i;
	int64_t r;

	for (i = 0; i < RANGE_PAGES; i++) {
		range_message(text, sizeof(text), i);
		memcpy(vm_host(vm, RANGE_GPA + i * PAGE), text, strlen(text) + 1);
	}
	range_message(text, sizeof(text), (PINNED_GPA - RANGE_GPA) / PAGE);
	pin_page(vm, &pin, PINNED_GPA, strlen(text) + 1);
	say("host pins one shared page, gpa 0x%x, by splicing it into a pipe", PINNED_GPA);

	vm->retry = (struct gmem_retry) {
		.max_tries = 5,
		.delay_us = 1000,
		.busy = on_busy,
		.opaque = &busy,
	};

	say("guest asks to make %d pages from gpa 0x%x private, the callback gives up:",
	    RANGE_PAGES, RANGE_GPA);
	r = vm_command(vm, GUEST_MAKE_PRIVATE, RANGE_GPA, RANGE_SIZE);
	if (r != -EAGAIN)
		fail("the guest's hypercall returned %lld, not -EAGAIN", (long long)r);
	expect_busy_once(&busy);
	say("VMM: %s", gmem_gpa_report_str(&vm->report, report, sizeof(report)));

	expect_range_untouched(vm);
	say("all or nothing: all %d pages are still shared, host and guest read their old bytes",
	    RANGE_PAGES);

	busy = (struct busy) { .pin = &pin };
	say("guest asks again, this time the callback lets go:");
	guest_converts(vm, RANGE_GPA, RANGE_SIZE, true);
	expect_busy_once(&busy);
	if (vm->report.tries != 2)
		fail("the conversion took %u tries, not 2", vm->report.tries);

	range_message(text, sizeof(text), (PINNED_GPA - RANGE_GPA) / PAGE);
	if (strcmp(busy.data, text))
		fail("the pipe had \"%.40s\", not \"%s\"", busy.data, text);
	say("VMM: %s", gmem_gpa_report_str(&vm->report, report, sizeof(report)));

	for (i = 0; i < RANGE_PAGES; i++)
		expect_private(vm, RANGE_GPA + i * PAGE);
	say("all %d pages are private, host gets SIGBUS at each", RANGE_PAGES);

	vm->retry = patient;
}

static void step_across_memslots(struct vm *vm)
{
	const uint64_t size = CROSS_PAGES * PAGE;
	const uint64_t busy_gpa = VM_SLOT_BORDER + PAGE;
	char data[GUEST_TEXT_MAX], report[256];
	struct gmem_split split;
	struct gmem_piece piece;
	struct pin pin;
	unsigned int i;
	int64_t r;

	say("guest asks to make %d pages from gpa 0x%x private, a memslot ends at 0x%x:",
	    CROSS_PAGES, CROSS_GPA, VM_SLOT_BORDER);
	if (gmem_split_begin(&split, vm->slots, VM_SLOTS, CROSS_GPA, size))
		fail("the range cannot be split");
	for (i = 0; gmem_split_next(&split, &piece); i++)
		say("piece %u: gpa 0x%llx size 0x%llx is offset 0x%llx of the file", i + 1,
		    ull(piece.gpa), ull(piece.size), ull(piece.offset));
	if (i != 2)
		fail("%u pieces, not 2", i);

	/* The second piece fails: the first one is converted, and stays. */
	vm->retry = (struct gmem_retry) { .max_tries = 5, .delay_us = 1000 };
	pin_page(vm, &pin, busy_gpa, 1);
	r = vm_command(vm, GUEST_MAKE_PRIVATE, CROSS_GPA, size);
	vm->retry = patient;
	say("VMM: %s", gmem_gpa_report_str(&vm->report, report, sizeof(report)));
	if (r != -EAGAIN)
		fail("the guest's hypercall returned %lld, not -EAGAIN", (long long)r);
	if (vm->report.error_gpa != busy_gpa || vm->report.done != VM_SLOT_BORDER - CROSS_GPA)
		fail("gpa 0x%llx was in use, and all up to the border should be done",
		     ull(busy_gpa));
	for (i = 0; i < CROSS_PAGES; i++) {
		if (i < CROSS_PAGES / 2)
			expect_private(vm, CROSS_GPA + i * PAGE);
		else
			expect_shared(vm, CROSS_GPA + i * PAGE);
	}
	say("all or nothing holds for each piece: the first one is private, the second one is not");

	unpin_page(&pin, data);
	guest_converts(vm, CROSS_GPA, size, true);
	for (i = 0; i < CROSS_PAGES; i++)
		expect_private(vm, CROSS_GPA + i * PAGE);
	say("host lets go, guest asks again: VMM: %s",
	    gmem_gpa_report_str(&vm->report, report, sizeof(report)));

	/* Half of it is no memory. */
	r = vm_command(vm, GUEST_MAKE_PRIVATE, GUEST_MEM_SIZE - PAGE, 2 * PAGE);
	say("guest wants private what is no memory, VMM: %s",
	    gmem_gpa_report_str(&vm->report, report, sizeof(report)));
	if (r != -EINVAL || vm->report.error != ENXIO || vm->report.error_gpa != GUEST_MEM_SIZE)
		fail("the hypercall returned %lld, not -EINVAL for gpa 0x%x", (long long)r,
		     GUEST_MEM_SIZE);
	expect_shared(vm, GUEST_MEM_SIZE - PAGE);
	guest_converts(vm, GUEST_MEM_SIZE - PAGE, 2 * PAGE, false);
	say("guest wants it shared, which it is, VMM: %s",
	    gmem_gpa_report_str(&vm->report, report, sizeof(report)));
	if (vm->report.without_gmem != PAGE)
		fail("0x%llx bytes have no guest_memfd, not 0x%x",
		     ull(vm->report.without_gmem), PAGE);
}

/* What a VMM does to memory that was private when the guest starts again. */
static void step_reset(struct vm *vm)
{
	static const char secret[] = "from before the reset";
	static const char image[] = "the image of the next start";
	char *page = vm_host(vm, RESET_GPA);
	struct gmem_report report;
	char text[256];

	guest_converts(vm, RESET_GPA, PAGE, true);
	guest_write(vm, RESET_GPA, secret, sizeof(secret));
	say("guest has \"%s\" in a private page, gpa 0x%x", secret, RESET_GPA);

	if (gmem_make_shared(vm->gmem_fd, RESET_GPA, PAGE, KVM_SET_MEMORY_ATTRIBUTES2_ZERO,
			     NULL, &report))
		fail("%s", gmem_report_str(&report, text, sizeof(text)));
	say("VMM: %s", gmem_report_str(&report, text, sizeof(text)));
	expect_zeros(vm, RESET_GPA);
	memcpy(page, image, sizeof(image));
	say("host reads zeros and writes \"%s\"", image);

	if (gmem_make_private(vm->gmem_fd, RESET_GPA, PAGE,
			      KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE, &patient, &report))
		fail("%s", gmem_report_str(&report, text, sizeof(text)));
	say("VMM: %s", gmem_report_str(&report, text, sizeof(text)));
	expect_private(vm, RESET_GPA);
	if (!guest_reads(vm, RESET_GPA, image, sizeof(image)))
		fail("the guest does not read what the host wrote");
	say("guest reads the same in private");
	guest_converts(vm, RESET_GPA, PAGE, false);
}

/* Read fdinfo, print it, and compare it with what was converted so far. */
static void look_at_fdinfo(struct vm *vm, struct gmem_fdinfo *info)
{
	const unsigned int pages = sizeof(vm->is_private) / sizeof(vm->is_private[0]);
	uint64_t private = 0, extents = 1;
	unsigned int i;

	if (fdinfo_read(vm->gmem_fd, info))
		fail_errno("fdinfo, which was there before");

	for (i = 0; i < pages; i++) {
		private += vm->is_private[i] * PAGE;
		extents += i && vm->is_private[i] != vm->is_private[i - 1];
	}

	say("size %llu flags 0x%llx private %llu shared %llu allocated %llu extents %llu",
	    ull(info->size), ull(info->flags), ull(info->private), ull(info->shared),
	    ull(info->allocated), ull(info->extents));
	if (info->size != GUEST_MEM_SIZE ||
	    info->flags != (GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED))
		fail("the size should be %d, the flags 0x%llx", GUEST_MEM_SIZE,
		     GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED);
	if (info->private != private || info->shared != info->size - private ||
	    info->extents != extents)
		fail("by all conversions so far, %llu bytes should be private, in %llu extents",
		     ull(private), ull(extents));
}

static void expect_allocated(const struct gmem_fdinfo *before,
			     const struct gmem_fdinfo *after, uint64_t more)
{
	if (after->allocated != before->allocated + more)
		fail("%llu bytes were allocated before, and should be %llu more",
		     ull(before->allocated), ull(more));
}

static void step_fdinfo(struct vm *vm)
{
	const uint64_t size = 3 * PAGE;
	struct gmem_fdinfo before, after;
	int r = fdinfo_read(vm->gmem_fd, &before);

	if (r) {
		say("not shown: /proc/self/fdinfo of the file: %s", strerror(-r));
		return;
	}

	look_at_fdinfo(vm, &before);
	guest_converts(vm, FDINFO_GPA, size, true);
	say("guest makes 3 pages private that nobody has touched: converting allocates none");
	look_at_fdinfo(vm, &after);
	expect_allocated(&before, &after, 0);

	guest_write(vm, FDINFO_GPA + PAGE, "x", 1);
	say("guest writes to one of them");
	look_at_fdinfo(vm, &after);
	expect_allocated(&before, &after, PAGE);

	guest_converts(vm, FDINFO_GPA, size, false);
	say("guest shares them again: the page stays allocated, in place");
	look_at_fdinfo(vm, &after);
	expect_allocated(&before, &after, PAGE);
	say("as many private and shared bytes, and extents, as the VMM's own record has");
}

/* Print an event, which has to be named @name. */
static void show_event(const struct trace_event *event, const char *name)
{
	say("%s: %s", event->name, event->args);
	if (strcmp(event->name, name))
		fail("this should be the event %s", name);
}

static void expect_conversion_event(struct vm *vm, const struct trace_event *event,
				    uint64_t ino, int error, uint64_t error_offset)
{
	char args[sizeof(event->args)];

	snprintf(args, sizeof(args),
		 "ino %llu offset 0x%x size 0x%x attributes 0x%llx flags 0x%llx ret %d error_offset 0x%llx",
		 ull(ino), TRACE_GPA, 2 * PAGE, KVM_MEMORY_ATTRIBUTE_PRIVATE,
		 ull(vm->report.mode), -error, ull(error_offset));
	show_event(event, "kvm_gmem_set_memory_attributes");
	if (strcmp(event->args, args))
		fail("it should say: %s", args);
}

/*
 * A page in a pipe: the file, the pipe, and the VMM's mapping hold references.  KVM
 * looks before it unmaps anything, so the mapping is still there.
 */
static void expect_in_use_event(const struct trace_event *event, uint64_t ino, uint64_t gpa)
{
	unsigned long long event_ino, offset;
	int refs, maps, pins, end = 0;

	show_event(event, "kvm_gmem_page_in_use");
	if (sscanf(event->args, "ino %llu offset 0x%llx refs %d maps %d pins %d%n",
		   &event_ino, &offset, &refs, &maps, &pins, &end) != 5 || event->args[end])
		fail("it has another format");
	if (event_ino != ino || offset != gpa)
		fail("the page in use is at ino %llu offset 0x%llx", ull(ino), ull(gpa));
	if (refs < 3 || maps != 1 || pins)
		fail("the page has at least 3 references, 1 mapping, and no pin by that name");
}

static void step_trace_events(struct vm *vm)
{
	const uint64_t busy_gpa = TRACE_GPA + PAGE;
	struct trace_event events[32];
	char data[GUEST_TEXT_MAX];
	struct stat st;
	struct pin pin;
	unsigned int n, tries;
	int64_t busy;
	int r;

	r = trace_start(vm->gmem_fd);
	if (r) {
		say("not shown: an instance in /sys/kernel/tracing: %s", strerror(-r));
		return;
	}
	if (fstat(vm->gmem_fd, &st))
		fail_errno("fstat of the guest_memfd");

	/* One try, so that there is one event. */
	vm->retry = (struct gmem_retry) { .max_tries = 1 };
	vm->mode_to_private = KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE;
	pin_page(vm, &pin, busy_gpa, 1);
	busy = vm_command(vm, GUEST_MAKE_PRIVATE, TRACE_GPA, 2 * PAGE);
	unpin_page(&pin, data);
	vm->retry = patient;
	guest_converts(vm, TRACE_GPA, 2 * PAGE, true);
	vm->mode_to_private = 0;
	tries = vm->report.tries;
	n = trace_stop(events, sizeof(events) / sizeof(events[0]));

	if (busy != -EAGAIN)
		fail("the guest's hypercall returned %lld, not -EAGAIN", (long long)busy);
	/* Two for each try that fails; it may take more than one, see patient. */
	if (n != 2 * tries + 1)
		fail("%u events, not %u: a failed try has two, a successful one has one", n,
		     2 * tries + 1);

	say("host holds gpa 0x%llx, guest asks to make it and the page before private: EAGAIN",
	    ull(busy_gpa));
	expect_in_use_event(&events[0], st.st_ino, busy_gpa);
	expect_conversion_event(vm, &events[1], st.st_ino, EAGAIN, busy_gpa);
	say("host lets go, guest asks again");
	expect_conversion_event(vm, &events[n - 1], st.st_ino, 0, 0);
}

static void step_back_and_forth(struct vm *vm)
{
	volatile uint64_t *counter = vm_host(vm, COUNTER_GPA);
	uint64_t value = 0;
	unsigned int i;
	int64_t r;

	for (i = 0; i < ROUNDS; i++) {
		uint64_t secret = ~value;

		guest_converts(vm, COUNTER_GPA, PAGE, true);
		guest_write(vm, COUNTER_GPA, &secret, sizeof(secret));
		expect_private(vm, COUNTER_GPA);
		if (!guest_reads(vm, COUNTER_GPA, &secret, sizeof(secret)))
			fail("round %u: the guest's private bytes changed", i);

		/* flags 0: start from what the host remembers, not from the page. */
		guest_converts(vm, COUNTER_GPA, PAGE, false);
		*counter = ++value;
		r = vm_command(vm, GUEST_INCREMENT, COUNTER_GPA, sizeof(*counter));
		value++;
		if ((uint64_t)r != value || *counter != value)
			fail("round %u: guest says %lld, host reads %llu, should be %llu", i,
			     (long long)r, ull(*counter), ull(value));
	}
	say("%d conversions: private (guest writes, host gets SIGBUS, guest reads back), then",
	    2 * ROUNDS);
	say("shared (host and guest take turns adding 1); the counter is %llu, no mismatch",
	    ull(value));
}

static void step_memory_faults(struct vm *vm)
{
	if (vm->memory_faults)
		fail("%lu KVM_EXIT_MEMORY_FAULT, this VM type raises none", vm->memory_faults);
	say("the VMM handles KVM_EXIT_MEMORY_FAULT and saw none.  Confidential hardware raises it");
	say("for an access of the wrong kind; on this VM type an access takes its kind from the");
	say("attributes, so there is no wrong kind, and that handler is not shown at work");
}

static const struct {
	const char *title;
	void (*run)(struct vm *vm);
} steps[] = {
	{ "what the kernel offers", step_capabilities },
	{ "create the VM", step_create },
	{ "host and guest talk through a shared page", step_shared_page },
	{ "the guest makes the page private", step_to_private },
	{ "the host touches the private page", step_host_is_kept_out },
	{ "the guest shares the page again", step_back_to_shared },
	{ "in place: the physical page stays", step_in_place },
	{ "ZERO: what the guest leaves behind does not reach the host", step_zero_to_shared },
	{ "PRESERVE: bytes that stay across conversions", step_preserve },
	{ "a content mode that the VM cannot give: EOPNOTSUPP", step_mode_refused },
	{ "a page that is in use: EAGAIN, and how to overcome it", step_busy_page },
	{ "a range that crosses memslots", step_across_memslots },
	{ "the VMM converts on its own account: a reset", step_reset },
	{ "what /proc says about the file", step_fdinfo },
	{ "what trace events say about conversions", step_trace_events },
	{ "back and forth", step_back_and_forth },
	{ "accesses of the wrong kind", step_memory_faults },
};

void tour(void)
{
	const unsigned int n = sizeof(steps) / sizeof(steps[0]);
	struct vm vm = { .retry = patient };
	unsigned int i;

	for (i = 0; i < n; i++) {
		step(i + 1, steps[i].title);
		steps[i].run(&vm);
		say("ok");
	}

	printf("tour complete: %u of %u steps as promised, %lu conversions\n", n, n,
	       vm.conversions);
}
