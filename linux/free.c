// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages that the guest does not use: a look at the allocator's free lists,
 * sessions of hints, and reports of isolated blocks. A host only skips what a
 * session names, and its write log has what is used again: "named" sessions
 * (sg) hold no pages, "held" ones (the standard's) hold them until DONE.
 */
#include "balloon.h"

#define HELD_FLAGS	(__GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC)

static void zone_snapshot(struct zone *zone, struct page_list *list)
{
	unsigned long flags;
	struct page *page;
	int order, type;

	spin_lock_irqsave(&zone->lock, flags);
	for (order = MAX_PAGE_ORDER; order >= 0; order--)
		for (type = 0; type < MIGRATE_TYPES; type++)
			list_for_each_entry(page, &zone->free_area[order].free_list[type],
					    buddy_list)
				if (!runs_add(list, page, order))
					goto full;
full:
	spin_unlock_irqrestore(&zone->lock, flags);
}

/* The free blocks of this moment, the largest where there are too many. */
void free_snapshot(struct page_list *list)
{
	int node, index;

	list->run_count = 0;
	for_each_online_node(node)
		for (index = 0; index < MAX_NR_ZONES; index++) {
			struct zone *zone = &NODE_DATA(node)->node_zones[index];

			if (populated_zone(zone))
				zone_snapshot(zone, list);
		}
	runs_join(list);
}

/* What the device shows: an id, STOP or DONE. */
static u32 hint_shown(struct balloon *b)
{
	u32 id;

	virtio_cread_le(b->vdev, struct virtio_balloon_config,
			free_page_hint_cmd_id, &id);
	return id;
}

/*
 * Takes back what the device returned, which may leave hints until the next
 * session. One place is kept for STOP.
 */
static bool hint_has_room(struct balloon *b)
{
	unsigned int len;

	while (virtqueue_get_buf(b->vqs[HINT], &len))
		;
	return b->vqs[HINT]->num_free > 1;
}

static void hint_say(struct balloon *b, __le32 *id)
{
	hint_has_room(b);
	buffer_post(b->vqs[HINT], id, sizeof(*id), false);
}

static bool hint_name(struct balloon *b, struct run *run)
{
	if (!hint_has_room(b)) {
		virtqueue_kick(b->vqs[HINT]);
		if (!wait_event_timeout(b->acked, hint_has_room(b), HZ / 10))
			return false;
	}
	return !run_add_inbuf(b->vqs[HINT], run);
}

static void hint_named(struct balloon *b, u32 id)
{
	unsigned int i;

	free_snapshot(&b->unused);
	for (i = 0; i < b->unused.run_count && hint_shown(b) == id; i++)
		if (!hint_name(b, &b->unused.runs[i]))
			return;
}

static void hint_held(struct balloon *b, u32 id)
{
	while (hint_shown(b) == id) {
		struct page *page = alloc_pages(HELD_FLAGS, MAX_PAGE_ORDER);
		struct run run = { .frames = 1ULL << MAX_PAGE_ORDER };

		if (!page)
			return;
		run.pfn = page_to_pfn(page);
		if (!hint_name(b, &run)) {
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
	if (id <= VIRTIO_BALLOON_CMD_ID_DONE || id == le32_to_cpu(b->hint_id))
		return;
	b->hint_id = cpu_to_le32(id);
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
	struct balloon *b = container_of(info, struct balloon, reporting);
	struct scatterlist *block;
	unsigned int i;
	int err;

	if (b->generation->free_pages == FREE_HINTING) {
		for_each_sg(sg, block, nents, i)
			runs_add(&b->report_list, sg_page(block),
				 get_order(block->length));
		balloon_tell(b, b->vqs[REPORT], &b->report_list);
		return 0;
	}
	err = virtqueue_add_inbuf(b->vqs[REPORT], sg, nents, b, GFP_NOWAIT);
	if (!err)
		balloon_wait(b, b->vqs[REPORT], 1);
	return err;
}

/* The kernel reports to one device. */
void report_start(struct balloon *b)
{
	unsigned int size = virtqueue_get_vring_size(b->vqs[REPORT]);

	b->reporting.order = PAGE_REPORTING_ORDER_UNSPECIFIED;
	b->reporting.report = report;
	if (size >= PAGE_REPORTING_CAPACITY &&
	    !page_reporting_register(&b->reporting))
		return;
	b->reporting.report = NULL;
	dev_warn(&b->vdev->dev, "free pages are not reported\n");
}

void report_stop(struct balloon *b)
{
	if (b->reporting.report)
		page_reporting_unregister(&b->reporting);
}
