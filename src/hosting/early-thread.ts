/** Where the program of data-plane threads is and how large its heap may become, and one that is started early. */
import type { ResourceLimits } from 'node:worker_threads';
import { startEarly } from '../threads/early-worker.ts';
import { workerUrl } from '../threads/worker-url.ts';

export const dataThreadProgram = (): URL => workerUrl('../hosting/data-worker', import.meta.url);

/**
 * Its heap for what was just made, answers and events: rings and lists live in memory of their own. Left to itself that heap
 * grows towards V8's bound of 48 MiB while a hundred guests are looked at.
 */
export const DATA_THREAD_HEAP: ResourceLimits = { maxYoungGenerationSizeMb: 8 };

/** Has the first data-plane thread of this process start now, whose guests wait for it. */
export const startDataThreadEarly = (): void => startEarly(dataThreadProgram(), DATA_THREAD_HEAP);
