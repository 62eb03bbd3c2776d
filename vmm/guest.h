/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the VMM and its guest agree on: where things are in guest physical
 * memory, and how the VMM tells the guest what to do.
 *
 * Everything that KVM itself reads or writes (code, which KVM decodes when it
 * emulates an instruction, and page tables) is in pages that stay shared: KVM
 * gets at guest memory through the memslot's userspace_addr, and a private page
 * cannot be reached through that.
 */
#ifndef GUEST_H
#define GUEST_H

#define GUEST_PAGE_SIZE		0x1000

#define GUEST_PML4		0x1000
#define GUEST_PDPT		0x2000
#define GUEST_PD		0x3000
#define GUEST_STACK_TOP		0x6000	/* grows down from here, 8 KiB */
#define GUEST_MAILBOX		0x6000
#define GUEST_CODE		0x10000	/* guest.lds has the same number */
#define GUEST_CODE_MAX		0x10000

/* The pages whose side changes; the guest uses none of them on its own. */
#define GUEST_DATA		0x100000

/* One 2 MiB page table entry maps it all. */
#define GUEST_MEM_SIZE		0x200000

/* An outb to this port: the command in the mailbox is done. */
#define GUEST_PORT_DONE		0x80

#ifndef __ASSEMBLER__

#include <stdint.h>

enum guest_op {
	/* Copy text, len bytes, to gpa. */
	GUEST_WRITE = 1,

	/* Copy len bytes from gpa to text. */
	GUEST_READ,

	/*
	 * Read the string at gpa and write it in capitals where it was: an
	 * answer that only somebody who read the question can give.
	 */
	GUEST_ANSWER,

	/* Add one to the u64 at gpa; result: its new value. */
	GUEST_INCREMENT,

	/*
	 * Ask the VMM by hypercall to make len bytes from gpa private or
	 * shared; result: what the hypercall returned.
	 */
	GUEST_MAKE_PRIVATE,
	GUEST_MAKE_SHARED,
};

#define GUEST_TEXT_MAX 128

/* In a shared page.  The VMM fills it in while the guest is not running. */
struct guest_mailbox {
	uint64_t op;
	uint64_t gpa;
	uint64_t len;
	int64_t result;
	char text[GUEST_TEXT_MAX];
};

#endif /* __ASSEMBLER__ */
#endif /* GUEST_H */
