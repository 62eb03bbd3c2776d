/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kernel tells an onlooker about a guest_memfd: numbers in /proc, and
 * trace events.  A VMM needs neither to work; whoever debugs one needs both.
 *
 * Where the kernel has the interface, but not as its documentation says, fail().
 */
#ifndef OBSERVE_H
#define OBSERVE_H

#include <stdint.h>

/* The lines of /proc/PID/fdinfo/FD of a guest_memfd. */
struct gmem_fdinfo {
	uint64_t size;		/* bytes */
	uint64_t flags;		/* GUEST_MEMFD_FLAG_* */
	uint64_t private;	/* bytes */
	uint64_t shared;	/* bytes */
	uint64_t allocated;	/* bytes, of either kind */
	uint64_t extents;	/* runs of pages of one kind */
};

/*
 * Read /proc/self/fdinfo of @gmem_fd.
 *
 * Return: 0, or a negative errno if there is no such file, i.e. no /proc.
 */
int fdinfo_read(int gmem_fd, struct gmem_fdinfo *info);

/* One event, e.g. "kvm_gmem_page_in_use" and "ino 5 offset 0x1000 ...". */
struct trace_event {
	char name[64];
	char args[256];
};

/*
 * Record conversions of @gmem_fd, and the pages that get in their way, in a
 * tracefs instance of its own, which disturbs nobody else who traces.  It is
 * removed by trace_stop() or when the process exits.  At most one at a time.
 *
 * Return: 0, or a negative errno if tracefs is not mounted at
 * /sys/kernel/tracing (-ENOENT) or is not ours to use (it takes root).
 */
int trace_start(int gmem_fd);

/*
 * Stop, and get the first @max events since trace_start(), oldest first.
 *
 * Return: how many events there were, which may be more than @max.
 */
unsigned int trace_stop(struct trace_event *events, unsigned int max);

#endif /* OBSERVE_H */
