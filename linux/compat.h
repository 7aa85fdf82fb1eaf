/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between Linux 6.1, 6.12 and 7.2, as far as this module uses it.
 */
#ifndef AEROSTAT_COMPAT_H
#define AEROSTAT_COMPAT_H

#include <linux/mmzone.h>
#include <linux/version.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>

/* MAX_ORDER was one more, before it had another name. */
#ifndef MAX_PAGE_ORDER
#define MAX_PAGE_ORDER (MAX_ORDER - 1)
#endif

/* Since 6.12; a device takes tags that it does not know. */
#ifndef VIRTIO_BALLOON_S_OOM_KILL
#define VIRTIO_BALLOON_S_OOM_KILL 10
#endif

/* 0 meant the default until it became an order like any other. */
#ifndef PAGE_REPORTING_ORDER_UNSPECIFIED
#define PAGE_REPORTING_ORDER_UNSPECIFIED 0
#endif

/* Finds @n queues, which all have a name. */
static inline int compat_find_vqs(struct virtio_device *vdev, unsigned int n,
				  struct virtqueue **vqs, vq_callback_t **callbacks,
				  const char **names)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
	return virtio_find_vqs(vdev, n, vqs, callbacks, (const char * const *)names, NULL);
#else
	struct virtqueue_info info[8] = {};
	unsigned int i;

	for (i = 0; i < n && i < ARRAY_SIZE(info); i++) {
		info[i].callback = callbacks[i];
		info[i].name = names[i];
	}
	return virtio_find_vqs(vdev, i, vqs, info, NULL);
#endif
}

#endif
