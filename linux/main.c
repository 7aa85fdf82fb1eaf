// SPDX-License-Identifier: GPL-2.0-only
/*
 * A balloon's device: which generation of the ABI it speaks, what of it was
 * negotiated, its queues, and its life. What the queues are for is elsewhere.
 */
#include <linux/module.h>
#include <linux/oom.h>
#include <linux/slab.h>
#include <uapi/linux/virtio_ring.h>

#include "balloon.h"

static char *generation[16] = { "virtio" };
static int generation_count = 1;
module_param_array(generation, charp, &generation_count, 0444);
MODULE_PARM_DESC(generation,
		 "ABI of each device, the last of all others: virtio, page-bitmap, page-order, page-range, page-chunks, sg, hinting");

unsigned long cost[COSTS];
module_param_array(cost, ulong, NULL, 0644);
MODULE_PARM_DESC(cost, "microseconds that allocating, listing, waiting and configuration took; bytes of lists; buffers");

/* Bits 0 to 2 are the same in all: MUST_TELL_HOST, STATS_VQ, DEFLATE_ON_OOM. */
#define PROPOSED	GENMASK(4, 0)
/* Without PAGE_POISON: what free pages hold is not told to the device. */
#define STANDARD	(GENMASK(3, 0) | BIT(BALLOON_F_REPORTING))
#define HINTING		(GENMASK(2, 0) | BIT(BALLOON_F_REPORTING))

static const struct generation generations[] = {
	{ "virtio", STANDARD, &pfn_array, FREE_HELD, VIRTIO_BALLOON_F_FREE_PAGE_HINT },
	{ "page-bitmap", PROPOSED, &page_bitmap, FREE_REQUESTS, BALLOON_F_FREE_PAGES },
	{ "page-order", PROPOSED, &page_order, FREE_REQUESTS, BALLOON_F_FREE_PAGES },
	{ "page-range", PROPOSED, &page_range, FREE_REQUESTS, BALLOON_F_FREE_PAGES },
	{ "page-chunks", PROPOSED, &page_chunks, FREE_REQUESTS, BALLOON_F_FREE_PAGES },
	{ "sg", PROPOSED, &sg_runs, FREE_NAMED, BALLOON_F_FREE_PAGES },
	{ "hinting", HINTING, &pfn_array, FREE_HINTING, BALLOON_F_REPORTING },
};

static const struct generation *generation_of(struct virtio_device *vdev)
{
	int at = min_t(int, vdev->index, generation_count - 1);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(generations); i++)
		if (!strcmp(generation[at], generations[i].name))
			return &generations[i];
	dev_err(&vdev->dev, "no generation is called %s\n", generation[at]);
	return NULL;
}

static void queue_unless_stopping(struct balloon *b, struct work_struct *work)
{
	unsigned long flags;

	spin_lock_irqsave(&b->stop_lock, flags);
	if (!b->stopping)
		queue_work(system_freezable_wq, work);
	spin_unlock_irqrestore(&b->stop_lock, flags);
}

static void stats_returned(struct virtqueue *vq)
{
	struct balloon *b = vq->vdev->priv;

	queue_unless_stopping(b, &b->stats_work);
}

static void request_returned(struct virtqueue *vq)
{
	struct balloon *b = vq->vdev->priv;

	balloon_acked(vq);
	queue_unless_stopping(b, &b->request_work);
}

static void balloon_changed(struct virtio_device *vdev)
{
	struct balloon *b = vdev->priv;

	queue_unless_stopping(b, &b->size_work);
	if (b->vqs[HINT])
		queue_unless_stopping(b, &b->hint_work);
}

/* Queues that were not negotiated have no number. */
static int find_queues(struct balloon *b)
{
	enum free_pages kind = b->generation->free_pages;
	bool free = balloon_has(b, b->generation->free_pages_bit);
	vq_callback_t *callbacks[] = {
		balloon_acked, balloon_acked, stats_returned,
		balloon_acked, request_returned, balloon_acked,
	};
	const char *names[QUEUES] = { "inflate", "deflate" };
	struct virtqueue *vqs[QUEUES];
	const char *dense[QUEUES];
	unsigned int i, n = 0;
	int err;

	if (balloon_has(b, VIRTIO_BALLOON_F_STATS_VQ))
		names[STATS] = "stats";
	if (free && kind == FREE_REQUESTS)
		names[REQUEST] = "request";
	else if (free && kind != FREE_HINTING)
		names[HINT] = "hint";
	if (balloon_has(b, BALLOON_F_REPORTING))
		names[REPORT] = "reporting";
	for (i = 0; i < QUEUES; i++) {
		if (!names[i])
			continue;
		callbacks[n] = callbacks[i];
		dense[n++] = names[i];
	}
	err = compat_find_vqs(b->vdev, n, vqs, callbacks, dense);
	for (i = QUEUES; i-- && !err;)
		if (names[i])
			b->vqs[i] = vqs[--n];
	return err;
}

