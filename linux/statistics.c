// SPDX-License-Identifier: GPL-2.0-only
/*
 * Statistics: a sample is with the device, and a new one goes there whenever it
 * gives the last one back (VIRTIO 1.4, 5.5.6.3).
 */
#include <linux/pfn.h>
#include <linux/swap.h>
#include <linux/vmstat.h>

#include "balloon.h"

static void stat_set(struct balloon *b, struct virtio_balloon_stat *stat,
		     u16 tag, u64 value)
{
	stat->tag = cpu_to_virtio16(b->vdev, tag);
	stat->val = cpu_to_virtio64(b->vdev, value);
}

void stats_post(struct balloon *b)
{
	struct virtio_balloon_stat *s = b->stats;
	unsigned long events[NR_VM_EVENT_ITEMS] = {};
	u64 caches = global_node_page_state(NR_FILE_PAGES);
	struct sysinfo info;

	si_meminfo(&info);
	all_vm_events(events);
	stat_set(b, s++, VIRTIO_BALLOON_S_SWAP_IN, PFN_PHYS(events[PSWPIN]));
	stat_set(b, s++, VIRTIO_BALLOON_S_SWAP_OUT, PFN_PHYS(events[PSWPOUT]));
	stat_set(b, s++, VIRTIO_BALLOON_S_MAJFLT, events[PGMAJFAULT]);
	stat_set(b, s++, VIRTIO_BALLOON_S_MINFLT, events[PGFAULT]);
	stat_set(b, s++, VIRTIO_BALLOON_S_OOM_KILL, events[OOM_KILL]);
	stat_set(b, s++, VIRTIO_BALLOON_S_MEMFREE, PFN_PHYS(info.freeram));
	stat_set(b, s++, VIRTIO_BALLOON_S_MEMTOT, PFN_PHYS(info.totalram));
	stat_set(b, s++, VIRTIO_BALLOON_S_AVAIL, PFN_PHYS(si_mem_available()));
	stat_set(b, s++, VIRTIO_BALLOON_S_CACHES, PFN_PHYS(caches));
	buffer_post(b->vqs[STATS], b->stats, (void *)s - (void *)b->stats, false);
}

void stats_work(struct work_struct *work)
{
	struct balloon *b = container_of(work, struct balloon, stats_work);
	unsigned int len;

	if (virtqueue_get_buf(b->vqs[STATS], &len))
		stats_post(b);
}
