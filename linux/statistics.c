// SPDX-License-Identifier: GPL-2.0-only
/*
 * Statistics: a sample is with the device, and a new one goes there whenever it
 * gives the last one back (VIRTIO 1.4, 5.5.6.3).
 */
#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/vmstat.h>

#include "balloon.h"

static void stat_add(struct balloon *b, unsigned int *count, u16 tag, u64 value)
{
	b->stats[*count].tag = cpu_to_virtio16(b->vdev, tag);
	b->stats[*count].val = cpu_to_virtio64(b->vdev, value);
	(*count)++;
}

static u64 bytes_of(u64 pages)
{
	return pages << PAGE_SHIFT;
}

static void stat_events(struct balloon *b, unsigned int *count)
{
#ifdef CONFIG_VM_EVENT_COUNTERS
	unsigned long events[NR_VM_EVENT_ITEMS];

	all_vm_events(events);
	stat_add(b, count, VIRTIO_BALLOON_S_SWAP_IN, bytes_of(events[PSWPIN]));
	stat_add(b, count, VIRTIO_BALLOON_S_SWAP_OUT,
		 bytes_of(events[PSWPOUT]));
	stat_add(b, count, VIRTIO_BALLOON_S_MAJFLT, events[PGMAJFAULT]);
	stat_add(b, count, VIRTIO_BALLOON_S_MINFLT, events[PGFAULT]);
#ifdef VIRTIO_BALLOON_S_OOM_KILL
	stat_add(b, count, VIRTIO_BALLOON_S_OOM_KILL, events[OOM_KILL]);
#endif
#endif
}

void stats_post(struct balloon *b)
{
	struct scatterlist sg;
	struct sysinfo info;
	unsigned int count = 0;

	si_meminfo(&info);
	stat_events(b, &count);
	stat_add(b, &count, VIRTIO_BALLOON_S_MEMFREE, bytes_of(info.freeram));
	stat_add(b, &count, VIRTIO_BALLOON_S_MEMTOT, bytes_of(info.totalram));
	stat_add(b, &count, VIRTIO_BALLOON_S_AVAIL,
		 bytes_of(si_mem_available()));
	stat_add(b, &count, VIRTIO_BALLOON_S_CACHES,
		 bytes_of(global_node_page_state(NR_FILE_PAGES)));
	sg_init_one(&sg, b->stats, count * sizeof(b->stats[0]));
	if (virtqueue_add_outbuf(b->stats_vq, &sg, 1, b, GFP_KERNEL))
		dev_warn(&b->vdev->dev, "no room for statistics\n");
	virtqueue_kick(b->stats_vq);
}

void stats_work(struct work_struct *work)
{
	struct balloon *b = container_of(work, struct balloon, stats_work);
	unsigned int len;

	if (virtqueue_get_buf(b->stats_vq, &len))
		stats_post(b);
}
