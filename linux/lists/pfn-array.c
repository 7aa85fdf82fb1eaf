// SPDX-License-Identifier: GPL-2.0-only
/*
 * The standard's list: 32-bit page frame numbers, 256 of them a buffer as Linux
 * has it (VIRTIO 1.4, 5.5.6).
 */
#include "balloon.h"

#define PFNS_MAX	256

static u64 pfn_array_add(struct page_list *list, u64 pfn, u64 frames)
{
	__le32 *pfns = list->data;
	u64 i, fit = min_t(u64, frames, PFNS_MAX - list->used / 4);

	for (i = 0; i < fit; i++)
		pfns[list->used / 4 + i] = cpu_to_le32(pfn + i);
	list->used += fit * 4;
	return fit;
}

static unsigned int pfn_array_finish(struct page_list *list,
				     const struct answer *answer)
{
	sg_init_one(list->sg, list->data, list->used);
	return 1;
}

const struct list_format pfn_array = {
	.name = "pfn-array",
	.add = pfn_array_add,
	.finish = pfn_array_finish,
};
