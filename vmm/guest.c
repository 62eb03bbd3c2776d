// SPDX-License-Identifier: GPL-2.0
/*
 * The guest: 64-bit, one vCPU, no interrupts, no libc.  It does what the
 * mailbox says, tells the VMM, and looks into the mailbox again.
 */
#include <stdbool.h>
#include <stdint.h>

#include <asm/kvm_para.h>
#include <linux/kvm_para.h>

#include "guest.h"

static volatile struct guest_mailbox *const mailbox = (void *)GUEST_MAILBOX;

static void cpuid(uint32_t leaf, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d)
{
	asm volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d)
		     : "0"(leaf), "2"(0));
}

/* AuthenticAMD or HygonGenuine */
static bool is_amd(void)
{
	uint32_t a, b, c, d;

	cpuid(0, &a, &b, &c, &d);
	return b == 0x68747541 || b == 0x6f677948;
}

static bool has_map_gpa_range(void)
{
	uint32_t a, b, c, d;

	cpuid(KVM_CPUID_FEATURES, &a, &b, &c, &d);
	return a & (1u << KVM_FEATURE_HC_MAP_GPA_RANGE);
}

/*
 * Each vendor has its own instruction.  KVM patches the wrong one in place, but
 * only where it can write the guest's code: use the right one.
 */
static int64_t map_gpa_range(uint64_t gpa, uint64_t len, uint64_t attributes)
{
	uint64_t npages = len / GUEST_PAGE_SIZE;
	int64_t ret;

	if (!has_map_gpa_range())
		return -KVM_ENOSYS;

	if (is_amd())
		asm volatile("vmmcall" : "=a"(ret)
			     : "a"(KVM_HC_MAP_GPA_RANGE), "b"(gpa),
			       "c"(npages), "d"(attributes)
			     : "memory");
	else
		asm volatile("vmcall" : "=a"(ret)
			     : "a"(KVM_HC_MAP_GPA_RANGE), "b"(gpa),
			       "c"(npages), "d"(attributes)
			     : "memory");
	return ret;
}

static void copy(volatile char *to, const volatile char *from, uint64_t len)
{
	while (len--)
		*to++ = *from++;
}

static void capitalize(volatile char *s)
{
	for (; *s; s++) {
		if (*s >= 'a' && *s <= 'z')
			*s -= 'a' - 'A';
	}
}

static int64_t do_command(void)
{
	uint64_t gpa = mailbox->gpa;
	uint64_t len = mailbox->len;

	switch (mailbox->op) {
	case GUEST_WRITE:
		copy((char *)gpa, mailbox->text, len);
		return 0;
	case GUEST_READ:
		copy(mailbox->text, (char *)gpa, len);
		return 0;
	case GUEST_ANSWER:
		capitalize((char *)gpa);
		return 0;
	case GUEST_INCREMENT:
		return ++*(volatile uint64_t *)gpa;
	case GUEST_MAKE_PRIVATE:
		return map_gpa_range(gpa, len, KVM_MAP_GPA_RANGE_ENCRYPTED |
					       KVM_MAP_GPA_RANGE_PAGE_SZ_4K);
	case GUEST_MAKE_SHARED:
		return map_gpa_range(gpa, len, KVM_MAP_GPA_RANGE_DECRYPTED |
					       KVM_MAP_GPA_RANGE_PAGE_SZ_4K);
	default:
		return -KVM_ENOSYS;
	}
}

__attribute__((section(".text.start"), noreturn))
void guest_start(void)
{
	for (;;) {
		mailbox->result = do_command();
		asm volatile("outb %%al, %0"
			     : : "N"(GUEST_PORT_DONE), "a"(0) : "memory");
	}
}
