/**
 * A front-end that keeps its memory's file locked by a long fallocate of its own: what needs the lock waits, for that guest,
 * and the guest next door on the same thread does not.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { createMemfd } from '../../src/sys/file.ts';
import { USER_ADDRESS_OFFSET } from '../../src/vhost-user/shared-memory.ts';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { FIRST_PAGE, HandGuest } from './hand-guest.ts';
import { RawFrontEnd, regionMessage } from './raw-front-end.ts';

const GUEST = 'locked';
const NEIGHBOUR = 'neighbour';
const FILE_BYTES = 2 ** 30;
/** So many guests in between that the two share a data-plane thread. */
const between = Array.from({ length: Math.ceil(availableParallelism() / 2) - 1 }, (_, at) => `between${at}`);

/** Exchanges beside the guest at rest. */
const REFERENCE = 100;
/** Far above what a busy machine does to the middle one of many, far below what a wait for the lock would. */
const SLOWER_MAX = 5;

/** How long each exchange of the neighbour's takes for as long as `going` says so, in milliseconds. */
async function exchangesWhile(neighbour: HandGuest, going: () => boolean): Promise<number[]> {
  const times: number[] = [];
  while (going()) {
    const startedMs = performance.now();
    await neighbour.inflate(FIRST_PAGE, 1);
    await neighbour.deflate(FIRST_PAGE, 1);
    times.push(performance.now() - startedMs);
  }
  return times;
}

/** The same beside a guest at rest, on a machine that has as much to do, while the loop waits for something else as well. */
async function exchangesAlone(neighbour: HandGuest, loop: TestLoop): Promise<number[]> {
  let asked = 0;
  let over = (): void => {};
  const other = loop.until(
    new Promise<void>(resolve => {
      over = resolve;
    }),
  );
  const times = await exchangesWhile(neighbour, () => asked++ < REFERENCE);
  over();
  await other;
  return times;
}

const middleOf = (times: readonly number[]): number => times.toSorted((a, b) => a - b)[times.length >> 1];

/** Allocates the whole file and gives it back, again and again: the kernel holds its lock all the while. */
const LOCKER = `
  const koffi = require('koffi');
  const { workerData: { file, bytes, word } } = require('node:worker_threads');
  const fallocate = koffi.load('libc.so.6').func('int fallocate(int fd, int mode, int64_t at, int64_t bytes)');
  const at = new Int32Array(word);
  while (Atomics.load(at, 0) !== 2) {
    Atomics.store(at, 0, 1);
    Atomics.notify(at, 0);
    if (fallocate(file, 0, 0, bytes) !== 0) break;
    if (Atomics.load(at, 0) !== 2) fallocate(file, 3, 0, bytes);
  }
`;

test('memory whose file is locked makes its own guest wait for the lock, and harms the one next door no more than a guest at rest', async () => {
  build();
  const loop = new TestLoop();
  const daemon = await DaemonProcess.start([GUEST, ...between, NEIGHBOUR]);
  const file = createMemfd({ name: 'locked', size: FILE_BYTES });
  const word = new SharedArrayBuffer(4);
  const at = new Int32Array(word);
  const neighbour = await HandGuest.connect(daemon.socketOf(NEIGHBOUR), { loop });
  const frontEnd = new RawFrontEnd(daemon.socketOf(GUEST), loop);
  const worker = new Worker(LOCKER, {
    eval: true,
    workerData: { file: file.number, bytes: FILE_BYTES, word },
  });
  const exited = new Promise(resolve => worker.once('exit', resolve));
  try {
    await frontEnd.negotiate();
    await new Promise<void>(resolve => {
      const look = (): void => (Atomics.load(at, 0) === 0 ? void setTimeout(look, 1) : resolve());
      look();
    });
    const before = await exchangesAlone(neighbour, loop);
    // Its file has to be sealed first, which wants the lock.
    const region = { guestAddress: 0, size: FILE_BYTES, userAddress: USER_ADDRESS_OFFSET, mmapOffset: 0 };
    const askedMs = performance.now();
    let waitedMs = 0;
    const added = frontEnd.accepts('ADD_MEM_REG', regionMessage(region), [file]).then(accepted => {
      waitedMs = performance.now() - askedMs;
      return accepted;
    });
    const beside = await exchangesWhile(neighbour, () => waitedMs === 0);
    expect(await added).toBe(true);
    // What else the machine does changes: the neighbour is compared with the slower of the times before and after.
    const after = await exchangesAlone(neighbour, loop);
    const aloneMs = Math.max(middleOf(before), middleOf(after));
    // It was served all the time that the other waited, however short that was, as well as it is otherwise.
    expect(beside.length).toBeGreaterThan(Math.min(10, waitedMs / (SLOWER_MAX * aloneMs) - 2));
    expect(middleOf(beside)).toBeLessThan(SLOWER_MAX * aloneMs);
    expect(Math.max(...beside)).toBeLessThan(
      Math.max(waitedMs / 2, SLOWER_MAX * Math.max(...before, ...after)),
    );
  } finally {
    Atomics.store(at, 0, 2);
    await exited;
    frontEnd.close();
    neighbour.close();
    file.close();
    await daemon.stop();
    loop.close();
  }
});
