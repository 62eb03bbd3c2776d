// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Tests of gmem_convert.[ch] that need no KVM: the linker lets the system calls of
 * the helper (--wrap) end here, in something that answers as KVM does.
 *
 * A case is a function; the table at the end has them all.  A failed check is
 * printed, and the case goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gmem_convert.h"

#define ZERO		KVM_SET_MEMORY_ATTRIBUTES2_ZERO
#define PRESERVE	KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE

#define CREATE_GUEST_MEMFD	0xc040aed4ul
#define SET_ATTRIBUTES2		0xc080aed2ul

/* As KVM numbers them, whatever linux/kvm.h this is compiled with. */
#define CAP_MEMORY_ATTRIBUTES	233
#define CAP_GUEST_MEMFD		234

#define PAGE		0x1000ull
#define VM_FD		100
#define GMEM_FD		200	/* and on, as many as there are scripts */
#define SCRATCH_FD	300

static unsigned int failures;

#define expect(condition)							\
	do {									\
		if (!(condition)) {						\
			printf("    line %d: not so: %s\n", __LINE__, #condition); \
			failures++;						\
		}								\
	} while (0)

#define expect_eq(a, b)								\
	do {									\
		long long a_ = (a), b_ = (b);					\
		if (a_ != b_) {							\
			printf("    line %d: %s is 0x%llx, not 0x%llx\n",	\
			       __LINE__, #a, a_, b_);				\
			failures++;						\
		}								\
	} while (0)

/* ---- instead of the kernel ---- */

/* The structures as the kernel has them, not as the helper does. */
struct create {
	uint64_t size, flags, reserved[6];
};

struct attributes2 {
	uint64_t offset, size, attributes, flags, error_offset, reserved[11];
};

/* An answer of the ioctl on a file. */
struct answer {
	int error;
	uint64_t error_offset;	/* or NOT_WRITTEN */
};

#define NOT_WRITTEN	UINT64_MAX

static struct {
	/* What the kernel and the VM are like, for probes. */
	int vm_error;		/* not a VM, or a dead one: errno of everything */
	bool no_guest_memfd;
	int create_error;
	unsigned int creates_before_error;
	int scratch_error;	/* of every conversion of the scratch file, */
	int mode_error;		/* and of those with a content mode alone */
	bool vm_owns;
	int attributes_error;	/* of KVM_CAP_MEMORY_ATTRIBUTES */
	bool private_memory;
	bool knows_modes;
	uint64_t modes[2];	/* to shared, to private */
	const char *parameter;	/* the one that the module has */

	/* Answers to conversions of GMEM_FD, in order; the last one stays. */
	const struct answer *answers;
	unsigned int nr_answers;

	/* What was called. */
	unsigned int calls;
	struct attributes2 args[64];
	int fds[64];
	unsigned int sleeps;
	uint64_t slept_us, sleep_us[64];
	unsigned int creates, scratch_calls;
	int open_scratch_files;
	bool scratch_cloexec;
	bool bad_args;
} mock;

static int result(int error)
{
	errno = error;
	return error ? -1 : 0;
}

static int convert_scratch(const struct attributes2 *args)
{
	bool to_private = args->attributes;

	mock.scratch_calls++;
	/* Another thread may execute a program at any time. */
	mock.bad_args |= !mock.scratch_cloexec;

	if (mock.scratch_error)
		return mock.scratch_error;
	if (mock.vm_owns)
		return ENOTTY;
	if (args->flags && mock.mode_error)
		return mock.mode_error;
	if (args->flags & ~(ZERO | PRESERVE) || args->flags == (ZERO | PRESERVE))
		return EINVAL;
	if (args->flags && !mock.knows_modes)
		return EINVAL;
	if (!mock.private_memory || args->offset || args->size != PAGE)
		return EINVAL;
	if (args->flags & ~mock.modes[to_private])
		return EOPNOTSUPP;
	return 0;
}

static int convert(int fd, struct attributes2 *args)
{
	const struct answer *answer = mock.answers;
	unsigned int i;

	for (i = 0; i < 11; i++)
		mock.bad_args |= args->reserved[i] != 0;
	mock.bad_args |= args->attributes & ~8ull;

	if (fd == SCRATCH_FD)
		return result(convert_scratch(args));

	if (mock.calls < 64) {
		mock.args[mock.calls] = *args;
		mock.fds[mock.calls] = fd;
	}

	answer += mock.calls < mock.nr_answers ? mock.calls : mock.nr_answers - 1;
	mock.calls++;
	if (answer->error && answer->error_offset != NOT_WRITTEN)
		args->error_offset = answer->error_offset;
	return result(answer->error);
}

static int check_extension(unsigned long cap)
{
	switch (cap) {
	case CAP_GUEST_MEMFD:
		return !mock.no_guest_memfd;
	case CAP_MEMORY_ATTRIBUTES:
		if (mock.attributes_error)
			return result(mock.attributes_error);
		return mock.vm_owns && mock.private_memory ? 8 : 0;
	}

	return 0;
}

static int create_guest_memfd(const struct create *args)
{
	mock.bad_args |= args->size != PAGE || args->flags;
	if (mock.create_error && mock.creates++ >= mock.creates_before_error)
		return result(mock.create_error);
	mock.open_scratch_files++;
	mock.scratch_cloexec = false;
	return SCRATCH_FD;
}

int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *arg;

	va_start(list, request);
	arg = va_arg(list, void *);
	va_end(list);

	if (fd == VM_FD && mock.vm_error)
		return result(mock.vm_error);
	if (fd == VM_FD && request == KVM_CHECK_EXTENSION)
		return check_extension((unsigned long)arg);
	if (fd == VM_FD && request == CREATE_GUEST_MEMFD)
		return create_guest_memfd(arg);
	if (fd != VM_FD && request == SET_ATTRIBUTES2)
		return convert(fd, arg);
	return result(ENOTTY);
}

int __wrap_nanosleep(const struct timespec *ts, struct timespec *left);
int __wrap_nanosleep(const struct timespec *ts, struct timespec *left)
{
	uint64_t us = ts->tv_sec * 1000000ull + ts->tv_nsec / 1000;

	(void)left;
	mock.bad_args |= ts->tv_nsec < 0 || ts->tv_nsec > 999999999;
	if (mock.sleeps < 64)
		mock.sleep_us[mock.sleeps] = us;
	mock.sleeps++;
	mock.slept_us += us;
	/* As if a signal had come, which must not matter. */
	return result(EINTR);
}

int __wrap_access(const char *path, int mode);
int __wrap_access(const char *path, int mode)
{
	const char *dir = "/sys/module/kvm/parameters/";

	(void)mode;
	if (!mock.parameter || strncmp(path, dir, strlen(dir)) ||
	    strcmp(path + strlen(dir), mock.parameter))
		return result(ENOENT);
	return 0;
}

int __wrap_close(int fd);
int __wrap_close(int fd)
{
	if (fd == SCRATCH_FD)
		mock.open_scratch_files--;
	/* An errno that the caller wants to report has to survive this. */
	return result(EBADF);
}

int __wrap_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...)
{
	va_list list;

	va_start(list, cmd);
	if (fd == SCRATCH_FD && cmd == F_SETFD && va_arg(list, int) == FD_CLOEXEC)
		mock.scratch_cloexec = true;
	va_end(list);
	return 0;
}

