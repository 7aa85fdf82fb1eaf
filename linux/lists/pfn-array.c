// SPDX-License-Identifier: GPL-2.0-only
/*
 * The standard's list: 32-bit page frame numbers, 256 of them a buffer as Linux
 * has it (VIRTIO 1.4, 5.5.6).
 */
#include "balloon.h"

#define PFNS_MAX	256

static u64 pfn_array_add(struct page_list *list, u64 pfn, u64 frames)
{
	__le32 *pfns = list->data + list->used;
	u64 i, fit = min_t(u64, frames, PFNS_MAX - list->used / sizeof(*pfns));

	for (i = 0; i < fit; i++)
		pfns[i] = cpu_to_le32(pfn + i);
	list->used += fit * sizeof(*pfns);
	return fit;
}

const struct list_format pfn_array = {
	.add = pfn_array_add,
	.finish = list_finish,
};
