/** Time for migrations over real networks: the kernel's monotonic clock, which all threads share. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../migration/machine.ts';
import { monotonicMs } from '../sys/poll.ts';

/** The longest that Node's timers can be set to; beyond it they go off at once. */
const SLEEP_MS_MAX = 2 ** 31 - 1;

export const systemClock: Clock = {
  nowMs: monotonicMs,
  sleep: (delayMs, signal) =>
    // Aborted is as good as over.
    delay(Math.min(delayMs, SLEEP_MS_MAX), undefined, signal === undefined ? {} : { signal }).catch(() => {}),
};
