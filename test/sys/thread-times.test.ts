/** What the kernel says of a thread that works, and of one that waits. */
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { ownThreadId, timesOfThread } from '../../src/sys/thread-times.ts';

test('a thread that works is runnable, and has had a processor', () => {
  const id = ownThreadId();
  const before = timesOfThread(id);
  for (const endMs = performance.now() + 20; performance.now() < endMs; );
  const after = timesOfThread(id);
  expect([before?.runnable, after?.runnable]).toEqual([true, true]);
  expect(after?.ranMs).toBeGreaterThan(before?.ranMs ?? Number.POSITIVE_INFINITY);
});

test('a thread that waits is not', async () => {
  const word = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     const { readlinkSync } = require('node:fs');
     parentPort.postMessage(Number(readlinkSync('/proc/thread-self').split('/').pop()));
     Atomics.wait(workerData, 0, 0);`,
    { eval: true, workerData: word },
  );
  const id = await new Promise<number>(resolve => worker.once('message', resolve));
  await expect.poll(() => timesOfThread(id)?.runnable).toBe(false);
  Atomics.store(word, 0, 1);
  Atomics.notify(word, 0);
  await new Promise(resolve => worker.once('exit', resolve));
});

test('of a thread that is not there nothing is said', () => {
  expect(timesOfThread(0)).toBeUndefined();
});
