/**
 * What threads take to wake each other, with nothing else to do: a wish that a list answers goes through five of them until
 * the first page is given back (the data-plane thread for the wish, the guest's for the configuration, the data-plane thread
 * for its question, the guest's for the answer and back for the list, the one that discards). What an inflation has beyond a
 * bare punch cannot be less.
 */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { monotonicMs } from '../../sys/poll.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import type { WakeupThreadData } from './wakeup-thread.ts';

const THREADS = 5;
/** The first turns compile the threads' code. */
const TURNS_BEFORE = 10;
const TURNS = 30;
/** As long as a guest may have had nothing to do: threads that went to sleep just now are woken in less. */
const REST_MS = 5;

/** Milliseconds of each chain, from the first wake-up until the last thread has woken the one that began. */
export async function wakeupsMs(): Promise<number[]> {
  const words = new SharedArrayBuffer((THREADS + 1) * 4);
  const chain = new Int32Array(words);
  const turns = TURNS_BEFORE + TURNS;
  const threads = Array.from({ length: THREADS }, (_, index) => {
    const workerData: WakeupThreadData = { words, index, turns };
    return new Worker(workerUrl('./wakeup-thread', import.meta.url), { workerData });
  });
  try {
    await Promise.all(threads.map(thread => once(thread, 'message')));
    const times: number[] = [];
    for (let turn = 1; turn <= turns; turn++) {
      await delay(REST_MS);
      const startedMs = monotonicMs();
      Atomics.store(chain, 0, turn);
      Atomics.notify(chain, 0);
      while (Atomics.load(chain, THREADS) < turn) Atomics.wait(chain, THREADS, turn - 1);
      if (turn > TURNS_BEFORE) times.push(monotonicMs() - startedMs);
    }
    return times;
  } finally {
    await Promise.all(threads.map(thread => thread.terminate()));
  }
}
