// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page orders (v5, November 2016): after the response header a 64-bit head for
 * each aligned block, 52 bits of page frame, 6 of page shift and 6 that say how
 * many bytes of bitmap follow. Runs below 64 pages share bitmaps of 64 pages,
 * but in answers, where v5's own driver has none.
 */
#include "balloon.h"

/* Before the entries of page-order and page-range. */
struct response_header {
	u8 command;
	u8 flag;
	__le16 id;
	__le32 bytes;
} __packed;

#define BITMAP_FRAMES		64

static __le64 head_of(u64 pfn, unsigned int order, unsigned int bitmap_bytes)
{
	u64 shift = PAGE_SHIFT + order;

	return cpu_to_le64(pfn | shift << 52 | (u64)bitmap_bytes << 58);
}

static u64 page_order_add(struct page_list *list, u64 pfn, u64 frames)
{
	__le64 *entry = list->data + list->used;
	bool fits = list->open && pfn + frames <= list->open_pfn + BITMAP_FRAMES;

	if (!fits && list->used + 2 * sizeof(*entry) > LIST_BYTES)
		return 0;
	if (frames >= BITMAP_FRAMES || list->answer.asked) {
		unsigned int order = block_order(pfn, frames);

		entry[0] = head_of(pfn, order, 0);
		list->used += sizeof(*entry);
		return 1ULL << order;
	}
	if (!fits) {
		entry[0] = head_of(pfn, 0, sizeof(*entry));
		entry[1] = 0;
		list->open = &entry[1];
		list->open_pfn = pfn;
		list->used += 2 * sizeof(*entry);
	}
	*list->open |= cpu_to_le64(GENMASK_ULL(frames - 1, 0) <<
				   (pfn - list->open_pfn));
	return frames;
}

/* For both formats with a response header, which has a buffer of its own. */
unsigned int finish_response(struct page_list *list)
{
	struct response_header *header = list->data;
	unsigned int bytes = list->used - sizeof(*header);
	unsigned int elements = bytes ? 2 : 1;

	header->command = list->answer.command;
	header->flag = list->answer.done;
	header->id = cpu_to_le16(list->answer.id);
	header->bytes = cpu_to_le32(bytes);
	sg_init_table(list->sg, elements);
	sg_set_buf(&list->sg[0], header, sizeof(*header));
	if (bytes)
		sg_set_buf(&list->sg[1], header + 1, bytes);
	return elements;
}

const struct list_format page_order = {
	.header_bytes = sizeof(struct response_header),
	.add = page_order_add,
	.finish = finish_response,
};
