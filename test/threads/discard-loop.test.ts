/**
 * The program of a discarding thread, run in the test's own thread until its first punch, which stops it: what it does for a
 * guest when it leads, and when it takes the lead from one that is stuck. What real threads do is discard-worker.test.ts's.
 */
import { MessageChannel } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { PageAccount } from '../../src/device/page-account.ts';
import { FileBacking } from '../../src/memory/file-backing.ts';
import { MemoryRegion } from '../../src/memory/guest-memory.ts';
import { CLAIM_BYTES_MAX } from '../../src/memory/pending-state.ts';
import { createEventFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd, shrinkSeal } from '../../src/sys/file.ts';
import {
  BUSY_WORD,
  CONTROL_WORDS,
  DiscardLink,
  HELP_WORD,
  LEADER_WORD,
  PROGRESS_WORD,
  stopDiscarding,
  WAKE_WORD,
  WATCHERS_WORD,
  WORK,
} from '../../src/threads/discard-link.ts';

const { thread } = vi.hoisted(() => ({
  thread: {
    data: undefined as unknown,
    told: [] as object[],
    closed: false,
    punched: () => {},
    /** What the kernel says of the leader, one answer after the other; the last for good. */
    leader: [] as ({ runnable: boolean; ranMs: number } | undefined)[],
    asked: 0,
  },
}));

vi.mock('node:worker_threads', async original => ({
  ...(await original<typeof import('node:worker_threads')>()),
  get workerData() {
    return thread.data;
  },
  parentPort: {
    postMessage: (message: object) => thread.told.push(message),
    close: () => {
      thread.closed = true;
    },
  },
}));

vi.mock('../../src/sys/file.ts', async original => {
  const file = await original<typeof import('../../src/sys/file.ts')>();
  return {
    ...file,
    punchHole: (...args: Parameters<typeof file.punchHole>) => {
      thread.punched();
      file.punchHole(...args);
    },
  };
});

vi.mock('../../src/sys/thread-times.ts', async original => ({
  ...(await original<typeof import('../../src/sys/thread-times.ts')>()),
  timesOfThread: () => thread.leader[Math.min(thread.asked++, thread.leader.length - 1)],
}));

const MIB = 2 ** 20;

let openBefore: number;
let control: SharedArrayBuffer;
let words: Int32Array;
let channel: MessageChannel;
let bell: ReturnType<typeof createEventFd>;

beforeEach(() => {
  openBefore = openDescriptorCount();
  control = new SharedArrayBuffer(CONTROL_WORDS * 4);
  words = new Int32Array(control);
  words[LEADER_WORD] = 1;
  channel = new MessageChannel();
  bell = createEventFd();
  thread.told.length = 0;
  thread.closed = false;
  thread.leader = [undefined];
  thread.asked = 0;
  thread.punched = () => stopDiscarding(control);
});

afterEach(() => {
  bell.close();
  expect(openDescriptorCount()).toBe(openBefore);
});

/** Runs the program as thread `number`, beside a guest that gave all of its memory; resolves with what the host still has. */
async function runBesideGuest(
  number: number,
  then: (link: DiscardLink) => void = () => {},
  { helps = false, size = MIB } = {},
): Promise<number> {
  const backing = new FileBacking(createMemfd({ name: 'aerostat-test', size }), 0, size);
  const account = new PageAccount(new MemoryRegion({ guestAddress: 0, size, userAddress: 0 }, backing));
  account.region.windowAt(0).u8.fill(1);
  account.give(0, account.region.pageCount, true);
  const link = new DiscardLink(control, channel.port1, bell.number);
  const lane = link.openLane();
  lane.add(account.region, account.pending);
  lane.seal([backing.fd]);
  then(link);
  thread.data = { control, number, helps, ports: [channel.port2] };
  vi.resetModules();
  await import('../../src/threads/discard-worker.ts');
  try {
    expect(lane.sealing).toBe(false);
    expect(shrinkSeal(backing.fd)).toBe('sealed');
    expect(thread.closed).toBe(true);
    return backing.residentBytes();
  } finally {
    account.pending.close();
    account.region.close();
    link.close();
  }
}

test('the thread that leads gives back what is pending, and seals what it is asked to', async () => {
  expect(await runBesideGuest(1)).toBe(0);
  expect(words[PROGRESS_WORD]).toBeGreaterThan(0);
  expect(thread.told).toEqual([]);
});

test('a thread that watches a leader that gets nothing done leads instead, and asks for another one', async () => {
  expect(
    await runBesideGuest(2, () => {
      words[BUSY_WORD] = 1;
      words[WAKE_WORD] = WORK;
    }),
  ).toBe(0);
  expect([words[LEADER_WORD], words[WATCHERS_WORD]]).toEqual([2, 0]);
  expect(thread.told).toEqual([{ wanted: 'watcher' }]);
});

test('a leader that waits for a processor is left the lead, until it gets nothing done with one', async () => {
  const waiting = { runnable: true, ranMs: 7 };
  const asleep = { runnable: false, ranMs: 7 };
  // Looked at twice each time: three times it waits, then a file keeps it.
  thread.leader = [waiting, waiting, waiting, waiting, waiting, waiting, waiting, asleep];
  await runBesideGuest(2, () => {
    words[BUSY_WORD] = 1;
    words[WAKE_WORD] = WORK;
  });
  expect(thread.asked).toBe(8);
  expect(words[LEADER_WORD]).toBe(2);
});

test('a leader that works without getting anything done is stuck', async () => {
  thread.leader = [
    { runnable: true, ranMs: 7 },
    { runnable: true, ranMs: 15 },
  ];
  await runBesideGuest(2, () => {
    words[BUSY_WORD] = 1;
    words[WAKE_WORD] = WORK;
  });
  expect(thread.asked).toBe(2);
  expect(words[LEADER_WORD]).toBe(2);
});

test('a thread that helps gives back what a guest has that has much and no thread, and never leads', async () => {
  const helped = await runBesideGuest(
    3,
    () => {
      words[HELP_WORD] = 1;
    },
    { helps: true, size: CLAIM_BYTES_MAX },
  );
  expect(helped).toBe(0);
  expect([words[LEADER_WORD], words[PROGRESS_WORD], words[WATCHERS_WORD]]).toEqual([1, 0, 0]);
});

test('a thread that watches beside another one retires', async () => {
  words[WATCHERS_WORD] = 1;
  thread.data = { control, number: 3, ports: [channel.port2] };
  vi.resetModules();
  await import('../../src/threads/discard-worker.ts');
  expect(thread.closed).toBe(true);
  channel.port1.close();
});
