/** When inflated pages go back to the host, what keeps them from it, and what the device knows of it all. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MUST_TELL_HOST } from '../../src/balloon/features.ts';
import { PENDING_BYTES_MAX } from '../../src/device/inflation.ts';
import { type Backing, HeapBacking } from '../../src/memory/backing.ts';
import { FileBacking } from '../../src/memory/file-backing.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { CLAIM_BYTES_MAX } from '../../src/memory/pending-state.ts';
import type { Durations } from '../../src/sys/durations.ts';
import { SystemError } from '../../src/sys/error.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { libc } from '../../src/sys/libc.ts';
import { build } from '../cli/built.ts';
import {
  type DeviceRig,
  FIRST_PAGE,
  openRig,
  packed,
  pfns,
  withoutMustTellHost,
} from '../support/device-rig.ts';
import { startDiscarder } from '../support/discarder-thread.ts';

/** What was given as a whole is discarded by so many stretches at a time. */
const RUN_BYTES_MAX = 8 * CLAIM_BYTES_MAX;
const P = FIRST_PAGE;
const EPERM = 1;

afterAll(() => expect(openDescriptorCount()).toBe(0));

/** What the host holds at the moment when a queue's buffers are returned. */
function residentWhenReturned(rig: DeviceRig, role: 'inflate' | 'deflate', act: () => void): number {
  let bytes = Number.NaN;
  rig.queue(role).beforePublish = () => {
    bytes = rig.residentBytes;
  };
  act();
  return bytes;
}

