// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Only compiled: C++ can include the header of the helper and call what it has. */
#include "gmem_convert.h"

static enum gmem_busy_action on_busy(void *opaque, const struct gmem_report *report)
{
	return opaque && report->tries > 1 ? GMEM_GIVE_UP : GMEM_RETRY;
}

int use_helper(int vm_fd, const gmem_slot *slots, size_t nr_slots);
int use_helper(int vm_fd, const gmem_slot *slots, size_t nr_slots)
{
	gmem_gpa_report report;
	gmem_retry retry = gmem_retry_default;

	retry.busy = on_busy;
	if (gmem_probe(vm_fd) != GMEM_SUPPORTED)
		return 1;
	return gmem_convert_gpa(slots, nr_slots, 0, 0x1000, true,
				KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE, &retry, &report);
}