long __wrap_sysconf(int name);
long __wrap_sysconf(int name)
{
	(void)name;
	return PAGE;
}

static void mock_answers(const struct answer *answers, unsigned int n)
{
	memset(&mock, 0, sizeof(mock));
	mock.answers = answers;
	mock.nr_answers = n;
}

#define MOCK_ANSWERS(...)							\
	do {									\
		static const struct answer answers_[] = { __VA_ARGS__ };	\
		mock_answers(answers_, sizeof(answers_) / sizeof(answers_[0]));	\
	} while (0)

/* ---- what several cases use ---- */

static bool has(const char *text, const char *part)
{
	if (strstr(text, part))
		return true;
	printf("    \"%s\" has no \"%s\"\n", text, part);
	return false;
}

/* 0x1000-0x4fff is in one file, 0x5000-0x7fff in another; a gap; ordinary memory. */
static const struct gmem_slot slots[] = {
	{ .gpa = 0x5000, .size = 0x3000, .gmem_fd = GMEM_FD + 1, .offset = 0x100000 },
	{ .gpa = 0x9000, .size = 0, .gmem_fd = GMEM_FD + 9, .offset = 0 },
	{ .gpa = 0xa000, .size = 0x2000, .gmem_fd = -1, .offset = 0 },
	{ .gpa = 0x1000, .size = 0x4000, .gmem_fd = GMEM_FD, .offset = 0x20000 },
	{ .gpa = 0xfffffffffffff000, .size = 0x1000, .gmem_fd = GMEM_FD + 2, .offset = 0 },
};

#define NR_SLOTS (sizeof(slots) / sizeof(slots[0]))

/* ---- probes ---- */

static void mock_kernel(const char *parameter)
{
	memset(&mock, 0, sizeof(mock));
	mock.private_memory = true;
	mock.parameter = parameter;
}

static void mock_kernel_with_modes(void)
{
	mock_kernel("vm_memory_attributes");
	mock.knows_modes = true;
	mock.modes[false] = ZERO | PRESERVE;
	mock.modes[true] = PRESERVE;
}

static void expect_probe(enum gmem_support support, int to_shared, int to_private)
{
	expect_eq(gmem_probe(VM_FD), support);
	expect_eq(gmem_content_modes(VM_FD, false), to_shared);
	expect_eq(gmem_content_modes(VM_FD, true), to_private);
	expect_eq(mock.open_scratch_files, 0);
	expect(!mock.bad_args);
}

static void test_probe_supported(void)
{
	mock_kernel_with_modes();
	expect_probe(GMEM_SUPPORTED, ZERO | PRESERVE, PRESERVE);

	/* A confidential VM that is finalized. */
	mock.modes[false] = ZERO;
	mock.modes[true] = 0;
	expect_probe(GMEM_SUPPORTED, ZERO, 0);
}

static void test_probe_without_modes(void)
{
	mock_kernel("gmem_in_place_conversion");
	expect_probe(GMEM_SUPPORTED, 0, 0);
}

static void test_probe_vm_owns_attributes(void)
{
	mock_kernel("vm_memory_attributes");
	mock.vm_owns = true;
	expect_probe(GMEM_VM_OWNS_STATE, 0, 0);

	mock_kernel("gmem_in_place_conversion");
	mock.vm_owns = true;
	expect_probe(GMEM_VM_OWNS_STATE, 0, 0);
}

static void test_probe_no_feature(void)
{
	/* guest_memfd without the ioctl, */
	mock_kernel(NULL);
	mock.scratch_error = ENOTTY;
	expect_probe(GMEM_NO_FEATURE, 0, 0);

	/* and no guest_memfd at all, whatever error its ioctl has then. */
	mock_kernel(NULL);
	mock.no_guest_memfd = true;
	mock.create_error = ENOTTY;
	expect_probe(GMEM_NO_FEATURE, 0, 0);
	mock.create_error = EINVAL;
	expect_probe(GMEM_NO_FEATURE, 0, 0);
}

