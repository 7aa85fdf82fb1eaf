// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages that the guest does not use: a look at the allocator's free lists,
 * sessions of hints, and reports of isolated blocks.
 *
 * A host only skips what a session names, and its write log tells it when such
 * a page is used again, so pages need not be held for that: "named" sessions
 * (sg) hold none, "held" ones (the standard's) hold them until DONE.
 */
#include <linux/mmzone.h>
#include <linux/virtio_config.h>

#include "balloon.h"

#define HELD_FLAGS	(__GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC)
#define HELD_FRAMES	((u64)FRAMES_PER_PAGE << MAX_PAGE_ORDER)

static void zone_snapshot(struct zone *zone, struct run_set *set)
{
	unsigned long flags;
	struct page *page;
	int order, type;

	spin_lock_irqsave(&zone->lock, flags);
	for (order = MAX_PAGE_ORDER; order >= 0; order--)
		for (type = 0; type < MIGRATE_TYPES; type++)
			list_for_each_entry(page, &zone->free_area[order].free_list[type],
					    buddy_list)
				if (!runs_add(set, (u64)page_to_pfn(page) *
						   FRAMES_PER_PAGE,
					      FRAMES_PER_PAGE << order))
					goto full;
full:
	spin_unlock_irqrestore(&zone->lock, flags);
}

/* The free blocks of this moment, the largest where there are too many. */
void free_snapshot(struct run_set *set)
{
	int node, index;

	set->count = 0;
	for_each_online_node(node)
		for (index = 0; index < MAX_NR_ZONES; index++) {
			struct zone *zone = &NODE_DATA(node)->node_zones[index];

			if (populated_zone(zone))
				zone_snapshot(zone, set);
		}
	runs_join(set);
}

/* What the device shows: an id, STOP or DONE. */
static u32 hint_shown(struct balloon *b)
{
	u32 id;

	virtio_cread_le(b->vdev, struct virtio_balloon_config,
			free_page_hint_cmd_id, &id);
	return id;
}

/* Nothing waits for hints: a device may leave them until the next session. */
static void hint_drain(struct balloon *b)
{
	unsigned int len;

	while (virtqueue_get_buf(b->hint_vq, &len))
		;
}

static bool hint_has_room(struct balloon *b)
{
	hint_drain(b);
	return b->hint_vq->num_free > 1;
}

static void hint_say(struct balloon *b, __le32 *id)
{
	struct scatterlist sg;

	hint_drain(b);
	sg_init_one(&sg, id, sizeof(*id));
	/* One slot is kept for it. */
	if (virtqueue_add_outbuf(b->hint_vq, &sg, 1, id, GFP_KERNEL))
		dev_warn(&b->vdev->dev, "no room for a hint session's id\n");
	virtqueue_kick(b->hint_vq);
}

static bool hint_name(struct balloon *b, struct page *page, u64 frames)
{
	struct scatterlist sg;

	if (!hint_has_room(b)) {
		virtqueue_kick(b->hint_vq);
		if (!wait_event_timeout(b->acked, hint_has_room(b), HZ / 10))
			return false;
	}
	sg_init_table(&sg, 1);
	sg_set_page(&sg, page, frames << VIRTIO_BALLOON_PFN_SHIFT, 0);
	return !virtqueue_add_inbuf(b->hint_vq, &sg, 1, page, GFP_KERNEL);
}

static void hint_named(struct balloon *b, u32 id)
{
	unsigned int i;

	free_snapshot(&b->unused);
	for (i = 0; i < b->unused.count && hint_shown(b) == id; i++) {
		struct run rest = b->unused.runs[i];

		while (rest.frames) {
			u64 part = min_t(u64, rest.frames, STEP_FRAMES);

			if (!hint_name(b, pfn_to_page(rest.pfn / FRAMES_PER_PAGE),
				       part))
				return;
			rest.pfn += part;
			rest.frames -= part;
		}
	}
}

static void hint_held(struct balloon *b, u32 id)
{
	while (hint_shown(b) == id) {
		struct page *page = alloc_pages(HELD_FLAGS, MAX_PAGE_ORDER);

		if (!page)
			return;
		if (!hint_name(b, page, HELD_FRAMES)) {
			__free_pages(page, MAX_PAGE_ORDER);
			return;
		}
		spin_lock_irq(&b->held_lock);
		list_add(&page->lru, &b->held);
		spin_unlock_irq(&b->held_lock);
	}
}

/* Gives all blocks back that sessions hold; returns how many pages. */
unsigned long hint_release(struct balloon *b)
{
	struct page *page, *next;
	unsigned long pages = 0;
	LIST_HEAD(held);

	spin_lock_irq(&b->held_lock);
	list_splice_init(&b->held, &held);
	spin_unlock_irq(&b->held_lock);
	list_for_each_entry_safe(page, next, &held, lru) {
		list_del(&page->lru);
		__free_pages(page, MAX_PAGE_ORDER);
		pages += 1UL << MAX_PAGE_ORDER;
	}
	return pages;
}

void hint_work(struct work_struct *work)
{
	struct balloon *b = container_of(work, struct balloon, hint_work);
	bool held = b->generation->free_pages == FREE_HELD;
	u32 id = hint_shown(b);

	if (held && id == VIRTIO_BALLOON_CMD_ID_DONE)
		hint_release(b);
	if (id <= VIRTIO_BALLOON_CMD_ID_DONE || id == b->hint_shown)
		return;
	b->hint_shown = id;
	b->hint_id = cpu_to_le32(id);
	b->hint_stop = cpu_to_le32(VIRTIO_BALLOON_CMD_ID_STOP);
	hint_say(b, &b->hint_id);
	if (held)
		hint_held(b, id);
	else
		hint_named(b, id);
	hint_say(b, &b->hint_stop);
	/* What was shown meanwhile was told to a work item that ran. */
	if (hint_shown(b) != id)
		queue_work(system_freezable_wq, &b->hint_work);
}

/* Blocks that the kernel cannot use until the device returned them. */
static int report(struct page_reporting_dev_info *info, struct scatterlist *sg,
		  unsigned int nents)
{
	static const struct answer none;
	struct balloon *b = container_of(info, struct balloon, reporting);
	struct page_list *list = &b->report_list;
	struct scatterlist *block;
	unsigned int i;
	int err;

	if (b->generation->free_pages == FREE_HINTING) {
		list_begin(list);
		for_each_sg(sg, block, nents, i)
			list->format->add(list, (u64)page_to_pfn(sg_page(block)) *
						FRAMES_PER_PAGE,
					  block->length >> VIRTIO_BALLOON_PFN_SHIFT);
		list->format->finish(list, &none);
		err = virtqueue_add_outbuf(b->report_vq, list->sg, 1, list,
					   GFP_NOWAIT);
	} else {
		err = virtqueue_add_inbuf(b->report_vq, sg, nents, b,
					  GFP_NOWAIT);
	}
	if (err)
		return err;
	balloon_wait(b, b->report_vq);
	return 0;
}

/* The kernel reports to one device. */
void report_start(struct balloon *b)
{
	int err = -ENOSPC;

	b->reporting.order = PAGE_REPORTING_ORDER_UNSPECIFIED;
	b->reporting.report = report;
	if (virtqueue_get_vring_size(b->report_vq) >= PAGE_REPORTING_CAPACITY)
		err = page_reporting_register(&b->reporting);
	if (!err)
		return;
	b->reporting.report = NULL;
	dev_warn(&b->vdev->dev, "free pages are not reported: %d\n", err);
}

void report_stop(struct balloon *b)
{
	if (b->reporting.report)
		page_reporting_unregister(&b->reporting);
}