static int make_lists(struct balloon *b)
{
	const struct list_format *own = b->generation->format;
	bool has_own = balloon_has(b, BALLOON_F_PAGE_LIST);
	int err;

	err = list_init(&b->list, has_own ? own : &pfn_array, b->vqs[INFLATE]);
	if (!err && b->vqs[REQUEST])
		err = list_init(&b->unused, own, b->vqs[REQUEST]);
	if (!err && b->vqs[HINT])
		err = list_init(&b->unused, &sg_runs, b->vqs[HINT]);
	if (!err && b->vqs[REPORT])
		err = list_init(&b->report_list, &address_or_order, b->vqs[REPORT]);
	return err;
}

/* After the device was reset, or could not be started. */
static void balloon_free(struct balloon *b)
{
	b->vdev->config->del_vqs(b->vdev);
	list_free(&b->report_list);
	list_free(&b->unused);
	list_free(&b->list);
	kfree(b);
}

static void balloon_init(struct balloon *b, struct virtio_device *vdev)
{
	vdev->priv = b;
	b->vdev = vdev;
	b->generation = generation_of(vdev);
	mutex_init(&b->lock);
	spin_lock_init(&b->stop_lock);
	spin_lock_init(&b->held_lock);
	init_waitqueue_head(&b->acked);
	INIT_LIST_HEAD(&b->blocks);
	INIT_LIST_HEAD(&b->held);
	INIT_WORK(&b->size_work, balloon_size_work);
	INIT_WORK(&b->actual_work, balloon_actual_work);
	INIT_WORK(&b->stats_work, stats_work);
	INIT_WORK(&b->hint_work, hint_work);
	INIT_WORK(&b->request_work, request_work);
	b->oom.notifier_call = balloon_oom;
}

static int balloon_probe(struct virtio_device *vdev)
{
	struct balloon *b = kzalloc(sizeof(*b), GFP_KERNEL);
	int err;

	if (!b)
		return -ENOMEM;
	balloon_init(b, vdev);
	err = find_queues(b) ?: make_lists(b);
	if (err) {
		balloon_free(b);
		return err;
	}
	virtio_device_ready(vdev);
	if (balloon_has(b, VIRTIO_BALLOON_F_DEFLATE_ON_OOM))
		register_oom_notifier(&b->oom);
	if (b->vqs[STATS])
		stats_post(b);
	if (b->vqs[REQUEST])
		request_post(b);
	if (b->vqs[REPORT])
		report_start(b);
	balloon_changed(vdev);
	dev_info(&vdev->dev, "speaks %s\n", b->generation->name);
	return 0;
}

static void balloon_remove(struct virtio_device *vdev)
{
	struct balloon *b = vdev->priv;

	report_stop(b);
	if (balloon_has(b, VIRTIO_BALLOON_F_DEFLATE_ON_OOM))
		unregister_oom_notifier(&b->oom);
	spin_lock_irq(&b->stop_lock);
	b->stopping = true;
	spin_unlock_irq(&b->stop_lock);
	cancel_work_sync(&b->size_work);
	cancel_work_sync(&b->actual_work);
	cancel_work_sync(&b->stats_work);
	cancel_work_sync(&b->hint_work);
	cancel_work_sync(&b->request_work);
	balloon_empty(b);
	hint_release(b);
	virtio_reset_device(vdev);
	balloon_free(b);
}

static unsigned int features[] = { 0, 1, 2, 3, 4, 5 };

static int balloon_validate(struct virtio_device *vdev)
{
	const struct generation *own = generation_of(vdev);
	unsigned int i;

	if (!own)
		return -EINVAL;
	/* Bits mean something else in other generations. */
	for (i = 0; i < ARRAY_SIZE(features); i++)
		if (!(own->features & BIT(features[i])))
			__virtio_clear_bit(vdev, features[i]);
	/* The device would change what free pages hold. */
	if (want_init_on_free() || page_poisoning_enabled_static())
		__virtio_clear_bit(vdev, BALLOON_F_REPORTING);
	/* A table of descriptors would have to be allocated for each list. */
	__virtio_clear_bit(vdev, VIRTIO_RING_F_INDIRECT_DESC);
	/* Page frames are guest physical addresses. */
	__virtio_clear_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);
	return 0;
}

static const struct virtio_device_id id_table[] = {
	{ VIRTIO_ID_BALLOON, VIRTIO_DEV_ANY_ID },
	{ 0 },
};

static struct virtio_driver balloon_driver = {
	.driver.name = KBUILD_MODNAME,
	.id_table = id_table,
	.feature_table = features,
	.feature_table_size = ARRAY_SIZE(features),
	.validate = balloon_validate,
	.probe = balloon_probe,
	.remove = balloon_remove,
	.config_changed = balloon_changed,
};
module_virtio_driver(balloon_driver);

MODULE_DEVICE_TABLE(virtio, id_table);
MODULE_DESCRIPTION("Virtio balloon that speaks every ABI proposed from 2016 to 2019");
MODULE_LICENSE("GPL");