static void test_probe_no_private_memory(void)
{
	mock_kernel_with_modes();
	mock.private_memory = false;
	expect_probe(GMEM_NO_PRIVATE_MEMORY, 0, 0);

	/* Not "change the parameter", which would not help. */
	mock.vm_owns = true;
	expect_probe(GMEM_NO_PRIVATE_MEMORY, 0, 0);
}

static void expect_probe_fails(int error)
{
	errno = 0;
	expect_eq(gmem_probe(VM_FD), GMEM_PROBE_FAILED);
	expect_eq(errno, error);
	expect_eq(gmem_content_modes(VM_FD, true), -error);
	expect_eq(mock.open_scratch_files, 0);
}

static void test_probe_fails(void)
{
	mock_kernel_with_modes();
	mock.vm_error = ENOTTY;
	expect_probe_fails(ENOTTY);

	mock_kernel_with_modes();
	mock.vm_error = EIO;
	expect_probe_fails(EIO);

	mock_kernel_with_modes();
	mock.create_error = EMFILE;
	expect_probe_fails(EMFILE);

	/* Not a VM's descriptor, but one that answers KVM_CHECK_EXTENSION. */
	mock_kernel_with_modes();
	mock.create_error = EINVAL;
	expect_probe_fails(EINVAL);

	mock_kernel_with_modes();
	mock.scratch_error = ENOMEM;
	expect_probe_fails(ENOMEM);

	/* A VM that dies meanwhile. */
	mock_kernel_with_modes();
	mock.vm_owns = true;
	mock.attributes_error = EIO;
	expect_probe_fails(EIO);
}

/* Nobody else has the scratch file: there is nothing to wait for. */
static void test_probe_tries_once(void)
{
	mock_kernel_with_modes();
	mock.scratch_error = EAGAIN;
	errno = 0;
	expect_eq(gmem_probe(VM_FD), GMEM_PROBE_FAILED);
	expect_eq(errno, EAGAIN);
	expect_eq(mock.scratch_calls, 1);
	expect_eq(mock.sleeps, 0);
}

/* What is neither yes nor no must not be taken for no. */
static void test_content_modes_fail(void)
{
	mock_kernel_with_modes();
	mock.mode_error = ENOMEM;
	expect_eq(gmem_probe(VM_FD), GMEM_SUPPORTED);
	expect_eq(gmem_content_modes(VM_FD, false), -ENOMEM);
	expect_eq(gmem_content_modes(VM_FD, true), -ENOMEM);
	expect_eq(mock.open_scratch_files, 0);

	/* No descriptor left after the probe. */
	mock_kernel_with_modes();
	mock.create_error = EMFILE;
	mock.creates_before_error = 1;
	expect_eq(gmem_content_modes(VM_FD, true), -EMFILE);
	expect_eq(mock.open_scratch_files, 0);
}

static void test_strings(void)
{
	int i, j;

	for (i = GMEM_SUPPORTED; i <= GMEM_PROBE_FAILED; i++) {
		expect(strcmp(gmem_support_str(i), "unknown"));
		for (j = GMEM_SUPPORTED; j < i; j++)
			expect(strcmp(gmem_support_str(i), gmem_support_str(j)));
	}
	expect(!strcmp(gmem_support_str(GMEM_PROBE_FAILED + 1), "unknown"));

	expect(!strcmp(gmem_mode_str(0), "no content mode"));
	expect(!strcmp(gmem_mode_str(ZERO), "ZERO"));
	expect(!strcmp(gmem_mode_str(PRESERVE), "PRESERVE"));
	expect(!strcmp(gmem_mode_str(ZERO | PRESERVE), "unknown content mode"));
}

/* ---- a range of a file ---- */

static void test_arguments(void)
{
	struct gmem_report report;

	MOCK_ANSWERS({ 0 });
	expect_eq(gmem_convert(GMEM_FD, PAGE, 2 * PAGE, true, PRESERVE, NULL, &report), 0);
	expect_eq(gmem_make_private(GMEM_FD, 0, PAGE, 0, NULL, NULL), 0);
	expect_eq(gmem_make_shared(GMEM_FD, 0, PAGE, ZERO, NULL, NULL), 0);
	expect_eq(mock.calls, 3);
	expect(!mock.bad_args);

	expect_eq(mock.fds[0], GMEM_FD);
	expect_eq(mock.args[0].offset, PAGE);
	expect_eq(mock.args[0].size, 2 * PAGE);
	expect_eq(mock.args[0].attributes, 8);
	expect_eq(mock.args[0].flags, PRESERVE);
	expect_eq(mock.args[1].attributes, 8);
	expect_eq(mock.args[1].flags, 0);
	expect_eq(mock.args[2].attributes, 0);
	expect_eq(mock.args[2].flags, ZERO);

	expect_eq(report.error, 0);
	expect_eq(report.tries, 1);
	expect_eq(report.gmem_fd, GMEM_FD);
	expect_eq(report.offset, PAGE);
	expect_eq(report.size, 2 * PAGE);
	expect(report.to_private);
	expect_eq(report.mode, PRESERVE);
	expect_eq(report.gpa, GMEM_NO_GPA);
	expect(!report.has_error_offset);
}

static void test_default_is_bounded_and_sleeps(void)
{
	static const uint64_t pauses[] = { 50, 100, 200, 400, 800, 1600, 3200, 5000 };
	struct gmem_report report;
	unsigned int i;

	MOCK_ANSWERS({ EAGAIN, 0x3000 });
	expect_eq(gmem_make_private(GMEM_FD, 0, 4 * PAGE, 0, NULL, &report), -EAGAIN);
	expect_eq(mock.calls, 12);
	expect_eq(mock.sleeps, 11);
	for (i = 0; i < 11; i++)
		expect_eq(mock.sleep_us[i], pauses[i < 7 ? i : 7]);
	expect_eq(mock.slept_us, 26350);
	expect_eq(report.tries, 12);
	expect(report.has_error_offset);
	expect_eq(report.error_offset, 0x3000);
	expect(!report.gave_up);
}

