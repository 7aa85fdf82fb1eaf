// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs of frames on their way to the device: they are collected, sorted and
 * joined, written into lists of the negotiated format, and waited for. Which
 * runs, and what becomes of them, is not known here.
 */
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/vmalloc.h>

#include "balloon.h"

/* What it could get is there also when it fails. */
int list_init(struct page_list *list, const struct list_format *format, struct virtqueue *vq)
{
	/* Each bitmap is a descriptor, and so is the header. */
	unsigned int max = min_t(unsigned int, BITMAPS_MAX,
				 virtqueue_get_vring_size(vq) - 1);

	list->format = format;
	list->runs = vmalloc_array(RUNS_MAX, sizeof(struct run));
	list->data = kzalloc(LIST_BYTES, GFP_KERNEL);
	if (!list->runs || !list->data)
		return -ENOMEM;
	if (format != &page_bitmap)
		return 0;
	for (; list->bitmap_count < max; list->bitmap_count++) {
		void *bitmap = kzalloc(BITMAP_BYTES, GFP_KERNEL);

		/* Fewer only make its window smaller. */
		if (!bitmap)
			break;
		list->bitmaps[list->bitmap_count] = bitmap;
	}
	return list->bitmap_count ? 0 : -ENOMEM;
}

void list_free(struct page_list *list)
{
	while (list->bitmap_count)
		kfree(list->bitmaps[--list->bitmap_count]);
	kfree(list->data);
	vfree(list->runs);
}

static void list_begin(struct page_list *list)
{
	list->used = list->format->header_bytes;
	list->open = NULL;
	list->start = 0;
	list->end = 0;
}

/* Of formats without a header. */
unsigned int list_finish(struct page_list *list)
{
	sg_init_one(list->sg, list->data, list->used);
	return 1;
}

/* False when there is no room for another. */
bool runs_add(struct page_list *list, struct page *page, unsigned int order)
{
	struct run *run = &list->runs[list->run_count];

	if (list->run_count == RUNS_MAX)
		return false;
	run->pfn = page_to_pfn(page);
	run->frames = 1ULL << order;
	list->run_count++;
	return true;
}

static int run_compare(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return x->pfn < y->pfn ? -1 : x->pfn > y->pfn;
}

/* Sorts the runs and joins those that touch. */
void runs_join(struct page_list *list)
{
	struct run *last = list->runs, *run;

	if (!list->run_count)
		return;
	sort(list->runs, list->run_count, sizeof(*run), run_compare, NULL);
	for (run = last + 1; run < list->runs + list->run_count; run++) {
		if (last->pfn + last->frames == run->pfn &&
		    last->frames + run->frames <= RUN_FRAMES_MAX)
			last->frames += run->frames;
		else
			*++last = *run;
	}
	list->run_count = last + 1 - list->runs;
}

/* The run is the buffer: sg, and hints. */
int run_add_inbuf(struct virtqueue *vq, struct run *run)
{
	struct scatterlist sg;

	sg_init_one(&sg, __va(PFN_PHYS(run->pfn)), PFN_PHYS(run->frames));
	return virtqueue_add_inbuf(vq, &sg, 1, vq, GFP_KERNEL);
}

void balloon_acked(struct virtqueue *vq)
{
	struct balloon *b = vq->vdev->priv;

	wake_up_all(&b->acked);
}

/* Waits for all buffers that are in @vq: @out of them. */
void balloon_wait(struct balloon *b, struct virtqueue *vq, unsigned int out)
{
	unsigned int len;

	virtqueue_kick(vq);
	while (out--)
		wait_event(b->acked, virtqueue_get_buf(vq, &len) ||
			   virtqueue_is_broken(vq));
}

/* Leaves a buffer with the device. There is a place for each that is posted. */
void buffer_post(struct virtqueue *vq, void *data, unsigned int bytes, bool device_writes)
{
	struct scatterlist sg;
	int err;

	sg_init_one(&sg, data, bytes);
	err = device_writes ? virtqueue_add_inbuf(vq, &sg, 1, data, GFP_KERNEL)
			    : virtqueue_add_outbuf(vq, &sg, 1, data, GFP_KERNEL);
	if (err)
		dev_warn(&vq->vdev->dev, "no room on queue %s\n", vq->name);
	virtqueue_kick(vq);
}

static void list_send(struct balloon *b, struct virtqueue *vq, struct page_list *list)
{
	unsigned int i, elements = list->format->finish(list);
	ktime_t before = ktime_get();

	for (i = 0; i < elements; i++)
		cost[LISTED_BYTES] += list->sg[i].length;
	cost[BUFFERS]++;
	/* The queue is empty and has room for the longest list. */
	if (!virtqueue_add_outbuf(vq, list->sg, elements, list, GFP_KERNEL))
		balloon_wait(b, vq, 1);
	cost_add(WAIT_US, before);
	list_begin(list);
}

/*
 * Tells the device of all runs of @list, which has none then. Where they answer
 * something, a last list says that it is done, be it one without pages.
 */
void balloon_tell(struct balloon *b, struct virtqueue *vq, struct page_list *list)
{
	ktime_t began = ktime_get();
	unsigned long waited = cost[WAIT_US];
	bool filled = false;
	struct run *run;

	runs_join(list);
	if (list->format == &sg_runs)
		return sg_tell(b, vq, list);
	list_begin(list);
	for (run = list->runs; run < list->runs + list->run_count; run++) {
		while (run->frames) {
			u64 taken = list->format->add(list, run->pfn,
						      run->frames);

			filled = taken;
			if (!filled)
				list_send(b, vq, list);
			run->pfn += taken;
			run->frames -= taken;
		}
	}
	list->run_count = 0;
	list->answer.done = list->answer.asked;
	if (filled || list->answer.asked)
		list_send(b, vq, list);
	cost[LIST_US] += ktime_us_delta(ktime_get(), began) -
			 (cost[WAIT_US] - waited);
}
