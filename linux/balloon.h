/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A virtio balloon that speaks every ABI that was proposed for Linux from 2016
 * to 2019, and the standard's: what its files know of each other.
 */
#ifndef AEROSTAT_BALLOON_H
#define AEROSTAT_BALLOON_H

#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/page_reporting.h>
#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/virtio_balloon.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat.h"

/* A page frame of the ABI has 4 KiB, whatever the kernel's pages have. */
#define FRAMES_PER_PAGE		(PAGE_SIZE >> VIRTIO_BALLOON_PFN_SHIFT)

/* Bits of the proposals. Bits 3 and 4 mean something else in each. */
#define BALLOON_F_PAGE_LIST	3
#define BALLOON_F_FREE_PAGES	4
#define BALLOON_F_REPORTING	5

/* Runs that are collected before they are sorted, joined and sent. */
#define RUNS_MAX		16384
/* Frames of one step of the balloon, 1 GiB: "actual" is told after each. */
#define STEP_FRAMES		(1 << (30 - VIRTIO_BALLOON_PFN_SHIFT))

/* Room for the entries of one list: what the proposals' own drivers had. */
#define LIST_BYTES		32768
#define BITMAP_BYTES		32768
#define BITMAPS_MAX		32

/* Neighbouring frames. */
struct run {
	u64 pfn;
	u64 frames;
};

/* Runs that wait to be told, as many as @count. */
struct run_set {
	struct run *runs;
	unsigned int count;
};

/* What a list on the request queue belongs to; all 0 on other queues. */
struct answer {
	bool asked;
	u16 command;
	u64 id;
	bool done;
};

/* One page list on its way into a buffer. */
struct page_list {
	const struct list_format *format;
	/* Header and entries; linear, for the device reads it. */
	void *header;
	void *data;
	/* Bytes of @data that are used. */
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

#define HEADER_BYTES		32
/* Of all generations; a buffer that comes back shorter asks for nothing. */
#define REQUEST_BYTES		16

struct list_format {
	const char *name;
	/* Whether one entry can say a large block, so that blocks are taken. */
	bool names_runs;
	bool has_bitmaps;
	/* Makes an empty list, beyond what list_begin() does. */
	void (*begin)(struct page_list *list);
	/* Takes as many frames from @pfn on as fit; 0 when the list is full. */
	u64 (*add)(struct page_list *list, u64 pfn, u64 frames);
	/* Ends the list; returns how many elements of @list->sg it has. */
	unsigned int (*finish)(struct page_list *list,
			       const struct answer *answer);
};

extern const struct list_format pfn_array;
extern const struct list_format page_bitmap;
extern const struct list_format page_order;
extern const struct list_format page_range;
extern const struct list_format page_chunks;
extern const struct list_format address_or_order;
/* The buffer is the memory: it has no list, see sg_tell(). */
extern const struct list_format sg_runs;

/* The 8 bytes before the entries of page-order and page-range. */
struct response_header {
	u8 command;
	u8 flag;
	__le16 id;
	__le32 bytes;
} __packed;

unsigned int finish_response(struct page_list *list,
			     const struct answer *answer);

/* How the guest tells which pages it does not use. */
enum free_pages {
	/* Sessions of hints: blocks are held until DONE, or only named. */
	FREE_HELD,
	FREE_NAMED,
	/* Answers to requests, in the generation's own format. */
	FREE_REQUESTS,
	/* Isolated blocks on a queue of their own (bit 5). */
	FREE_HINTING,
};

struct generation {
	const char *name;
	/* A bit for each that it knows. */
	unsigned int features;
	/* Once BALLOON_F_PAGE_LIST is negotiated; NULL: page frame numbers. */
	const struct list_format *format;
	enum free_pages free_pages;
};

struct balloon {
	struct virtio_device *vdev;
	const struct generation *generation;
	const struct list_format *format;
	struct virtqueue *inflate_vq;
	struct virtqueue *deflate_vq;
	struct virtqueue *stats_vq;
	struct virtqueue *hint_vq;
	struct virtqueue *request_vq;
	struct virtqueue *report_vq;

	/* A queue of these returned something. */
	wait_queue_head_t acked;
	/* No work is begun any more. */
	bool stopping;
	spinlock_t stop_lock;	/* for stopping */

	/* What is in the balloon; its runs and list. */
	struct mutex lock;
	struct list_head blocks;
	u64 frames;
	struct run_set moved;
	struct page_list list;
	struct work_struct size_work;
	struct notifier_block oom;

	struct work_struct stats_work;
	struct virtio_balloon_stat stats[VIRTIO_BALLOON_S_NR];

	/* Free pages: sessions, requests, reports. */
	struct run_set unused;
	struct page_list answer_list;
	struct work_struct hint_work;
	struct list_head held;
	spinlock_t held_lock;	/* for held */
	u32 hint_shown;
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

/* What the balloons' steps took, for benchmarks. */
enum { ALLOCATE_US, LIST_US, WAIT_US, LIST_BYTES_SENT, BUFFERS, COSTS };
extern unsigned long cost[COSTS];

/* queues.c */
int list_init(struct page_list *list, const struct list_format *format,
	      struct virtqueue *vq);
void list_free(struct page_list *list);
void list_begin(struct page_list *list);
int runs_init(struct run_set *set);
bool runs_add(struct run_set *set, u64 pfn, u64 frames);
void runs_join(struct run_set *set);
void balloon_acked(struct virtqueue *vq);
void balloon_wait(struct balloon *b, struct virtqueue *vq);
void balloon_tell(struct balloon *b, struct virtqueue *vq,
		  struct page_list *list, struct run_set *set,
		  struct answer *answer);
void sg_tell(struct balloon *b, struct virtqueue *vq, struct run_set *set);

/* inflate.c */
void balloon_size_work(struct work_struct *work);
void balloon_empty(struct balloon *b);
int balloon_oom(struct notifier_block *nb, unsigned long unused, void *freed);

/* free.c */
void free_snapshot(struct run_set *set);
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