static void test_retry_ends_with_success(void)
{
	struct gmem_report report;

	MOCK_ANSWERS({ EAGAIN, 0x1000 }, { EAGAIN, 0x2000 }, { 0 });
	expect_eq(gmem_make_private(GMEM_FD, 0, 4 * PAGE, 0, NULL, &report), 0);
	expect_eq(mock.calls, 3);
	expect_eq(mock.sleeps, 2);
	expect_eq(report.tries, 3);
	expect(!report.has_error_offset);
	expect_eq(report.error_offset, 0);

	/* To shared, as for a part of a huge page that is in use. */
	MOCK_ANSWERS({ EAGAIN, 0x1000 }, { 0 });
	expect_eq(gmem_make_shared(GMEM_FD, 0x1000, PAGE, 0, NULL, &report), 0);
	expect_eq(mock.calls, 2);
}

static void test_retry_limits(void)
{
	struct gmem_retry retry = { .max_tries = 0 };

	/* No retry at all; 0 is taken for 1. */
	MOCK_ANSWERS({ EAGAIN, 0 });
	expect_eq(gmem_make_private(GMEM_FD, 0, PAGE, 0, &retry, NULL), -EAGAIN);
	expect_eq(mock.calls, 1);
	expect_eq(mock.sleeps, 0);

	/* Without a pause. */
	retry.max_tries = 3;
	MOCK_ANSWERS({ EAGAIN, 0 });
	expect_eq(gmem_make_private(GMEM_FD, 0, PAGE, 0, &retry, NULL), -EAGAIN);
	expect_eq(mock.calls, 3);
	expect_eq(mock.sleeps, 0);

	/* No pause is longer than the limit, whatever is asked for. */
	retry.delay_us = UINT32_MAX;
	MOCK_ANSWERS({ EAGAIN, 0 });
	expect_eq(gmem_make_private(GMEM_FD, 0, PAGE, 0, &retry, NULL), -EAGAIN);
	expect_eq(mock.sleeps, 2);
	expect_eq(mock.slept_us, 2 * GMEM_MAX_DELAY_US);
	expect(!mock.bad_args);
}

static void test_only_eagain_is_retried(void)
{
	static const int errors[] = {
		EINVAL, ENOTTY, EIO, EFAULT, EOPNOTSUPP, EHWPOISON, ENOMEM, EINTR, EPERM,
	};
	unsigned int i;

	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		struct answer answer = { errors[i], NOT_WRITTEN };
		struct gmem_report report;

		mock_answers(&answer, 1);
		expect_eq(gmem_make_private(GMEM_FD, 0, PAGE, 0, NULL, &report), -errors[i]);
		expect_eq(mock.calls, 1);
		expect_eq(mock.sleeps, 0);
		expect_eq(report.error, errors[i]);
	}
}

/* KVM's word counts, not what the errno or old bytes suggest. */
static void test_error_offset(void)
{
	static const struct {
		uint64_t offset, size, error_offset;
		bool has;
	} ranges[] = {
		{ 0x4000, 0x2000, 0x4000, true },
		{ 0x4000, 0x2000, 0x5000, true },
		{ 0x4000, 0x2000, 0x3000, false },
		{ 0x4000, 0x2000, 0x6000, false },
		{ 0x4000, 0x2000, 0, false },
		{ 0, 0x2000, 0, true },
		{ 0, 0x2000, 0x2000, false },
		{ 0x4000, 0x2000, NOT_WRITTEN, false },
		{ 0, 0x2000, NOT_WRITTEN, false },
		/* Not a file's, but it can be asked for. */
		{ 0xfffffffffffff000, 0x1000, NOT_WRITTEN, false },
		{ 0x4000, 0, NOT_WRITTEN, false },
	};
	static const int errors[] = { EAGAIN, EOPNOTSUPP, EHWPOISON, ENOMEM, EINVAL };
	const struct gmem_retry once = { .max_tries = 1 };
	struct gmem_report report;
	unsigned int i, j;

	for (i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		for (j = 0; j < sizeof(errors) / sizeof(errors[0]); j++) {
			struct answer answer = { errors[j], ranges[i].error_offset };

			mock_answers(&answer, 1);
			gmem_make_private(GMEM_FD, ranges[i].offset, ranges[i].size, 0, &once,
					  &report);
			expect_eq(report.has_error_offset, ranges[i].has);
			expect_eq(report.error_offset,
				  ranges[i].has ? ranges[i].error_offset : 0);
		}
	}

	/* Each try for itself. */
	MOCK_ANSWERS({ EAGAIN, 0x1000 }, { EIO, NOT_WRITTEN });
	expect_eq(gmem_make_private(GMEM_FD, 0, 2 * PAGE, 0, NULL, &report), -EIO);
	expect_eq(mock.calls, 2);
	expect(!report.has_error_offset);
}

struct callback {
	unsigned int calls;
	unsigned int give_up_at;	/* 0: never */
	struct gmem_report last;
	unsigned int sleeps_before;
};

static enum gmem_busy_action on_busy(void *opaque, const struct gmem_report *report)
{
	struct callback *callback = opaque;

	callback->calls++;
	callback->last = *report;
	callback->sleeps_before = mock.sleeps;
	return callback->calls == callback->give_up_at ? GMEM_GIVE_UP : GMEM_RETRY;
}

