/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * All that gmem_convert.[ch] may expect of a linux/kvm.h: what every version of it
 * has had from the beginning.  The test compiles with it in place of the real one.
 */
#ifndef __LINUX_KVM_H
#define __LINUX_KVM_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define KVMIO			0xAE
#define KVM_CHECK_EXTENSION	_IO(KVMIO, 0x03)

#endif
