// SPDX-License-Identifier: GPL-2.0-only
/*
 * Alexander Duyck's hints (v1, June 2019): a 64-bit word a block, its address
 * with its order in the low bits; 32 of them a buffer. The kernel keeps the
 * blocks to itself until the buffer is back.
 */
#include <linux/log2.h>

#include "balloon.h"

#define BLOCKS_MAX	32

static u64 address_or_order_add(struct page_list *list, u64 pfn, u64 frames)
{
	__le64 *entry = list->data + list->used;
	unsigned int order;

	if (list->used == BLOCKS_MAX * sizeof(*entry))
		return 0;
	order = min_t(unsigned int, ilog2(frames), pfn ? __ffs64(pfn) : 30);
	*entry = cpu_to_le64(pfn << VIRTIO_BALLOON_PFN_SHIFT | order);
	list->used += sizeof(*entry);
	return 1ULL << order;
}

static unsigned int address_or_order_finish(struct page_list *list,
					    const struct answer *answer)
{
	sg_init_one(list->sg, list->data, list->used);
	return 1;
}

const struct list_format address_or_order = {
	.name = "address-or-order",
	.add = address_or_order_add,
	.finish = address_or_order_finish,
};