static void test_callback(void)
{
	struct callback callback = { 0 };
	struct gmem_retry retry = {
		.max_tries = 3, .delay_us = 10, .busy = on_busy, .opaque = &callback,
	};
	struct gmem_gpa_report gpa_report;
	struct gmem_report report;
	char text[256];

	/* Between tries only, before the pause. */
	MOCK_ANSWERS({ EAGAIN, 0x1000 }, { EAGAIN, 0x2000 }, { EAGAIN, 0x3000 });
	expect_eq(gmem_make_private(GMEM_FD, 0x1000, 0x4000, PRESERVE, &retry, &report), -EAGAIN);
	expect_eq(mock.calls, 3);
	expect_eq(callback.calls, 2);
	expect_eq(callback.sleeps_before, 1);
	expect_eq(mock.sleeps, 2);
	expect_eq(callback.last.gmem_fd, GMEM_FD);
	expect_eq(callback.last.offset, 0x1000);
	expect_eq(callback.last.size, 0x4000);
	expect_eq(callback.last.mode, PRESERVE);
	expect_eq(callback.last.error_offset, 0x2000);
	expect_eq(callback.last.tries, 2);
	expect_eq(report.error_offset, 0x3000);
	expect(!report.gave_up);
	gmem_report_str(&report, text, sizeof(text));
	expect(has(text, "tries: 3)"));

	/* No further try, and no pause, when it gives up. */
	callback = (struct callback) { .give_up_at = 1 };
	MOCK_ANSWERS({ EAGAIN, 0x1000 }, { 0 });
	expect_eq(gmem_make_private(GMEM_FD, 0, 0x4000, 0, &retry, &report), -EAGAIN);
	expect_eq(mock.calls, 1);
	expect_eq(mock.sleeps, 0);
	expect(report.gave_up);
	gmem_report_str(&report, text, sizeof(text));
	expect(has(text, "tries: 1, gave up)"));

	/* Nor a further piece. */
	callback = (struct callback) { .give_up_at = 1 };
	MOCK_ANSWERS({ EAGAIN, 0x23000 }, { 0 });
	expect_eq(gmem_convert_gpa(slots, NR_SLOTS, 0x4000, 0x3000, true, 0, &retry,
				   &gpa_report), -EAGAIN);
	expect_eq(mock.calls, 1);
	expect_eq(gpa_report.done, 0);
	expect(gpa_report.piece.gave_up);
	gmem_gpa_report_str(&gpa_report, text, sizeof(text));
	expect(has(text, "tries: 1, gave up)"));
}

static void test_report_strings(void)
{
	static const struct {
		struct answer answer;
		const char *text;
	} errors[] = {
		{ { EAGAIN, 0x7000 }, "in use outside the guest at offset 0x7000" },
		{ { EINVAL, NOT_WRITTEN }, "a VM without private memory (errno" },
		{ { EOPNOTSUPP, 0x6000 }, "no guest_memfd at offset 0x6000" },
		{ { EHWPOISON, 0x7000 }, "poisoned, its contents are lost at offset 0x7000" },
		{ { ENOTTY, NOT_WRITTEN }, "the VM owns the attributes (errno" },
		{ { ENOMEM, 0x6000 }, "to split a huge page at offset 0x6000" },
		{ { EIO, NOT_WRITTEN }, "the VM is dead" },
		{ { EFAULT, NOT_WRITTEN }, "Bad address (errno" },
	};
	const struct gmem_retry once = { .max_tries = 1 };
	struct gmem_report report;
	char text[256], tiny[8];
	unsigned int i;

	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		mock_answers(&errors[i].answer, 1);
		gmem_make_private(GMEM_FD, 0x6000, 0x4000, ZERO, &once, &report);
		expect(gmem_report_str(&report, text, sizeof(text)) == text);
		expect(has(text, errors[i].text));
		expect(has(text, "offset 0x6000 size 0x4000 not made private"));
		expect(has(text, "ZERO"));
	}

	MOCK_ANSWERS({ 0 });
	gmem_make_shared(GMEM_FD, 0x6000, 0x4000, 0, NULL, &report);
	gmem_report_str(&report, text, sizeof(text));
	expect(has(text, "offset 0x6000 size 0x4000 made shared (no content mode, tries: 1)"));

	memset(tiny, 'x', sizeof(tiny));
	gmem_report_str(&report, tiny, 5);
	expect(!strcmp(tiny, "offs") && tiny[5] == 'x');

	report.error = EAGAIN;
	memset(tiny, 'x', sizeof(tiny));
	gmem_report_str(&report, tiny, 5);
	expect(!strcmp(tiny, "offs") && tiny[5] == 'x');
}

/* ---- guest physical ranges ---- */

static void expect_piece_at(int line, struct gmem_split *split, uint64_t gpa, uint64_t size,
			    int slot, int fd, uint64_t offset)
{
	struct gmem_piece piece = { 0 };

	if (gmem_split_next(split, &piece) && piece.gpa == gpa && piece.size == size &&
	    piece.slot == (slot < 0 ? NULL : &slots[slot]) && piece.gmem_fd == fd &&
	    piece.offset == offset)
		return;

	printf("    line %d: piece gpa 0x%llx size 0x%llx fd %d offset 0x%llx\n", line,
	       (unsigned long long)piece.gpa, (unsigned long long)piece.size, piece.gmem_fd,
	       (unsigned long long)piece.offset);
	failures++;
}

#define expect_piece(...) expect_piece_at(__LINE__, __VA_ARGS__)

static void expect_no_piece(struct gmem_split *split)
{
	struct gmem_piece piece;

	expect(!gmem_split_next(split, &piece));
	expect(!gmem_split_next(split, &piece));
}

