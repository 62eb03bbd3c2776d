// SPDX-License-Identifier: GPL-2.0
/*
 * The reference VMM: a guided tour of guest_memfd in-place conversion.
 *
 * The tour runs in a child process.  The parent only watches: a conversion that
 * hangs in the kernel, or a guest that never exits, must not hang the caller,
 * and a signal handler in the same process would not run in the first case.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "vmm.h"

/* Seconds; the tour takes a few on a slow emulated machine. */
#define TIME_LIMIT 180

/* Shared with the watching parent. */
struct progress {
	volatile int step;
	const char *volatile title;
};

static struct progress *progress;

void step(int n, const char *title)
{
	progress->step = n;
	progress->title = title;
	printf("step %d: %s\n", n, title);
}

void say(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	printf("  ");
	vprintf(fmt, args);
	printf("\n");
	va_end(args);
}

static void print_failure(const char *fmt, va_list args)
{
	printf("FAILED in step %d (%s): ", progress->step, progress->title);
	vprintf(fmt, args);
}

void fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	print_failure(fmt, args);
	printf("\n");
	va_end(args);
	exit(EXIT_BROKEN);
}

void fail_errno(const char *fmt, ...)
{
	int error = errno;
	va_list args;

	va_start(args, fmt);
	print_failure(fmt, args);
	printf(": %s (errno %d)\n", strerror(error), error);
	va_end(args);
	exit(EXIT_BROKEN);
}

void unsupported(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	printf("UNSUPPORTED: ");
	vprintf(fmt, args);
	printf("\n");
	va_end(args);
	exit(EXIT_UNSUPPORTED);
}

static void on_alarm(int sig)
{
	(void)sig;
}

static int watch(pid_t child)
{
	struct sigaction action = { .sa_handler = on_alarm };
	int status;

	/* No SA_RESTART: the alarm has to end waitpid(). */
	sigaction(SIGALRM, &action, NULL);
	alarm(TIME_LIMIT);

	if (waitpid(child, &status, 0) < 0) {
		int error = errno;

		kill(child, SIGKILL);
		if (error == EINTR)
			printf("FAILED in step %d (%s): hung, not done %d seconds after the start\n",
			       progress->step, progress->title, TIME_LIMIT);
		else
			printf("FAILED: waitpid: %s\n", strerror(error));
		return EXIT_BROKEN;
	}

	if (WIFEXITED(status))
		return WEXITSTATUS(status);

	printf("FAILED in step %d (%s): the VMM died of signal %d (%s)\n",
	       progress->step, progress->title, WTERMSIG(status),
	       strsignal(WTERMSIG(status)));
	return EXIT_BROKEN;
}

static void usage(FILE *to)
{
	fprintf(to,
		"usage: vmm [-h]\n"
		"\n"
		"Run a small guest whose memory changes between private and shared in place,\n"
		"and show what host and guest see.  Needs access to /dev/kvm, on a kernel with\n"
		"guest_memfd in-place conversion and kvm.vm_memory_attributes=0.\n"
		"\n"
		"exit status: %d every step went as promised\n"
		"             %d a step did not; the last line says which\n"
		"             %d bad usage\n"
		"             %d this kernel cannot show it; the last line says why\n",
		EXIT_OK, EXIT_BROKEN, EXIT_USAGE, EXIT_UNSUPPORTED);
}

int main(int argc, char **argv)
{
	pid_t parent = getpid();
	pid_t child;
	int opt;

	while ((opt = getopt(argc, argv, "h")) != -1) {
		if (opt != 'h') {
			usage(stderr);
			return EXIT_USAGE;
		}
		usage(stdout);
		return EXIT_OK;
	}
	if (optind != argc) {
		usage(stderr);
		return EXIT_USAGE;
	}

	/* Whoever reads the output in a pipe sees where it stops. */
	setvbuf(stdout, NULL, _IOLBF, 0);

	progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (progress == MAP_FAILED) {
		perror("vmm: mmap");
		return EXIT_BROKEN;
	}
	progress->title = "start";

	/* An inherited SIG_IGN would take the child's exit status away. */
	signal(SIGCHLD, SIG_DFL);
	child = fork();
	if (child < 0) {
		perror("vmm: fork");
		return EXIT_BROKEN;
	}
	if (child)
		return watch(child);

	/* Do not outlive the parent, not even one that is already gone. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_BROKEN);

	tour();
	return EXIT_OK;
}
