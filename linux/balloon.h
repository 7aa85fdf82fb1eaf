/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A virtio balloon that speaks every ABI that was proposed for Linux from 2016
 * to 2019, and the standard's: what its files know of each other.
 */
#ifndef AEROSTAT_BALLOON_H
#define AEROSTAT_BALLOON_H

#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/page_reporting.h>
#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat.h"

/* A frame of the ABI has 4 KiB; here a page is one. */
static_assert(PAGE_SHIFT == VIRTIO_BALLOON_PFN_SHIFT);

/* Bits of the proposals. Bits 3 and 4 mean something else in each. */
#define BALLOON_F_PAGE_LIST	3
#define BALLOON_F_FREE_PAGES	4
#define BALLOON_F_REPORTING	5

/* Runs that are collected before they are sorted, joined and sent. */
#define RUNS_MAX		16384
/* Frames of one run, 2 GiB: a descriptor's length has 32 bits. */
#define RUN_FRAMES_MAX		(1ULL << (31 - PAGE_SHIFT))
/* Frames of one step of the balloon, 1 GiB: "actual" is told after each. */
#define STEP_FRAMES		(1 << (30 - PAGE_SHIFT))

/* Room for one list: what the proposals' own drivers had. */
#define LIST_BYTES		32768
#define BITMAP_BYTES		32768
#define BITMAPS_MAX		32
/* A request of any generation; one that comes back shorter asks for nothing. */
#define REQUEST_BYTES		16

/* Neighbouring frames. */
struct run {
	u64 pfn;
	u64 frames;
};

/* What a list on the request queue belongs to; all 0 on other queues. */
struct answer {
	bool asked;
	u16 command;
	u64 id;
	bool done;
};

/* Runs that are to be told, and the list in which they are written. */
struct page_list {
	const struct list_format *format;
	struct run *runs;
	unsigned int run_count;
	struct answer answer;
	/* Header and entries, and how many bytes of it are used. */
	void *data;
	unsigned int used;
	/* page-order: the bitmap that is open, and its first frame. */
	__le64 *open;
	u64 open_pfn;
	/* page-bitmap: the window of frames, and its pieces of BITMAP_BYTES. */
	u64 start;
	u64 end;
	unsigned int bitmap_count;
	void *bitmaps[BITMAPS_MAX];
	struct scatterlist sg[BITMAPS_MAX + 1];
};

struct list_format {
	unsigned int header_bytes;
	/* Takes as many frames from @pfn on as fit; 0 when the list is full. */
	u64 (*add)(struct page_list *list, u64 pfn, u64 frames);
	/* Ends the list; returns how many elements of @list->sg it has. */
	unsigned int (*finish)(struct page_list *list);
};

extern const struct list_format pfn_array, page_bitmap, page_order, page_range,
				page_chunks, address_or_order;
/* The buffer is the memory: it has no list, see sg_tell(). */
extern const struct list_format sg_runs;

/* How the guest tells which pages it does not use. */
enum free_pages {
	FREE_HELD,	/* sessions of hints that hold blocks until DONE */
	FREE_NAMED,	/* sessions that only name them */
	FREE_REQUESTS,	/* answers to requests, in the generation's format */
	FREE_HINTING,	/* isolated blocks on a queue of their own */
};

struct generation {
	const char *name;
	/* A bit for each that it knows. */
	unsigned int features;
	/* Once BALLOON_F_PAGE_LIST is negotiated; before: page frame numbers. */
	const struct list_format *format;
	enum free_pages free_pages;
	unsigned int free_pages_bit;
};

enum { INFLATE, DEFLATE, STATS, HINT, REQUEST, REPORT, QUEUES };

struct balloon {
	struct virtio_device *vdev;
	const struct generation *generation;
	/* NULL where its feature was not negotiated. */
	struct virtqueue *vqs[QUEUES];
	/* A queue returned something. */
	wait_queue_head_t acked;
	/* No work is begun any more. */
	bool stopping;
	spinlock_t stop_lock;	/* for stopping */

	struct mutex lock;	/* for what is in the balloon, and its list */
	struct list_head blocks;
	u64 frames;
	struct page_list list;
	struct work_struct size_work;
	struct work_struct actual_work;
	struct notifier_block oom;

	struct work_struct stats_work;
	struct virtio_balloon_stat stats[VIRTIO_BALLOON_S_NR];

	/* Free pages: sessions, requests, reports. */
	struct page_list unused;
	struct work_struct hint_work;
	struct list_head held;
	spinlock_t held_lock;	/* for held */
	__le32 hint_id;
	__le32 hint_stop;
	struct work_struct request_work;
	u8 request[REQUEST_BYTES];
	struct page_reporting_dev_info reporting;
	struct page_list report_list;
};

static inline bool balloon_has(struct balloon *b, unsigned int bit)
{
	return virtio_has_feature(b->vdev, bit);
}

/* The order of the largest aligned block at @pfn, at most @frames. */
static inline unsigned int block_order(u64 pfn, u64 frames)
{
	return min_t(unsigned int, ilog2(frames), pfn ? __ffs64(pfn) : 30);
}

/* What the balloons' steps took, for benchmarks. */
enum { ALLOCATE_US, LIST_US, WAIT_US, CONFIG_US, LISTED_BYTES, BUFFERS, COSTS };
extern unsigned long cost[COSTS];

static inline void cost_add(unsigned int step, ktime_t began)
{
	cost[step] += ktime_us_delta(ktime_get(), began);
}

/* queues.c */
int list_init(struct page_list *list, const struct list_format *format, struct virtqueue *vq);
void list_free(struct page_list *list);
unsigned int list_finish(struct page_list *list);
bool runs_add(struct page_list *list, struct page *page, unsigned int order);
void runs_join(struct page_list *list);
int run_add_inbuf(struct virtqueue *vq, struct run *run);
void balloon_acked(struct virtqueue *vq);
void balloon_wait(struct balloon *b, struct virtqueue *vq, unsigned int out);
void buffer_post(struct virtqueue *vq, void *data, unsigned int bytes, bool device_writes);
void balloon_tell(struct balloon *b, struct virtqueue *vq, struct page_list *list);

/* lists/ */
unsigned int finish_response(struct page_list *list);
void sg_tell(struct balloon *b, struct virtqueue *vq, struct page_list *list);

/* inflate.c */
void balloon_size_work(struct work_struct *work);
void balloon_actual_work(struct work_struct *work);
void balloon_empty(struct balloon *b);
int balloon_oom(struct notifier_block *nb, unsigned long unused, void *freed);

/* free.c */
void free_snapshot(struct page_list *list);
void hint_work(struct work_struct *work);
unsigned long hint_release(struct balloon *b);
void report_start(struct balloon *b);
void report_stop(struct balloon *b);

/* requests.c */
void request_post(struct balloon *b);
void request_work(struct work_struct *work);

/* statistics.c */
void stats_post(struct balloon *b);
void stats_work(struct work_struct *work);

#endif
