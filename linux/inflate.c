// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is in the balloon: blocks of pages that are taken from the guest, given
 * to the device, and taken back, towards the target or out of need.
 */
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/oom.h>
#include <linux/virtio_config.h>

#include "balloon.h"

/* Linux tells of 256 pages at once, and gives as many back out of memory. */
#define PFNS_STEP_FRAMES	256

/* Only what is free is taken in blocks; pages may be reclaimed for it. */
#define BLOCK_FLAGS	((GFP_HIGHUSER & ~__GFP_RECLAIM) | __GFP_NOWARN | \
			 __GFP_NOMEMALLOC | __GFP_NORETRY)
#define PAGE_FLAGS	(GFP_HIGHUSER | __GFP_NOWARN | __GFP_NOMEMALLOC | \
			 __GFP_NORETRY)

static u64 step_frames(struct balloon *b)
{
	return b->format->names_runs ? STEP_FRAMES : PFNS_STEP_FRAMES;
}

static u64 block_frames(struct page *page)
{
	return FRAMES_PER_PAGE << page_private(page);
}

static u64 frame_of(struct page *page)
{
	return (u64)page_to_pfn(page) * FRAMES_PER_PAGE;
}

static void tell(struct balloon *b, struct virtqueue *vq)
{
	if (b->format == &sg_runs)
		sg_tell(b, vq, &b->moved);
	else
		balloon_tell(b, vq, &b->list, &b->moved, NULL);
}

/* Without DEFLATE_ON_OOM the guest counts the balloon as memory it has not. */
static void adjust_managed(struct balloon *b, struct page *page, int sign)
{
	if (!balloon_has(b, VIRTIO_BALLOON_F_DEFLATE_ON_OOM))
		adjust_managed_page_count(page, sign * (1L << page_private(page)));
}

/* Takes up to @frames, as large blocks as there are; returns how many. */
static u64 take_blocks(struct balloon *b, u64 frames)
{
	unsigned int order = b->format->names_runs ? MAX_PAGE_ORDER : 0;
	ktime_t began = ktime_get();
	u64 taken = 0;

	while (taken < frames && b->moved.count < RUNS_MAX) {
		struct page *page;

		while (order && (FRAMES_PER_PAGE << order) > frames - taken)
			order--;
		page = alloc_pages(order ? BLOCK_FLAGS : PAGE_FLAGS, order);
		if (!page && !order)
			break;
		if (!page) {
			order--;
			continue;
		}
		set_page_private(page, order);
		list_add(&page->lru, &b->blocks);
		adjust_managed(b, page, -1);
		runs_add(&b->moved, frame_of(page), block_frames(page));
		taken += block_frames(page);
	}
	cost[ALLOCATE_US] += ktime_us_delta(ktime_get(), began);
	return taken;
}

static u64 fill(struct balloon *b, u64 frames)
{
	u64 taken;

	mutex_lock(&b->lock);
	taken = take_blocks(b, min(frames, step_frames(b)));
	b->frames += taken;
	tell(b, b->inflate_vq);
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
	while (left && b->moved.count < RUNS_MAX) {
		page = list_first_entry(&b->blocks, struct page, lru);
		if (page_private(page) && block_frames(page) > left) {
			split_first(b);
			continue;
		}
		list_move(&page->lru, &leaked);
		runs_add(&b->moved, frame_of(page), block_frames(page));
		left -= min(left, block_frames(page));
		b->frames -= block_frames(page);
	}
	tell(b, b->deflate_vq);
	list_for_each_entry_safe(page, next, &leaked, lru) {
		unsigned int order = page_private(page);

		list_del(&page->lru);
		adjust_managed(b, page, 1);
		set_page_private(page, 0);
		__free_pages(page, order);
	}
	mutex_unlock(&b->lock);
	return frames - left;
}

static void tell_actual(struct balloon *b)
{
	u32 actual = b->frames;

	virtio_cwrite_le(b->vdev, struct virtio_balloon_config, actual,
			 &actual);
}

void balloon_size_work(struct work_struct *work)
{
	struct balloon *b = container_of(work, struct balloon, size_work);
	u64 target, moved;
	u32 pages;

	virtio_cread_le(b->vdev, struct virtio_balloon_config, num_pages,
			&pages);
	/* A kernel with larger pages cannot hit what is no multiple. */
	target = round_up((u64)pages, FRAMES_PER_PAGE);
	if (target == b->frames)
		return;
	if (target > b->frames)
		moved = fill(b, target - b->frames);
	else
		moved = leak(b, b->frames - target);
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

	if (!released) {
		released = leak(b, PFNS_STEP_FRAMES) / FRAMES_PER_PAGE;
		tell_actual(b);
	}
	*pages += released;
	return NOTIFY_OK;
}
