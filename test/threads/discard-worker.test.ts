/** The thread that discards for all guests, on real memory: it hears of guests that come while it is busy. */
import { MessageChannel, Worker } from 'node:worker_threads';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PageAccount } from '../../src/device/page-account.ts';
import { FileBacking } from '../../src/memory/file-backing.ts';
import { MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { createEventFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import {
  ASLEEP,
  CONTROL_WORDS,
  DiscardLink,
  type DiscardThreadData,
  LANE_LOCK,
  type LaneMessage,
  LEADER_WORD,
  stopDiscarding,
  WAKE_WORD,
} from '../../src/threads/discard-link.ts';
import { build } from '../cli/built.ts';

const MIB = 2 ** 20;
const WAIT_MS_MAX = 10_000;

beforeAll(build);
afterAll(() => expect(openDescriptorCount()).toBe(0));

function openAccount(bytes: number): PageAccount {
  const backing = new FileBacking(createMemfd({ name: 'aerostat-test', size: bytes }), 0, bytes);
  return new PageAccount(new MemoryRegion({ guestAddress: 0, size: bytes, userAddress: 0 }, backing));
}

function closeAccount({ pending, region }: PageAccount): void {
  pending.close();
  region.close();
}

/** Resolves when it has ended. */
function startWorker(workerData: DiscardThreadData): Promise<unknown> {
  const worker = new Worker(new URL('../../dist/threads/discard-worker.js', import.meta.url), {
    workerData,
    transferList: [...workerData.ports],
  });
  return new Promise(resolve => worker.once('exit', resolve));
}

/** The thread that leads, and a link to it. */
function startThread() {
  const control = new SharedArrayBuffer(CONTROL_WORDS * 4);
  new Int32Array(control)[LEADER_WORD] = 1;
  const { port1, port2 } = new MessageChannel();
  const bell = createEventFd();
  const exited = startWorker({ control, number: 1, ports: [port2] });
  const link = new DiscardLink(control, port1, bell.number);
  return {
    link,
    /** A thread that goes round the guests beside it. */
    addHelper() {
      const { port1: near, port2: far } = new MessageChannel();
      const helper = startWorker({ control, number: 2, helps: true, ports: [far] });
      link.addThread(near);
      return {
        async stop() {
          stopDiscarding(control);
          await helper;
          near.close();
        },
      };
    },
    async stop() {
      stopDiscarding(control);
      await exited;
      port1.close();
      bell.close();
    },
  };
}

test('regions that come and go wake nothing that sleeps, but do not pile up unheard', async () => {
  const control = new SharedArrayBuffer(CONTROL_WORDS * 4);
  const words = new Int32Array(control);
  const { port1, port2 } = new MessageChannel();
  const bell = createEventFd();
  const link = new DiscardLink(control, port1, bell.number);
  const lane = link.openLane();
  const account = openAccount(MIB);
  const { region, pending } = account;
  try {
    let wakes = 0;
    const posted = 10 * 64;
    for (let index = 0; index < posted; index++) {
      lane.add(region, pending);
      if (Atomics.exchange(words, WAKE_WORD, ASLEEP) !== ASLEEP) wakes++;
    }
    expect(wakes).toBe(10);
    // One that comes with something pending is seen to at once.
    pending.mark(0, 1);
    lane.add(region, pending);
    expect(Atomics.load(words, WAKE_WORD)).not.toBe(ASLEEP);
  } finally {
    closeAccount(account);
    link.close();
    port2.close();
    bell.close();
  }
});

test('a guest that comes while another gives it no rest has its memory discarded, too', async () => {
  const thread = startThread();
  const lane = thread.link.openLane();
  const greedy = openAccount(4096 * MIB);
  const late = openAccount(MIB);
  try {
    late.region.windowAt(0).u8.fill(1);
    late.give(0, late.region.pageCount, true);
    lane.add(greedy.region, greedy.pending);
    const deadline = performance.now() + WAIT_MS_MAX;
    const keepBusy = () => {
      // A page here and there, faster than they can be discarded one by one.
      for (let unit = 0; unit < greedy.pending.units; unit += 4096) greedy.pending.mark(unit, 1);
      lane.wake();
    };
    while (greedy.pending.discards < 1000 && performance.now() < deadline) keepBusy();
    expect(greedy.pending.discards).toBeGreaterThanOrEqual(1000);
    keepBusy();
    lane.add(late.region, late.pending);
    const before = greedy.pending.discards;
    while (late.pending.outstanding > 0 && performance.now() < deadline) keepBusy();
    expect(late.pending.discardedUnits * PAGE_SIZE).toBe(MIB);
    expect(late.region.backing.residentBytes()).toBe(0);
    expect(greedy.pending.discards).toBeGreaterThanOrEqual(before);
  } finally {
    closeAccount(greedy);
    closeAccount(late);
    await thread.stop();
  }
});

test('two guests that have much at once have a thread each, and get all of it done', async () => {
  const leader = startThread();
  const helper = leader.addHelper();
  const lanes = [leader.link.openLane(), leader.link.openLane()];
  const accounts = lanes.map(() => openAccount(4096 * MIB));
  try {
    const threads = new Set<string>();
    const busy = () =>
      accounts.forEach(({ pending }, index) => {
        for (let unit = 0; unit < pending.units; unit += 128) pending.mark(unit, 64);
        lanes[index].wake();
      });
    for (const [index, { region, pending }] of accounts.entries()) lanes[index].add(region, pending);
    const locks = lanes.map(lane => {
      const [{ control }] = lane.messages() as [LaneMessage];
      return new Int32Array(control);
    });
    const deadline = performance.now() + WAIT_MS_MAX;
    while (!threads.has('1,2') && performance.now() < deadline) {
      if (accounts.some(({ pending }) => pending.outstanding === 0)) busy();
      threads.add(
        locks
          .map(words => Atomics.load(words, LANE_LOCK))
          .sort()
          .join(),
      );
    }
    expect(threads).toContain('1,2');
    while (accounts.some(({ pending }) => pending.outstanding > 0) && performance.now() < deadline);
    expect(accounts.map(({ pending }) => pending.outstanding)).toEqual([0, 0]);
  } finally {
    for (const account of accounts) closeAccount(account);
    await helper.stop();
    await leader.stop();
  }
});
