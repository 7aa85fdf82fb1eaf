// SPDX-License-Identifier: GPL-2.0-only
/*
 * Scatter-gather (v18 to v21, 2017 and 2018): there is no list. Each run is an
 * in-buf of its own; a ring full of them is waited for together.
 */
#include "balloon.h"

/* Tells of all runs of @list, which are joined, and it has none then. */
void sg_tell(struct balloon *b, struct virtqueue *vq, struct page_list *list)
{
	ktime_t began = ktime_get();
	unsigned int i, out = 0;

	for (i = 0; i < list->run_count; i++) {
		if (!vq->num_free) {
			balloon_wait(b, vq, out);
			out = 0;
		}
		if (run_add_inbuf(vq, &list->runs[i]))
			break;
		out++;
		cost[BUFFERS]++;
	}
	list->run_count = 0;
	balloon_wait(b, vq, out);
	cost_add(WAIT_US, began);
}

const struct list_format sg_runs;
