/** How long, how large and how often: bounds of what a daemon can be asked for, and what holds where nothing is said. */
import { PAGE_SIZE } from '../memory/page.ts';

/** The target is 32 bits of 4 KiB pages in the device's configuration (VIRTIO 1.4, 5.5.4). */
export const TARGET_BYTES_MAX = (2 ** 32 - 1) * PAGE_SIZE;
/** An hour; a poll rarer than that is no poll. */
export const POLL_INTERVAL_MS_MAX = 3_600_000;
/** Longest that a request may ask a host to wait for a guest. */
export const GUEST_TIMEOUT_MS_MAX = 30_000;

/** How long a guest is waited for where nothing is said: one that is not busy answers within a millisecond, one that swaps
 * may take seconds. */
export const STATISTICS_TIMEOUT_MS = 5000;
/** Dropping a large page cache takes a guest a while. */
export const REQUEST_TIMEOUT_MS = 10_000;

/** A hint session that its caller does not end is ended after so long, unless its start said otherwise. */
export const HINT_LIMIT_MS = 60_000;
/** An hour: a guest is not to be without its free memory for longer. */
export const HINT_LIMIT_MS_MAX = 3_600_000;

/** An hour: longer, and a lease says nothing of a policy that is gone. */
export const LEASE_MS_MAX = 3_600_000;

/** How long a new process may take until it serves, unless the order says another time. */
export const UPGRADE_TIMEOUT_MS = 20_000;
