/* SPDX-License-Identifier: GPL-2.0 */
/* How the tour speaks, and how it ends. */
#ifndef VMM_H
#define VMM_H

enum {
	EXIT_OK = 0,
	EXIT_BROKEN = 1,	/* a step did not go as promised */
	EXIT_USAGE = 2,
	EXIT_UNSUPPORTED = 3,	/* this kernel cannot show it */
};

/* Start step number @n.  @title must be a string literal. */
void step(int n, const char *title);

/* One line about the step at hand. */
__attribute__((format(printf, 1, 2)))
void say(const char *fmt, ...);

/* The step did not go as promised: say so, and exit with EXIT_BROKEN. */
__attribute__((format(printf, 1, 2), noreturn))
void fail(const char *fmt, ...);

/* As fail(), for a system call: adds what errno says. */
__attribute__((format(printf, 1, 2), noreturn))
void fail_errno(const char *fmt, ...);

/* The kernel lacks what the tour is about: say so, exit EXIT_UNSUPPORTED. */
__attribute__((format(printf, 1, 2), noreturn))
void unsupported(const char *fmt, ...);

/* The steps; returns when all of them went as promised. */
void tour(void);

#endif /* VMM_H */
