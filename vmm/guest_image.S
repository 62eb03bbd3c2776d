/* SPDX-License-Identifier: GPL-2.0 */
/* Carries the guest's flat image (GUEST_IMAGE, set by the Makefile). */
	.section .rodata
	.globl guest_image, guest_image_end
guest_image:
	.incbin GUEST_IMAGE
guest_image_end:

	.section .note.GNU-stack, "", @progbits
