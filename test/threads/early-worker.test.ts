/** A thread that was started before it was known what it is to begin with, and what it answers then. */
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { beginEarly, startEarly } from '../../src/threads/early-worker.ts';

/** Tells what it was told to begin with, and ends. */
const PROGRAM = new URL(
  `data:text/javascript,${encodeURIComponent(`
    import { parentPort, workerData } from 'node:worker_threads';
    const { dataPort } = workerData;
    dataPort.once('message', data => {
      parentPort.postMessage(data);
      dataPort.close();
    });
  `)}`,
);

test('a thread that was started early begins with what the first gives that asks for its program, and no other', async () => {
  expect(beginEarly(PROGRAM, {}, [])).toBeUndefined();
  startEarly(PROGRAM, {});
  expect(beginEarly(new URL('data:text/javascript,0'), {}, [])).toBeUndefined();
  const worker = beginEarly(PROGRAM, { name: 'g', bytes: new Uint8Array([1, 2]) }, []);
  expect(worker).toBeDefined();
  expect(beginEarly(PROGRAM, {}, [])).toBeUndefined();
  // A message and the end may be told in one turn, so that both are listened for before either.
  const [[told], [code]] = await Promise.all([once(worker!, 'message'), once(worker!, 'exit')]);
  expect(told).toEqual({ name: 'g', bytes: new Uint8Array([1, 2]) });
  expect(code).toBe(0);
});