/** Memory that cannot be given back, as where its owner has sealed it. */
function stubborn(backing: Backing): Backing {
  return new Proxy(backing, {
    get(target, name) {
      if (name === 'discard') {
        return () => {
          throw new SystemError('fallocate', EPERM);
        };
      }
      const value = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

describe.each([
  ['split', {}],
  ['packed', packed],
])('before the acknowledgement (%s rings)', (_, rings) => {
  test('without MUST_TELL_HOST the memory is the host’s when the buffer is returned', () => {
    const rig = openRig({ memory: 'shmem', ...withoutMustTellHost, ...rings });
    rig.touch(P, 64);
    const before = rig.residentBytes;
    const returned = residentWhenReturned(rig, 'inflate', () => rig.inflate([P, 64]));
    expect(returned).toBe(before - 64 * PAGE_SIZE);
    expect(rig.host.pendingMarks).toBe(0);
  });

  test('mode before-ack does the same although the driver would wait', () => {
    const rig = openRig({ memory: 'shmem', ...rings });
    rig.device.inflation.mode = 'before-ack';
    rig.touch(P, 64);
    const before = rig.residentBytes;
    expect(residentWhenReturned(rig, 'inflate', () => rig.inflate([P, 64]))).toBe(before - 64 * PAGE_SIZE);
  });

  test('mode after-ack is not obeyed without MUST_TELL_HOST', () => {
    const rig = openRig({ memory: 'shmem', ...withoutMustTellHost, ...rings });
    rig.device.inflation.mode = 'after-ack';
    rig.touch(P, 64);
    const before = rig.residentBytes;
    expect(residentWhenReturned(rig, 'inflate', () => rig.inflate([P, 64]))).toBe(before - 64 * PAGE_SIZE);
    expect(rig.pendingPages).toBe(0);
  });

  test('all buffers of a batch are discarded in maximal runs, and returned with one interrupt', () => {
    const rig = openRig({ memory: 'shmem', ...withoutMustTellHost, ...rings });
    rig.touch(P, 64);
    const queue = rig.queue('inflate');
    // Odd pages, then even ones.
    for (const odd of [1, 0]) {
      queue.add({ out: [pfns(...Array.from({ length: 32 }, (_, index) => P + 2 * index + odd))] });
    }
    queue.kick();
    expect(queue.collect()).toHaveLength(2);
    expect(queue.interrupts).toBe(1);
    expect(rig.device.inflation.discards).toMatchObject({ bytes: 64 * PAGE_SIZE, punches: 1 });
  });
});

describe('after the acknowledgement', () => {
  test('the buffer is returned while its pages are pending, and they are discarded later', () => {
    const rig = openRig({ memory: 'shmem' });
    rig.touch(P, 64);
    const before = rig.residentBytes;
    expect(residentWhenReturned(rig, 'inflate', () => rig.inflate([P, 64]))).toBe(before);
    expect(rig.pendingPages).toBe(64);
    expect(rig.host.pendingMarks).toBe(1);
    expect(rig.device.inflation.discards.bytes).toBe(0);
    expect(rig.discardSome()).toBe(true);
    expect(rig.pendingPages).toBe(0);
    expect(rig.residentBytes).toBe(before - 64 * PAGE_SIZE);
    expect(rig.device.inflation.discards).toMatchObject({ bytes: 64 * PAGE_SIZE, punches: 1, failures: 0 });
    expect(rig.balloonedPages).toBe(64);
  });

  test('pages that are deflated while they are pending keep what they hold', () => {
    const rig = openRig({ memory: 'shmem' });
    rig.touch(P, 64, 0x5a);
    rig.inflate([P, 64]);
    rig.deflate([P + 10, 20]);
    rig.device.drain();
    expect(rig.contentOf(P + 9)).toBe(0);
    for (let page = 10; page < 30; page++) expect(rig.contentOf(P + page)).toBe(0x5a);
    expect(rig.contentOf(P + 30)).toBe(0);
    expect(rig.device.accounts.keptPages).toBe(20);
    expect(rig.balloonedPages).toBe(44);
    expect(rig.device.counters).toMatchObject({ pages: 64, deflatedPages: 20, badPages: 0 });
  });

  test('a page can go round many times', () => {
    const rig = openRig({ memory: 'shmem' });
    for (let round = 1; round <= 5; round++) {
      rig.touch(P, 4, round);
      rig.inflate([P, 4]);
      if (round % 2 === 0) rig.discardSome();
      rig.deflate([P, 4]);
      expect(rig.contentOf(P)).toBe(round % 2 === 0 ? 0 : round);
    }
    expect(rig.balloonedPages).toBe(0);
    expect(rig.device.accounts.keptPages).toBe(12);
  });

  test('no more is pending than the limit: above it the memory is the host’s before the buffer is returned', () => {
    const limit = PENDING_BYTES_MAX / PAGE_SIZE;
    const rig = openRig({ profile: 'page-chunks', memory: 'shmem', memoryBytes: 2 * PENDING_BYTES_MAX });
    rig.inflate([P, limit]);
    expect(rig.pendingPages).toBe(limit);
    rig.inflate([P + limit, 1]);
    expect(rig.pendingPages).toBeLessThanOrEqual(limit);
    expect(rig.device.inflation.discards.bytes).toBe(
      PENDING_BYTES_MAX + PAGE_SIZE - rig.pendingPages * PAGE_SIZE,
    );
    expect(rig.device.inflation.discards.bytes).toBeGreaterThan(0);
  });

  test('what is left of much that was given, when some is taken back out of it, is discarded without more being given', () => {
    const MIB_PAGES = 2 ** 20 / PAGE_SIZE;
    const rig = openRig({ profile: 'page-chunks', memory: 'shmem', memoryBytes: 128 * 2 ** 20 });
    rig.inflate([32 * MIB_PAGES, 64 * MIB_PAGES]);
    const { pendingMarks } = rig.host;
    rig.deflate([40 * MIB_PAGES, 1]);
    // A thread that looked in the middle of that found nothing, and sleeps.
    expect(rig.host.pendingMarks).toBe(pendingMarks + 1);
    rig.deflate([16 * MIB_PAGES, 1]);
    expect(rig.host.pendingMarks).toBe(pendingMarks + 1);
    while (rig.discardSome());
    expect(rig.pendingPages).toBe(0);
    expect(rig.device.inflation.discards.bytes).toBe((64 * MIB_PAGES - 1) * PAGE_SIZE);
  });

  test('of a single list that is longer than the limit, as much as the limit allows is acknowledged first, and no more is waited for', () => {
    const limit = PENDING_BYTES_MAX / PAGE_SIZE;
    const surplus = 50_000;
    const rig = openRig({ profile: 'page-chunks', memory: 'shmem', memoryBytes: 2 * PENDING_BYTES_MAX });
    rig.inflate([P, limit + surplus]);
    expect(rig.pendingPages).toBeLessThanOrEqual(limit);
    // What was over the limit, and at most one run more.
    expect(rig.pendingPages).toBeGreaterThan(limit - RUN_BYTES_MAX / PAGE_SIZE);
    expect(rig.device.inflation.discards.bytes).toBe((limit + surplus - rig.pendingPages) * PAGE_SIZE);
  });

  test('what waits for neighbours may be more, and when it has waited long enough a batch adds nothing to it', () => {
    const limit = PENDING_BYTES_MAX / PAGE_SIZE;
    const rig = openRig({ profile: 'page-chunks', memory: 'shmem', memoryBytes: 2 * PENDING_BYTES_MAX });
    const [{ pending }] = rig.host.accounts;
    pending.waiting = true;
    rig.inflate([P, limit + 50_000]);
    expect(rig.pendingPages).toBe(limit + 50_000);
    pending.waiting = false;
    rig.inflate([P + limit + 50_000, 10_000]);
    expect(rig.pendingPages).toBeLessThanOrEqual(limit + 50_000);
    // As much as the batch brought, and at most one run more: the guest does not wait for what others left.
    expect(rig.pendingPages).toBeGreaterThan(limit + 50_000 - RUN_BYTES_MAX / PAGE_SIZE);
  });

  test('says how long each buffer was here, and each discard took, on whichever thread', () => {
    const rig = openRig({ memory: 'shmem' });
    const total = ({ counts }: Durations) => counts.reduce((sum, count) => sum + count);
    const { inflation } = rig.device;
    rig.inflate([P, 4]);
    rig.inflate([P + 8, 4]);
    rig.deflate([P, 1]);
    expect(total(inflation.acknowledgeTimes.durations)).toBe(3);
    expect(total(inflation.discardTimes.durations)).toBe(0);
    rig.device.drain();
    expect(total(inflation.discardTimes.durations)).toBe(2);
    inflation.mode = 'per-page';
    rig.inflate([P + 16, 8]);
    expect(total(inflation.discardTimes.durations)).toBe(10);
    for (const { durations } of [inflation.acknowledgeTimes, inflation.discardTimes]) {
      expect(durations.sumMs).toBeGreaterThan(0);
    }
    const [{ region }] = rig.host.accounts;
    rig.device.regionRemoved(region);
    expect(total(inflation.discardTimes.durations)).toBe(10);
  });

  test('a change of mode discards what is pending under the old one', () => {
    const rig = openRig({ memory: 'shmem' });
    rig.touch(P, 4);
    rig.inflate([P, 4]);
    rig.device.inflation.mode = 'none';
    expect(rig.pendingPages).toBe(0);
    expect(rig.contentOf(P)).toBe(0);
    rig.touch(P + 8, 4);
    rig.inflate([P + 8, 4]);
    rig.device.drain();
    expect(rig.contentOf(P + 8)).toBe(0xa5);
    expect(rig.balloonedPages).toBe(8);
  });

  test('per-page discards one page a call, and counts the calls', () => {
    const rig = openRig({ memory: 'shmem' });
    rig.device.inflation.mode = 'per-page';
    rig.touch(P, 8);
    rig.inflate([P, 8]);
    expect(rig.contentOf(P + 7)).toBe(0);
    expect(rig.device.inflation.discards).toMatchObject({ bytes: 8 * PAGE_SIZE, punches: 8, failures: 0 });
    expect(rig.device.inflation.discards.lastMs).toBeGreaterThan(0);
    expect(rig.pendingPages).toBe(0);
  });
});

describe('a discard under way in another thread', () => {
  beforeAll(build);

  test.each([
    ['once', 1],
    ['twice, and so is pending again', 2],
  ])('is waited for by the deflation of its pages, and by no other: given %s', async (_, times) => {
    const rig = openRig({ memory: 'shmem', memoryBytes: 64 * 2 ** 20 });
    rig.touch(P, 8, 0x11);
    rig.inflate([P, 8]);
    const script = new URL('../support/slow-discarder.mjs', import.meta.url);
    const { words, ended } = startDiscarder(script, rig.host.accounts[0]);
    // Asynchronously: a worker needs its parent's loop to start.
    while (Atomics.load(words, 0) === 0) await new Promise(resolve => setTimeout(resolve, 1));
    expect(rig.pendingPages).toBe(8);

    // Pages of another stretch are not held up.
    rig.inflate([P + 8192, 8]);
    rig.deflate([P + 8192, 8]);
    expect(Atomics.load(words, 1)).toBe(0);

    // No driver gives a page twice; one that does must not lose what it writes into the page later.
    if (times === 2) rig.inflate([P, 8]);
    let overWhenReturned = false;
    rig.queue('deflate').beforePublish = () => {
      overWhenReturned = Atomics.load(words, 1) === 1;
    };
    Atomics.store(words, 2, 1);
    Atomics.notify(words, 2);
    rig.deflate([P + 2, 2]);
    expect(overWhenReturned).toBe(true);
    rig.touch(P + 2, 2, 0x22);
    await ended;
    rig.device.drain();
    expect([0, 2, 3, 4].map(page => rig.contentOf(P + page))).toEqual([0, 0x22, 0x22, 0]);
    expect(rig.device.accounts.keptPages).toBe(times === 2 ? 10 : 8);
  });
});

describe('when a ring or a region goes', () => {
  const inflated = (options: Parameters<typeof openRig>[0] = {}): DeviceRig => {
    const rig = openRig({ memory: 'shmem', ...options });
    rig.touch(P, 8, 0x77);
    rig.inflate([P, 8]);
    expect(rig.pendingPages).toBe(8);
    return rig;
  };

  test.each(['inflate', 'deflate'] as const)(
    'a paused %s ring leaves all that was given away with the host',
    role => {
      const rig = inflated();
      rig.device.stopQueue(rig.queue(role).index, 'paused');
      expect(rig.pendingPages).toBe(0);
      expect(rig.balloonedPages).toBe(8);
      expect(rig.contentOf(P)).toBe(0);
    },
  );

  test.each(['inflate', 'deflate'] as const)(
    'an abandoned %s ring leaves pending pages to the guest',
    role => {
      const rig = inflated();
      rig.device.stopQueue(rig.queue(role).index, 'abandoned');
      expect(rig.pendingPages).toBe(0);
      expect(rig.balloonedPages).toBe(0);
      rig.device.drain();
      expect(rig.contentOf(P)).toBe(0x77);
    },
  );

  test('a reset leaves pending pages to the guest, and forgets what it gave away', () => {
    const rig = inflated();
    rig.writeConfig('actual', 8);
    rig.writeConfig('poisonValue', 1);
    rig.device.targetPages = 8;
    rig.device.reset();
    rig.device.drain();
    expect(rig.contentOf(P)).toBe(0x77);
    expect([rig.balloonedPages, rig.device.actualPages, rig.device.poisonValue]).toEqual([0, 0, 0]);
    // The target is the host's wish, and outlives the driver.
    expect(rig.device.targetPages).toBe(8);
    expect(rig.device.counters.resets).toBe(1);
    expect(rig.device.driverFeatures).toBe(0n);
    // No ring runs any more.
    rig.queue('inflate').add({ out: [pfns(P)] });
    rig.queue('inflate').kick();
    expect(rig.queue('inflate').collect()).toEqual([]);
  });

  test('what was collected for another ring’s sake is forgotten too when the inflate ring is broken', () => {
    const rig = inflated();
    const queue = rig.queue('inflate');
    rig.memory.setU16(queue.config.driverArea + 2, 0x7fff);
    queue.kick();
    expect(rig.host.brokenRings).toHaveLength(1);
    rig.device.drain();
    expect(rig.contentOf(P)).toBe(0x77);
  });

  test('a removed region drops what is pending in it, and its discards still count', () => {
    const rig = inflated();
    const region = rig.addRegion(
      2 ** 30,
      new FileBacking(createMemfd({ name: 'more', size: 2 ** 22 }), 0, 2 ** 22),
    );
    const far = region.firstPfn;
    rig.touch(far, 8, 0x66);
    rig.inflate([far, 4]);
    rig.deflate([far, 1]);
    rig.device.drain();
    rig.inflate([far + 4, 4]);
    expect(rig.balloonedPages).toBe(8 + 7);
    const before = rig.device.inflation.discards;
    rig.device.regionRemoved(region);
    rig.device.regionRemoved(region);
    expect(rig.device.inflation.discards).toEqual(before);
    expect([rig.balloonedPages, rig.pendingPages, rig.device.accounts.keptPages]).toEqual([8, 0, 1]);
    rig.device.drain();
    expect(rig.contentOf(far + 4)).toBe(0x66);
    // Its pages belong to no region now.
    rig.inflate([far, 2]);
    expect(rig.device.counters.badPages).toBe(2);
    rig.memory.remove(region)?.close();
  });

  test('a run over two regions is given and taken in both', () => {
    const rig = openRig();
    const region = rig.addRegion(16 * 2 ** 20, new HeapBacking(2 ** 22));
    const edge = region.firstPfn;
    rig.inflate([edge - 3, 8]);
    expect(rig.device.accounts.all.map(account => account.balloonedPages)).toEqual([3, 5]);
    rig.deflate([edge - 1, 2]);
    expect(rig.device.accounts.all.map(account => account.balloonedPages)).toEqual([2, 4]);
    expect(rig.device.counters.badPages).toBe(0);
  });
});

describe('memory that cannot be given back', () => {
  test('is counted and told, and the guest goes on', () => {
    const rig = openRig({ wrapBacking: stubborn, ...withoutMustTellHost });
    rig.touch(P, 4, 0x12);
    expect(rig.inflate([P, 2])).toEqual([{ token: 0, written: 0 }]);
    expect(rig.inflate([P + 2, 2])).toEqual([{ token: 1, written: 0 }]);
    expect(rig.device.inflation.discards).toMatchObject({ bytes: 0, punches: 0, failures: 2 });
    expect(rig.host.failures.map(error => (error as SystemError).errnoName)).toEqual(['EPERM', 'EPERM']);
    expect(rig.contentOf(P)).toBe(0x12);
    expect(rig.balloonedPages).toBe(4);
  });

  test('is counted page by page where it is discarded so, and told once a batch', () => {
    const rig = openRig({ wrapBacking: stubborn });
    rig.device.inflation.mode = 'per-page';
    rig.inflate([P, 5]);
    expect(rig.device.inflation.discards.failures).toBe(5);
    expect(rig.host.failures).toHaveLength(1);
  });

  test('keeps reports from doing anything, which is told too', () => {
    const rig = openRig({ wrapBacking: stubborn });
    expect(rig.queue('reporting').exchange({ in: [[P * PAGE_SIZE, PAGE_SIZE]] })).toHaveLength(1);
    expect(rig.device.reporting.totals).toMatchObject({ bytes: 0, failures: 1 });
    expect(rig.host.failures).toHaveLength(1);
  });

  test('is what a sealed file is', () => {
    const F_ADD_SEALS = 1033;
    const F_SEAL_FUTURE_WRITE = 0x10;
    const rig = openRig({ memory: 'shmem' });
    rig.touch(P, 4, 0x34);
    expect(libc.fcntl((rig.region.backing as FileBacking).fd.number, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)).toBe(
      0,
    );
    rig.inflate([P, 4]);
    rig.device.drain();
    expect(rig.host.failures.map(error => (error as SystemError).errnoName)).toEqual(['EPERM']);
    expect(rig.contentOf(P)).toBe(0x34);
    expect(rig.pendingPages).toBe(0);
  });
});

test('the time that lists take to decode is counted where it is asked for', () => {
  const rig = openRig();
  rig.inflate([P, 4]);
  expect(rig.device.counters.decodeMs).toBe(0);
  rig.device.inflation.timeDecoding();
  rig.inflate([P + 4, 4]);
  rig.deflate([P, 8]);
  expect(rig.device.counters.decodeMs).toBeGreaterThan(0);
  expect(rig.device.counters).toMatchObject({ inflateBuffers: 2, deflateBuffers: 1 });
});

describe('the account', () => {
  test('is the host’s own, whatever `actual` says', () => {
    const rig = openRig();
    rig.inflate([P, 10]);
    rig.writeConfig('actual', 0xffff_ffff);
    expect(rig.balloonedPages).toBe(10);
    rig.writeConfig('actual', 0);
    expect(rig.balloonedPages).toBe(10);
    expect(rig.device.actualPages).toBe(0);
  });

  test('counts a page that is given twice once', () => {
    const rig = openRig();
    rig.inflate([P, 4]);
    rig.inflate([P + 2, 4]);
    rig.queue('inflate').exchange({ out: [pfns(P, P, P)] });
    expect(rig.balloonedPages).toBe(6);
    rig.deflate([P, 6]);
    expect(rig.balloonedPages).toBe(0);
  });

  test('does not go below nothing when pages are taken that were never given', () => {
    const rig = openRig();
    rig.inflate([P, 2]);
    rig.deflate([P, 10]);
    expect(rig.balloonedPages).toBe(0);
    expect(rig.device.counters).toMatchObject({ deflatedPages: 2, badPages: 8 });
  });

  test('is right whether MUST_TELL_HOST is taken or not', () => {
    for (const without of [0n, MUST_TELL_HOST]) {
      const rig = openRig({ without });
      rig.inflate([P, 16]);
      rig.deflate([P + 4, 4]);
      expect(rig.balloonedPages).toBe(12);
    }
  });
});
