/** Time for migrations over real networks: the kernel's monotonic clock, which all threads share. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../migration/machine.ts';
import { monotonicMs } from '../sys/poll.ts';

export const systemClock: Clock = {
  nowMs: monotonicMs,
  sleep: (delayMs, signal) =>
    // Aborted is as good as over.
    delay(delayMs, undefined, signal === undefined ? {} : { signal }).catch(() => {}),
};
