// SPDX-License-Identifier: GPL-2.0-only
/*
 * Liang Li's page bitmaps (v3, October 2016): a header, then one bit a page in
 * buffers of 32 KiB. Unlike v3's own driver it sends the last piece of a bitmap
 * also where that is not full.
 */
#include <linux/bitops.h>
#include <linux/string.h>

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

/* Bytes of the window, in whole words. */
static u64 bitmap_bytes(struct page_list *list)
{
	return round_up(list->end - list->start, 64) / 8;
}

/* The bits of the list before are cleared when the device has read them. */
static void page_bitmap_begin(struct page_list *list)
{
	unsigned int i;

	for (i = 0; i < DIV_ROUND_UP(bitmap_bytes(list), BITMAP_BYTES); i++)
		memset(list->bitmaps[i], 0, BITMAP_BYTES);
	list->start = 0;
	list->end = 0;
}

static u64 page_bitmap_add(struct page_list *list, u64 pfn, u64 frames)
{
	u64 capacity = (u64)list->bitmap_count * BITS_PER_PIECE;
	u64 i, fit;

	if (!list->end) {
		list->start = pfn;
		list->end = pfn;
	}
	/* Zeros for a whole piece cost more than another list. */
	if (pfn - list->end > BITS_PER_PIECE || pfn - list->start >= capacity)
		return 0;
	fit = min(frames, list->start + capacity - pfn);
	for (i = pfn - list->start; i < pfn - list->start + fit; i++)
		__set_bit_le(i % BITS_PER_PIECE,
			     list->bitmaps[i / BITS_PER_PIECE]);
	list->end = pfn + fit;
	return fit;
}

static unsigned int page_bitmap_finish(struct page_list *list,
				       const struct answer *answer)
{
	struct bitmap_header *header = list->header;
	u64 bytes = bitmap_bytes(list);
	unsigned int i, pieces = DIV_ROUND_UP(bytes, BITMAP_BYTES);

	header->command = cpu_to_le16(answer->command);
	header->page_shift = cpu_to_le16(VIRTIO_BALLOON_PFN_SHIFT);
	header->flag = cpu_to_le16(answer->done);
	header->id = cpu_to_le64(answer->id);
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
	.name = "page-bitmap",
	.names_runs = true,
	.has_bitmaps = true,
	.begin = page_bitmap_begin,
	.add = page_bitmap_add,
	.finish = page_bitmap_finish,
};
