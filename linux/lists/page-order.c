// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page orders (v5, November 2016): after the response header a 64-bit head for
 * each aligned block, 52 bits of page frame, 6 of page shift and 6 that say how
 * many bytes of bitmap follow. Runs below 64 pages share bitmaps of 64 pages.
 */
#include <linux/log2.h>

#include "balloon.h"

#define SHIFT_AT		52
#define BITMAP_BYTES_AT		58
#define BITMAP_FRAMES		64

static void set_open(struct page_list *list, u64 pfn, u64 frames)
{
	u64 bits = GENMASK_ULL(frames - 1, 0) << (pfn - list->open_pfn);

	*list->open |= cpu_to_le64(bits);
}

static u64 page_order_add(struct page_list *list, u64 pfn, u64 frames)
{
	__le64 *entry = list->data + list->used;
	unsigned int order;

	if (list->open && pfn + frames <= list->open_pfn + BITMAP_FRAMES) {
		set_open(list, pfn, frames);
		return frames;
	}
	if (list->used + 16 > LIST_BYTES)
		return 0;
	if (frames < BITMAP_FRAMES) {
		entry[0] = cpu_to_le64(pfn |
			(u64)VIRTIO_BALLOON_PFN_SHIFT << SHIFT_AT |
			8ULL << BITMAP_BYTES_AT);
		entry[1] = 0;
		list->open = &entry[1];
		list->open_pfn = pfn;
		list->used += 16;
		set_open(list, pfn, frames);
		return frames;
	}
	order = min_t(unsigned int, ilog2(frames), pfn ? __ffs64(pfn) : 30);
	entry[0] = cpu_to_le64(pfn |
		(u64)(VIRTIO_BALLOON_PFN_SHIFT + order) << SHIFT_AT);
	list->used += 8;
	return 1ULL << order;
}

/* For all formats with a response header. */
unsigned int finish_response(struct page_list *list,
			     const struct answer *answer)
{
	struct response_header *header = list->header;
	unsigned int elements = list->used ? 2 : 1;

	header->command = answer->command;
	header->flag = answer->done;
	header->id = cpu_to_le16(answer->id);
	header->bytes = cpu_to_le32(list->used);
	sg_init_table(list->sg, elements);
	sg_set_buf(&list->sg[0], header, sizeof(*header));
	if (list->used)
		sg_set_buf(&list->sg[1], list->data, list->used);
	return elements;
}

const struct list_format page_order = {
	.name = "page-order",
	.names_runs = true,
	.add = page_order_add,
	.finish = finish_response,
};