static void test_split(void)
{
	struct gmem_split split;

	/* Inside of a slot: no cut, but another offset. */
	expect_eq(gmem_split_begin(&split, slots, NR_SLOTS, 0x2000, 0x1000), 0);
	expect_piece(&split, 0x2000, 0x1000, 3, GMEM_FD, 0x21000);
	expect_no_piece(&split);

	/* From before the first slot to behind the last one but one. */
	expect_eq(gmem_split_begin(&split, slots, NR_SLOTS, 0, 0xd000), 0);
	expect_piece(&split, 0, 0x1000, -1, -1, 0);
	expect_piece(&split, 0x1000, 0x4000, 3, GMEM_FD, 0x20000);
	expect_piece(&split, 0x5000, 0x3000, 0, GMEM_FD + 1, 0x100000);
	expect_piece(&split, 0x8000, 0x2000, -1, -1, 0);
	expect_piece(&split, 0xa000, 0x2000, 2, -1, 0);
	expect_piece(&split, 0xc000, 0x1000, -1, -1, 0);
	expect_no_piece(&split);

	/* Inside of ordinary memory: the slot, but no offset. */
	expect_eq(gmem_split_begin(&split, slots, NR_SLOTS, 0xb000, 0x1000), 0);
	expect_piece(&split, 0xb000, 0x1000, 2, -1, 0);
	expect_no_piece(&split);

	/* No slot at all. */
	expect_eq(gmem_split_begin(&split, NULL, 0, 0x2000, 0x1000), 0);
	expect_piece(&split, 0x2000, 0x1000, -1, -1, 0);
	expect_no_piece(&split);
}

static void test_split_top_of_address_space(void)
{
	struct gmem_split split;

	expect_eq(gmem_split_begin(&split, slots, NR_SLOTS, 0xffffffffffffe000, 0x2000), 0);
	expect_piece(&split, 0xffffffffffffe000, 0x1000, -1, -1, 0);
	expect_piece(&split, 0xfffffffffffff000, 0x1000, 4, GMEM_FD + 2, 0);
	expect_no_piece(&split);

	/* Without a slot there, it ends with a gap. */
	expect_eq(gmem_split_begin(&split, slots, 1, 0xfffffffffffff000, 0x1000), 0);
	expect_piece(&split, 0xfffffffffffff000, 0x1000, -1, -1, 0);
	expect_no_piece(&split);
}

static void test_split_bad_arguments(void)
{
	static const struct gmem_slot bad[] = {
		{ .gpa = 0xfffffffffffff000, .size = 0x2000, .gmem_fd = GMEM_FD },
		{ .gpa = 0, .size = 0x2000, .gmem_fd = GMEM_FD, .offset = 0xfffffffffffff000 },
	};
	struct gmem_split split;

	expect_eq(gmem_split_begin(&split, slots, NR_SLOTS, 0x1000, 0), -EINVAL);
	expect_no_piece(&split);
	expect_eq(gmem_split_begin(&split, slots, NR_SLOTS, 0xfffffffffffff000, 0x2000), -EINVAL);
	expect_no_piece(&split);
	expect_eq(gmem_split_begin(&split, slots, NR_SLOTS, 0x2000, UINT64_MAX), -EINVAL);
	expect_no_piece(&split);
	expect_eq(gmem_split_begin(&split, &bad[0], 1, 0x1000, 0x1000), -EINVAL);
	expect_no_piece(&split);
	expect_eq(gmem_split_begin(&split, &bad[1], 1, 0x1000, 0x1000), -EINVAL);
	expect_no_piece(&split);
}

/* Any layout, compared page by page with what the slots say. */
static void test_split_random(void)
{
	const unsigned int nr_pages = 64;
	unsigned int round, page, n;

	srandom(1);
	for (round = 0; round < 5000 && !failures; round++) {
		struct gmem_slot layout[8];
		int owner[64];
		unsigned int first, count;
		struct gmem_split split;
		struct gmem_piece piece;
		uint64_t next;

		memset(owner, -1, sizeof(owner));
		for (n = 0, page = random() % 4; n < 8; n++) {
			unsigned int length = random() % 8, i;

			if (page + length > nr_pages)
				length = 0;
			layout[n] = (struct gmem_slot) {
				.gpa = page * PAGE,
				.size = length * PAGE,
				.gmem_fd = random() % 4 ? (int)(GMEM_FD + n) : -1,
				.offset = random() % 100 * PAGE,
			};
			for (i = 0; i < length; i++)
				owner[page + i] = n;
			page += length + random() % 3;
		}
		/* In any order. */
		for (n = 7; n > 0; n--) {
			unsigned int other = random() % (n + 1);
			struct gmem_slot slot = layout[n];

			layout[n] = layout[other];
			layout[other] = slot;
			for (page = 0; page < nr_pages; page++) {
				if (owner[page] == (int)n)
					owner[page] = other;
				else if (owner[page] == (int)other)
					owner[page] = n;
			}
		}

		first = random() % nr_pages;
		count = 1 + random() % (nr_pages - first);
		expect_eq(gmem_split_begin(&split, layout, 8, first * PAGE, count * PAGE), 0);

		next = first * PAGE;
		while (gmem_split_next(&split, &piece)) {
			expect_eq(piece.gpa, next);
			expect(piece.size);
			for (; next < piece.gpa + piece.size; next += PAGE) {
				const struct gmem_slot *slot = NULL;

				if (owner[next / PAGE] >= 0)
					slot = &layout[owner[next / PAGE]];
				expect(piece.slot == slot);
				expect_eq(piece.gmem_fd, slot ? slot->gmem_fd : -1);
				if (slot && slot->gmem_fd >= 0)
					expect_eq(piece.offset + (next - piece.gpa),
						  slot->offset + (next - slot->gpa));
			}
			/* It goes on to a border of its slot, or to the end. */
			if (next < (first + count) * PAGE)
				expect(owner[next / PAGE] != owner[next / PAGE - 1]);
		}
		expect_eq(next, (first + count) * PAGE);
	}
}

