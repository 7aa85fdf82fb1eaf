// SPDX-License-Identifier: GPL-2.0-only
/*
 * Liang Li's page bitmaps (v3, October 2016): a header, then one bit a page in
 * buffers of 32 KiB. Unlike v3's own driver it sends the last piece of a bitmap
 * also where that is not full.
 */
#include "balloon.h"

struct bitmap_header {
	__le16 command;
	__le16 page_shift;
	__le16 flag;
	__le16 reserved;
	__le64 id;
	__le64 start_pfn;
	__le64 bytes;
} __packed;

#define BITS_PER_PIECE	(BITMAP_BYTES * 8)

static unsigned int pieces_of(struct page_list *list)
{
	return DIV_ROUND_UP(list->end - list->start, BITS_PER_PIECE);
}

static u64 page_bitmap_add(struct page_list *list, u64 pfn, u64 frames)
{
	u64 capacity = (u64)list->bitmap_count * BITS_PER_PIECE;
	u64 i, fit;
	unsigned int piece;

	if (!list->end) {
		list->start = pfn;
		list->end = pfn;
	}
	/* Zeros for a whole piece cost more than another list. */
	if (pfn - list->end > BITS_PER_PIECE || pfn - list->start >= capacity)
		return 0;
	piece = pieces_of(list);
	fit = min(frames, list->start + capacity - pfn);
	list->end = pfn + fit;
	/* They have the bits of the list before. */
	for (; piece < pieces_of(list); piece++)
		memset(list->bitmaps[piece], 0, BITMAP_BYTES);
	for (i = pfn - list->start; i < list->end - list->start; i++)
		__set_bit_le(i % BITS_PER_PIECE,
			     list->bitmaps[i / BITS_PER_PIECE]);
	return fit;
}

static unsigned int page_bitmap_finish(struct page_list *list)
{
	struct bitmap_header *header = list->data;
	u64 bytes = round_up(list->end - list->start, 64) / 8;
	unsigned int i, pieces = pieces_of(list);

	header->command = cpu_to_le16(list->answer.command);
	header->page_shift = cpu_to_le16(PAGE_SHIFT);
	header->flag = cpu_to_le16(list->answer.done);
	header->id = cpu_to_le64(list->answer.id);
	header->start_pfn = cpu_to_le64(list->start);
	header->bytes = cpu_to_le64(bytes);
	sg_init_table(list->sg, pieces + 1);
	sg_set_buf(&list->sg[0], header, sizeof(*header));
	for (i = 0; i < pieces; i++)
		sg_set_buf(&list->sg[i + 1], list->bitmaps[i],
			   min_t(u64, BITMAP_BYTES,
				 bytes - (u64)i * BITMAP_BYTES));
	return pieces + 1;
}

const struct list_format page_bitmap = {
	.add = page_bitmap_add,
	.finish = page_bitmap_finish,
};
