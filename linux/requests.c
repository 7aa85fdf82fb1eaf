// SPDX-License-Identifier: GPL-2.0-only
/*
 * The request queue (v3 to v10): one buffer is with the device, which fills in
 * what it wants and returns it; the answers are page lists on the same queue,
 * and then the buffer goes back. The buffer comes back unanswered where the
 * command is not known.
 */
#include <linux/err.h>
#include <linux/fs.h>

#include "balloon.h"

#define GET_UNUSED_PAGES	0
/* Wished for on the mailing list, and never built there. */
#define DROP_CACHE		0xa0
#define SHRINK			0xa1

void request_post(struct balloon *b)
{
	struct scatterlist sg;

	sg_init_one(&sg, b->request, REQUEST_BYTES);
	if (virtqueue_add_inbuf(b->request_vq, &sg, 1, b->request, GFP_KERNEL))
		dev_warn(&b->vdev->dev, "no room for a request\n");
	virtqueue_kick(b->request_vq);
}

/* "1" is the page cache, "2" what the shrinkers find. */
static void write_drop_caches(struct balloon *b, const char *what)
{
	struct file *file = filp_open("/proc/sys/vm/drop_caches", O_WRONLY, 0);
	loff_t pos = 0;

	if (IS_ERR(file)) {
		dev_warn(&b->vdev->dev, "caches cannot be dropped: %pe\n", file);
		return;
	}
	if (kernel_write(file, what, 1, &pos) != 1)
		dev_warn(&b->vdev->dev, "caches were not dropped\n");
	filp_close(file, NULL);
}

static void request_answer(struct balloon *b)
{
	struct answer answer = {
		.asked = true,
		.command = le16_to_cpup((__le16 *)b->request),
		.id = le64_to_cpup((__le64 *)(b->request + 8)),
	};

	b->unused.count = 0;
	switch (answer.command) {
	case GET_UNUSED_PAGES:
		free_snapshot(&b->unused);
		break;
	case DROP_CACHE:
		write_drop_caches(b, "1");
		break;
	case SHRINK:
		write_drop_caches(b, "2");
		free_snapshot(&b->unused);
		break;
	default:
		return;
	}
	balloon_tell(b, b->request_vq, &b->answer_list, &b->unused, &answer);
}

void request_work(struct work_struct *work)
{
	struct balloon *b = container_of(work, struct balloon, request_work);
	unsigned int len;

	/* An answer that came back interrupts, too, and was waited for. */
	if (!virtqueue_get_buf(b->request_vq, &len))
		return;
	if (len == REQUEST_BYTES)
		request_answer(b);
	request_post(b);
}
