// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs of frames on their way to the device: they are collected, sorted and
 * joined, written into lists of the negotiated format, and waited for. Which
 * runs, and what becomes of them, is not known here.
 */
#include <linux/ktime.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/vmalloc.h>

#include "balloon.h"

/* What it could get is there also when it fails. */
int list_init(struct page_list *list, const struct list_format *format,
	      struct virtqueue *vq)
{
	unsigned int i, bitmaps = 0;

	list->format = format;
	list->header = kzalloc(HEADER_BYTES, GFP_KERNEL);
	list->data = kzalloc(LIST_BYTES, GFP_KERNEL);
	if (!list->header || !list->data)
		return -ENOMEM;
	/* Each is a descriptor, and so is the header. */
	if (format->has_bitmaps)
		bitmaps = min_t(unsigned int, BITMAPS_MAX,
				virtqueue_get_vring_size(vq) - 1);
	for (i = 0; i < bitmaps; i++) {
		list->bitmaps[i] = kzalloc(BITMAP_BYTES, GFP_KERNEL);
		/* Fewer only make its window smaller. */
		if (!list->bitmaps[i])
			break;
		list->bitmap_count++;
	}
	return format->has_bitmaps && !list->bitmap_count ? -ENOMEM : 0;
}

void list_free(struct page_list *list)
{
	unsigned int i;

	for (i = 0; i < list->bitmap_count; i++)
		kfree(list->bitmaps[i]);
	kfree(list->data);
	kfree(list->header);
}

void list_begin(struct page_list *list)
{
	list->used = 0;
	list->open = NULL;
	if (list->format->begin)
		list->format->begin(list);
}

int runs_init(struct run_set *set)
{
	set->runs = vmalloc_array(RUNS_MAX, sizeof(struct run));
	return set->runs ? 0 : -ENOMEM;
}

/* False when there is no room for another. */
bool runs_add(struct run_set *set, u64 pfn, u64 frames)
{
	if (set->count == RUNS_MAX)
		return false;
	set->runs[set->count].pfn = pfn;
	set->runs[set->count].frames = frames;
	set->count++;
	return true;
}

static int run_compare(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return x->pfn < y->pfn ? -1 : x->pfn > y->pfn;
}

/* Sorts the runs and joins those that touch. */
void runs_join(struct run_set *set)
{
	unsigned int i, last = 0;

	if (set->count < 2)
		return;
	sort(set->runs, set->count, sizeof(struct run), run_compare, NULL);
	for (i = 1; i < set->count; i++) {
		struct run *before = &set->runs[last];

		if (before->pfn + before->frames == set->runs[i].pfn)
			before->frames += set->runs[i].frames;
		else
			set->runs[++last] = set->runs[i];
	}
	set->count = last + 1;
}

void balloon_acked(struct virtqueue *vq)
{
	struct balloon *b = vq->vdev->priv;

	wake_up_all(&b->acked);
}

/* Waits for the one buffer that is in @vq. */
void balloon_wait(struct balloon *b, struct virtqueue *vq)
{
	unsigned int len;

	virtqueue_kick(vq);
	wait_event(b->acked,
		   virtqueue_get_buf(vq, &len) || virtqueue_is_broken(vq));
}

static void list_send(struct balloon *b, struct virtqueue *vq,
		      struct page_list *list, const struct answer *answer)
{
	unsigned int i, elements = list->format->finish(list, answer);
	ktime_t before;

	for (i = 0; i < elements; i++)
		cost[LIST_BYTES_SENT] += list->sg[i].length;
	/* The queue is empty and has room for the longest list. */
	if (!virtqueue_add_outbuf(vq, list->sg, elements, list, GFP_KERNEL)) {
		cost[BUFFERS]++;
		before = ktime_get();
		balloon_wait(b, vq);
		cost[WAIT_US] += ktime_us_delta(ktime_get(), before);
	}
	list_begin(list);
}

/*
 * Tells the device of all runs of @set, which is empty then. With an answer, a
 * last list says that it is done, be it one without pages.
 */
void balloon_tell(struct balloon *b, struct virtqueue *vq,
		  struct page_list *list, struct run_set *set,
		  struct answer *answer)
{
	static const struct answer none;
	ktime_t began = ktime_get();
	unsigned long waited = cost[WAIT_US];
	bool filled = false;
	unsigned int i;

	runs_join(set);
	list_begin(list);
	for (i = 0; i < set->count; i++) {
		struct run rest = set->runs[i];

		while (rest.frames) {
			u64 taken = list->format->add(list, rest.pfn,
						      rest.frames);

			if (!taken) {
				list_send(b, vq, list,
					  answer ? answer : &none);
				filled = false;
				continue;
			}
			filled = true;
			rest.pfn += taken;
			rest.frames -= taken;
		}
	}
	set->count = 0;
	if (answer)
		answer->done = true;
	if (filled || answer)
		list_send(b, vq, list, answer ? answer : &none);
	cost[LIST_US] += ktime_us_delta(ktime_get(), began) -
			 (cost[WAIT_US] - waited);
}
