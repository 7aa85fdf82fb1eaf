// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page chunks (Wei Wang v10, May 2017): a count, then base and size of each run
 * in bytes. An answer has its message before the count: a command, and a flag
 * that says whether it is the last.
 */
#include "balloon.h"

struct misc_message {
	__le32 command;
	__le32 flags;
	__le64 chunk_count;
} __packed;

struct page_chunk {
	__le64 base;
	__le64 size;
} __packed;

static u64 page_chunks_add(struct page_list *list, u64 pfn, u64 frames)
{
	struct page_chunk *chunk = list->data + list->used;

	if (list->used + sizeof(*chunk) > LIST_BYTES)
		return 0;
	chunk->base = cpu_to_le64(pfn << PAGE_SHIFT);
	chunk->size = cpu_to_le64(frames << PAGE_SHIFT);
	list->used += sizeof(*chunk);
	return frames;
}

static unsigned int page_chunks_finish(struct page_list *list)
{
	struct misc_message *message = list->data;
	/* Inflate and deflate lists begin with the count. */
	unsigned int skip = list->answer.asked ?
			    0 : offsetof(struct misc_message, chunk_count);

	message->command = cpu_to_le32(list->answer.command);
	message->flags = cpu_to_le32(list->answer.done);
	message->chunk_count = cpu_to_le64((list->used - sizeof(*message)) /
					   sizeof(struct page_chunk));
	sg_init_one(list->sg, list->data + skip, list->used - skip);
	return 1;
}

const struct list_format page_chunks = {
	.header_bytes = sizeof(struct misc_message),
	.add = page_chunks_add,
	.finish = page_chunks_finish,
};
