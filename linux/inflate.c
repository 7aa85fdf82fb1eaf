// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is in the balloon: blocks of pages that are taken from the guest, given
 * to the device, and taken back, towards the target or out of need.
 */
#include <linux/delay.h>
#include <linux/oom.h>

#include "balloon.h"

/* Linux tells of 256 pages at once, and gives as many back out of memory. */
#define PFNS_STEP_FRAMES	256

/* Only what is free is taken in blocks; pages may be reclaimed for it. */
#define BLOCK_FLAGS	((GFP_HIGHUSER & ~__GFP_RECLAIM) | __GFP_NOWARN | \
			 __GFP_NOMEMALLOC | __GFP_NORETRY)
#define PAGE_FLAGS	(GFP_HIGHUSER | __GFP_NOWARN | __GFP_NOMEMALLOC | \
			 __GFP_NORETRY)

/* Whether one entry can say a large block. Linux takes page by page. */
static bool names_runs(struct balloon *b)
{
	return b->list.format != &pfn_array;
}

static u64 step_frames(struct balloon *b)
{
	return names_runs(b) ? STEP_FRAMES : PFNS_STEP_FRAMES;
}

static u64 block_frames(struct page *page)
{
	return 1ULL << page_private(page);
}

/* Takes up to @frames, as large blocks as there are; returns how many. */
static u64 take_blocks(struct balloon *b, u64 frames)
{
	int order = names_runs(b) ? MAX_PAGE_ORDER : 0;
	ktime_t began = ktime_get();
	u64 taken = 0;

	while (taken < frames && b->list.run_count < RUNS_MAX) {
		struct page *page;

		while (order && (1ULL << order) > frames - taken)
			order--;
		page = alloc_pages(order ? BLOCK_FLAGS : PAGE_FLAGS, order);
		if (!page && --order < 0)
			break;
		if (!page)
			continue;
		set_page_private(page, order);
		list_add(&page->lru, &b->blocks);
		runs_add(&b->list, page, order);
		taken += block_frames(page);
	}
	cost_add(ALLOCATE_US, began);
	return taken;
}

static u64 fill(struct balloon *b, u64 frames)
{
	u64 taken;

	mutex_lock(&b->lock);
	taken = take_blocks(b, min(frames, step_frames(b)));
	b->frames += taken;
	balloon_tell(b, b->vqs[INFLATE], &b->list);
	mutex_unlock(&b->lock);
	return taken;
}

/* Makes single pages of the first block, each with a reference of its own. */
static void split_first(struct balloon *b)
{
	struct page *page = list_first_entry(&b->blocks, struct page, lru);
	unsigned int i, order = page_private(page);

	list_del(&page->lru);
	split_page(page, order);
	for (i = 0; i < 1U << order; i++) {
		set_page_private(page + i, 0);
		list_add(&page[i].lru, &b->blocks);
	}
}

/* Takes up to @frames back; the device hears of them before they are used. */
static u64 leak(struct balloon *b, u64 frames)
{
	struct page *page, *next;
	LIST_HEAD(leaked);
	u64 left;

	mutex_lock(&b->lock);
	frames = min3(frames, b->frames, step_frames(b));
	left = frames;
	while (left && b->list.run_count < RUNS_MAX) {
		page = list_first_entry(&b->blocks, struct page, lru);
		if (page_private(page) && block_frames(page) > left) {
			split_first(b);
			continue;
		}
		list_move(&page->lru, &leaked);
		runs_add(&b->list, page, page_private(page));
		left -= min(left, block_frames(page));
		b->frames -= block_frames(page);
	}
	balloon_tell(b, b->vqs[DEFLATE], &b->list);
	list_for_each_entry_safe(page, next, &leaked, lru) {
		unsigned int order = page_private(page);

		list_del(&page->lru);
		set_page_private(page, 0);
		__free_pages(page, order);
	}
	mutex_unlock(&b->lock);
	return frames - left;
}

static void tell_actual(struct balloon *b)
{
	ktime_t began = ktime_get();
	u32 actual = b->frames;

	virtio_cwrite_le(b->vdev, struct virtio_balloon_config, actual, &actual);
	cost_add(CONFIG_US, began);
}

/*
 * After need. A transport may allocate to write; a notifier that did so would
 * wait for the memory that it is asked for, with the lock of the OOM killer.
 */
void balloon_actual_work(struct work_struct *work)
{
	tell_actual(container_of(work, struct balloon, actual_work));
}

void balloon_size_work(struct work_struct *work)
{
	struct balloon *b = container_of(work, struct balloon, size_work);
	ktime_t began = ktime_get();
	u64 moved;
	u32 target;

	virtio_cread_le(b->vdev, struct virtio_balloon_config, num_pages, &target);
	cost_add(CONFIG_US, began);
	if (target == b->frames)
		return;
	moved = target > b->frames ? fill(b, target - b->frames)
				   : leak(b, b->frames - target);
	tell_actual(b);
	/* The guest has no page to give now. */
	if (!moved)
		msleep(200);
	queue_work(system_freezable_wq, &b->size_work);
}

/* Takes all back. */
void balloon_empty(struct balloon *b)
{
	while (b->frames)
		leak(b, b->frames);
	tell_actual(b);
}

int balloon_oom(struct notifier_block *nb, unsigned long unused, void *freed)
{
	struct balloon *b = container_of(nb, struct balloon, oom);
	unsigned long *pages = freed;
	unsigned long released = hint_release(b);

	if (!released)
		released = leak(b, PFNS_STEP_FRAMES);
	if (released)
		queue_work(system_freezable_wq, &b->actual_work);
	*pages += released;
	return NOTIFY_OK;
}
