// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page ranges (v6, December 2016): after the response header one 64-bit entry a
 * run, 52 bits of page frame and 12 of length; length 0 says that the next entry
 * is the length. v6's own driver spoils runs of exactly 4096 pages: here they
 * have the long form.
 */
#include "balloon.h"

#define LENGTH_BITS	12
#define LENGTH_MAX	((1 << LENGTH_BITS) - 1)

static u64 page_range_add(struct page_list *list, u64 pfn, u64 frames)
{
	__le64 *entry = list->data + list->used;
	bool is_long = frames > LENGTH_MAX;
	unsigned int bytes = is_long ? 16 : 8;

	if (list->used + bytes > LIST_BYTES)
		return 0;
	entry[0] = cpu_to_le64(pfn << LENGTH_BITS | (is_long ? 0 : frames));
	if (is_long)
		entry[1] = cpu_to_le64(frames);
	list->used += bytes;
	return frames;
}

const struct list_format page_range = {
	.header_bytes = 8,
	.add = page_range_add,
	.finish = finish_response,
};
