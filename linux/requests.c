// SPDX-License-Identifier: GPL-2.0-only
/*
 * The request queue (v3 to v10): one buffer is with the device, which fills in
 * what it wants and returns it; the answers are page lists on the same queue,
 * none where the command is not known, and then the buffer goes back.
 */
#include <linux/fs.h>

#include "balloon.h"

#define GET_UNUSED_PAGES	0
/* Wished for on the mailing list, and never built there. */
#define DROP_CACHE		0xa0
#define SHRINK			0xa1

void request_post(struct balloon *b)
{
	buffer_post(b->vqs[REQUEST], b->request, REQUEST_BYTES, true);
}

/* "1" is the page cache, "2" what the shrinkers find. */
static void write_drop_caches(struct balloon *b, const char *what)
{
	struct file *file = filp_open("/proc/sys/vm/drop_caches", O_WRONLY, 0);
	loff_t pos = 0;

	if (IS_ERR(file) || kernel_write(file, what, 1, &pos) != 1)
		dev_warn(&b->vdev->dev, "caches were not dropped\n");
	if (!IS_ERR(file))
		filp_close(file, NULL);
}

static void request_answer(struct balloon *b)
{
	struct page_list *list = &b->unused;

	list->run_count = 0;
	list->answer = (struct answer) {
		.asked = true,
		.command = le16_to_cpup((__le16 *)b->request),
		.id = le64_to_cpup((__le64 *)(b->request + 8)),
	};
	switch (list->answer.command) {
	case DROP_CACHE:
		write_drop_caches(b, "1");
		break;
	case SHRINK:
		write_drop_caches(b, "2");
		fallthrough;
	case GET_UNUSED_PAGES:
		free_snapshot(list);
		break;
	default:
		return;
	}
	balloon_tell(b, b->vqs[REQUEST], list);
}

void request_work(struct work_struct *work)
{
	struct balloon *b = container_of(work, struct balloon, request_work);
	unsigned int len;

	/* An answer that came back interrupts, too, and was waited for. */
	if (!virtqueue_get_buf(b->vqs[REQUEST], &len))
		return;
	if (len == REQUEST_BYTES)
		request_answer(b);
	request_post(b);
}