static void expect_call(unsigned int call, int fd, uint64_t offset, uint64_t size)
{
	expect_eq(mock.fds[call], fd);
	expect_eq(mock.args[call].offset, offset);
	expect_eq(mock.args[call].size, size);
}

static void test_gpa_crosses_slots(void)
{
	struct gmem_gpa_report report;
	char text[256];

	MOCK_ANSWERS({ 0 });
	expect_eq(gmem_convert_gpa(slots, NR_SLOTS, 0x4000, 0x3000, true, PRESERVE, NULL,
				   &report), 0);
	expect_eq(mock.calls, 2);
	expect_call(0, GMEM_FD, 0x23000, 0x1000);
	expect_call(1, GMEM_FD + 1, 0x100000, 0x2000);
	expect_eq(mock.args[1].attributes, 8);
	expect_eq(mock.args[1].flags, PRESERVE);
	expect_eq(report.done, 0x3000);
	expect_eq(report.without_gmem, 0);
	expect_eq(report.piece.gpa, 0x5000);
	gmem_gpa_report_str(&report, text, sizeof(text));
	expect(has(text, "gpa 0x4000 size 0x3000 made private (PRESERVE, tries: 2)"));

	expect_eq(gmem_convert_gpa(slots, NR_SLOTS, 0x1000, 0x1000, true, 0, NULL, NULL), 0);
	expect_eq(mock.calls, 3);
}

static void test_gpa_first_error_stays(void)
{
	struct gmem_gpa_report report;
	char text[256];

	/* The first piece fails: the second one is not tried. */
	MOCK_ANSWERS({ ENOMEM, 0x23000 }, { 0 });
	expect_eq(gmem_convert_gpa(slots, NR_SLOTS, 0x4000, 0x3000, true, 0, NULL, &report),
		  -ENOMEM);
	expect_eq(mock.calls, 1);
	expect_eq(report.done, 0);
	expect_eq(report.error, ENOMEM);
	expect_eq(report.error_gpa, 0x4000);

	/* The second one fails: the first one is done, and it is told. */
	MOCK_ANSWERS({ 0 }, { EHWPOISON, 0x101000 }, { 0 });
	expect_eq(gmem_convert_gpa(slots, NR_SLOTS, 0x3000, 0x5000, true, PRESERVE, NULL,
				   &report), -EHWPOISON);
	expect_eq(mock.calls, 2);
	expect_eq(report.done, 0x2000);
	expect_eq(report.error_gpa, 0x6000);
	expect_eq(report.piece.gpa, 0x5000);
	expect_eq(report.piece.error, EHWPOISON);
	gmem_gpa_report_str(&report, text, sizeof(text));
	expect(has(text, "poisoned, its contents are lost at gpa 0x6000, done: 0x2000 bytes"));

	/* No error_offset: the start of the piece. */
	MOCK_ANSWERS({ 0 }, { EIO, NOT_WRITTEN });
	expect_eq(gmem_convert_gpa(slots, NR_SLOTS, 0x3000, 0x5000, true, 0, NULL, &report),
		  -EIO);
	expect_eq(report.done, 0x2000);
	expect_eq(report.error_gpa, 0x5000);
}

static void test_gpa_retries_piece(void)
{
	struct callback callback = { 0 };
	struct gmem_retry retry = {
		.max_tries = 2, .delay_us = 10, .busy = on_busy, .opaque = &callback,
	};
	struct gmem_gpa_report report;

	/* Each piece has its own tries. */
	MOCK_ANSWERS({ EAGAIN, 0x23000 }, { 0 }, { EAGAIN, 0x101000 }, { EAGAIN, 0x102000 });
	expect_eq(gmem_convert_gpa(slots, NR_SLOTS, 0x4000, 0x4000, true, 0, &retry, &report),
		  -EAGAIN);
	expect_eq(mock.calls, 4);
	expect_eq(callback.calls, 2);
	expect_eq(callback.last.gmem_fd, GMEM_FD + 1);
	expect_eq(callback.last.gpa, 0x5000);
	expect_eq(callback.last.offset, 0x100000);
	expect_eq(callback.last.error_offset, 0x101000);
	expect_eq(report.done, 0x1000);
	expect_eq(report.error_gpa, 0x7000);
	expect_eq(report.piece.tries, 2);
	expect_eq(report.tries, 4);
}

static void test_gpa_gaps(void)
{
	struct gmem_gpa_report report;
	char text[256];

	/* To private: nothing is converted if a part has no guest_memfd. */
	MOCK_ANSWERS({ 0 });
	expect_eq(gmem_convert_gpa(slots, NR_SLOTS, 0x1000, 0x8000, true, 0, NULL, &report),
		  -ENXIO);
	expect_eq(mock.calls, 0);
	expect_eq(report.done, 0);
	expect_eq(report.error_gpa, 0x8000);
	expect_eq(report.piece.tries, 0);
	gmem_gpa_report_str(&report, text, sizeof(text));
	expect(has(text, "no guest_memfd at gpa 0x8000, done: 0x0 bytes"));

	expect_eq(gmem_convert_gpa(slots, NR_SLOTS, 0xb000, 0x1000, true, 0, NULL, &report),
		  -ENXIO);
	expect_eq(report.error_gpa, 0xb000);

	/* To shared: that is skipped, and counted. */
	expect_eq(gmem_convert_gpa(slots, NR_SLOTS, 0, 0xd000, false, 0, NULL, &report), 0);
	expect_eq(mock.calls, 2);
	expect_call(0, GMEM_FD, 0x20000, 0x4000);
	expect_call(1, GMEM_FD + 1, 0x100000, 0x3000);
	expect_eq(report.done, 0xd000);
	expect_eq(report.without_gmem, 0x6000);
	gmem_gpa_report_str(&report, text, sizeof(text));
	expect(has(text, "0x6000 bytes without guest_memfd"));
}

