// SPDX-License-Identifier: GPL-2.0-only
/*
 * Scatter-gather (v18 to v21, 2017 and 2018): there is no list. Each run is an
 * in-buf of its own; buffers are added until the ring is full, and are waited
 * for together. Hints of free pages have the same shape.
 */
#include <linux/ktime.h>

#include "balloon.h"

/* A descriptor's length has 32 bits. */
#define RUN_FRAMES_MAX	(1ULL << (31 - VIRTIO_BALLOON_PFN_SHIFT))

/* Waits until the device returned @out buffers. */
static void collect(struct balloon *b, struct virtqueue *vq, unsigned int out)
{
	unsigned int len;

	virtqueue_kick(vq);
	while (out--)
		wait_event(b->acked, virtqueue_get_buf(vq, &len) ||
			   virtqueue_is_broken(vq));
}

/* Tells of all runs of @set, which is empty then. */
void sg_tell(struct balloon *b, struct virtqueue *vq, struct run_set *set)
{
	unsigned int i, out = 0;
	ktime_t began;

	runs_join(set);
	began = ktime_get();
	for (i = 0; i < set->count; i++) {
		struct run rest = set->runs[i];

		while (rest.frames && !virtqueue_is_broken(vq)) {
			u64 part = min_t(u64, rest.frames, RUN_FRAMES_MAX);
			struct scatterlist sg;

			if (!vq->num_free) {
				collect(b, vq, out);
				out = 0;
			}
			sg_init_table(&sg, 1);
			sg_set_page(&sg, pfn_to_page(rest.pfn / FRAMES_PER_PAGE),
				    part << VIRTIO_BALLOON_PFN_SHIFT, 0);
			if (virtqueue_add_inbuf(vq, &sg, 1, set, GFP_KERNEL))
				break;
			out++;
			cost[BUFFERS]++;
			rest.pfn += part;
			rest.frames -= part;
		}
	}
	set->count = 0;
	collect(b, vq, out);
	cost[WAIT_US] += ktime_us_delta(ktime_get(), began);
}

const struct list_format sg_runs = {
	.name = "sg",
	.names_runs = true,
};
