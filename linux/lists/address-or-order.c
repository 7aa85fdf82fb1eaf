// SPDX-License-Identifier: GPL-2.0-only
/*
 * Alexander Duyck's hints (v1, June 2019): a 64-bit word a block, its address
 * with its order in the low bits; 32 of them a buffer. The kernel keeps the
 * blocks to itself until the buffer is back.
 */
#include "balloon.h"

#define BLOCKS_MAX	32

static u64 address_or_order_add(struct page_list *list, u64 pfn, u64 frames)
{
	/* Blocks that are neighbours came joined. */
	unsigned int order = min_t(unsigned int, block_order(pfn, frames),
				   MAX_PAGE_ORDER);
	__le64 *entry = list->data + list->used;

	if (list->used == BLOCKS_MAX * sizeof(*entry))
		return 0;
	*entry = cpu_to_le64(pfn << PAGE_SHIFT | order);
	list->used += sizeof(*entry);
	return 1ULL << order;
}

const struct list_format address_or_order = {
	.add = address_or_order_add,
	.finish = list_finish,
};