/* A mode speaks for every page, so it cannot be given where KVM touches none. */
static void test_gpa_gaps_with_mode(void)
{
	static const uint64_t modes[] = { ZERO, PRESERVE };
	static const struct {
		uint64_t gpa, size, error_gpa;
	} ranges[] = {
		/* A file, then a gap; nothing but ordinary memory; a gap, then a file. */
		{ 0x1000, 0x8000, 0x8000 },
		{ 0xb000, 0x1000, 0xb000 },
		{ 0, 0x2000, 0 },
	};
	struct gmem_gpa_report report;
	char text[256];
	unsigned int i, j;

	MOCK_ANSWERS({ 0 });
	for (i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		for (j = 0; j < 2; j++) {
			expect_eq(gmem_convert_gpa(slots, NR_SLOTS, ranges[i].gpa, ranges[i].size,
						   false, modes[j], NULL, &report), -EOPNOTSUPP);
			expect_eq(report.error, EOPNOTSUPP);
			expect_eq(report.error_gpa, ranges[i].error_gpa);
			expect_eq(report.done, 0);
			expect_eq(report.without_gmem, 0);
			expect_eq(report.tries, 0);

			/* To private, a mode makes no difference. */
			expect_eq(gmem_convert_gpa(slots, NR_SLOTS, ranges[i].gpa, ranges[i].size,
						   true, modes[j], NULL, NULL), -ENXIO);
		}
	}
	expect_eq(mock.calls, 0);
	gmem_gpa_report_str(&report, text, sizeof(text));
	expect(has(text, "not made shared: content mode not available"));
	expect(has(text, "or no guest_memfd at gpa 0x0, done: 0x0 bytes"));

	/* All of it has one. */
	expect_eq(gmem_convert_gpa(slots, NR_SLOTS, 0x1000, 0x7000, false, ZERO, NULL, &report), 0);
	expect_eq(mock.calls, 2);
	expect_eq(mock.args[1].flags, ZERO);
}

static void test_gpa_bad_arguments(void)
{
	static const struct {
		uint64_t gpa, size, mode;
	} bad[] = {
		/* The end unaligned: not even the first piece is converted. */
		{ 0x4000, 0x1800, 0 },
		{ 0x4800, 0x1000, 0 },
		{ 0x4000, 0, 0 },
		{ 0xfffffffffffff000, 0x2000, 0 },
		{ 0x4000, UINT64_MAX - 0xfff, 0 },
		/* Not a mode, though there is nothing to ask KVM for in the second range. */
		{ 0x4000, 0x1000, ZERO | PRESERVE },
		{ 0xb000, 0x1000, ZERO | PRESERVE },
		{ 0xb000, 0x1000, 4 },
	};
	struct gmem_gpa_report report;
	unsigned int i;

	MOCK_ANSWERS({ 0 });
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		expect_eq(gmem_convert_gpa(slots, NR_SLOTS, bad[i].gpa, bad[i].size, false,
					   bad[i].mode, NULL, &report), -EINVAL);
		expect_eq(report.error, EINVAL);
		expect_eq(report.error_gpa, bad[i].gpa);
		expect_eq(report.done, 0);
	}
	expect_eq(mock.calls, 0);
}

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{ "probe: supported, and its content modes", test_probe_supported },
	{ "probe: a kernel without content modes", test_probe_without_modes },
	{ "probe: the VM owns the attributes", test_probe_vm_owns_attributes },
	{ "probe: a kernel without the feature", test_probe_no_feature },
	{ "probe: a VM type without private memory", test_probe_no_private_memory },
	{ "probe: a question that cannot be asked", test_probe_fails },
	{ "probe: one try", test_probe_tries_once },
	{ "probe: content modes that cannot be found out", test_content_modes_fail },
	{ "strings of probes and modes", test_strings },
	{ "arguments reach the kernel", test_arguments },
	{ "EAGAIN: the default is bounded, and sleeps", test_default_is_bounded_and_sleeps },
	{ "EAGAIN: retries end with success", test_retry_ends_with_success },
	{ "EAGAIN: limits of tries and pauses", test_retry_limits },
	{ "no other error is retried", test_only_eagain_is_retried },
	{ "error_offset: only what KVM has written", test_error_offset },
	{ "EAGAIN: the callback", test_callback },
	{ "strings of reports", test_report_strings },
	{ "split: slots, offsets, gaps", test_split },
	{ "split: the top of the address space", test_split_top_of_address_space },
	{ "split: bad arguments", test_split_bad_arguments },
	{ "split: random slots, page by page", test_split_random },
	{ "guest physical range: crosses slots", test_gpa_crosses_slots },
	{ "guest physical range: the first error stays", test_gpa_first_error_stays },
	{ "guest physical range: retries", test_gpa_retries_piece },
	{ "guest physical range: gaps", test_gpa_gaps },
	{ "guest physical range: gaps, with a content mode", test_gpa_gaps_with_mode },
	{ "guest physical range: bad arguments", test_gpa_bad_arguments },
};

int main(void)
{
	unsigned int i, bad = 0;

	for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		failures = 0;
		tests[i].run();
		printf("%s - %s\n", failures ? "not ok" : "ok", tests[i].name);
		bad += !!failures;
	}
	return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
