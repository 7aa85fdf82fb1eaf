/**
 * What a device says of pages that it made zeros (profile device-init): the used length of a report, and the bitmap behind
 * an inflation's list. That all lengths are 0 where this was not negotiated is used-length.test.ts's.
 */
import { describe, expect, test } from 'vitest';
import { DEVICE_INIT_ON_INFLATE, DEVICE_INIT_REPORTED, PAGE_POISON } from '../../src/balloon/features.ts';
import type { Backing } from '../../src/memory/backing.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { SystemError } from '../../src/sys/error.ts';
import { type DeviceRig, FIRST_PAGE, openRig, packed, pfns, type RigOptions } from '../support/device-rig.ts';

const P = FIRST_PAGE;
const ROOM = (FIRST_PAGE + 2048) * PAGE_SIZE;
const MIB = 2 ** 20;

const open = (options: RigOptions = {}) =>
  openRig({ profile: 'device-init', without: PAGE_POISON, ...options });

/** The discards of `backing` fail from the time when `failing.now` is set. */
const failingFrom =
  (failing: { now: boolean }) =>
  (backing: Backing): Backing =>
    Object.assign(backing, {
      discard: failWhen(failing, backing.discard.bind(backing)),
    });
const failWhen =
  (failing: { now: boolean }, discard: Backing['discard']) => (offset: number, length: number) => {
    if (failing.now) throw new SystemError('fallocate', 12, 'tried');
    discard(offset, length);
  };

/** Inflates these pages with room for the bitmap; the bits that count, as the device says how many. */
function inflated(rig: DeviceRig, pages: readonly number[], room = Math.ceil(pages.length / 8)): boolean[] {
  rig.forgetLists();
  rig.memory.fill(ROOM, 0xff, room);
  const [{ written }] = rig.queue('inflate').exchange({ out: [pfns(...pages)], in: [[ROOM, room]] });
  expect(written).toBeLessThanOrEqual(room);
  const bytes = new Uint8Array(written);
  rig.memory.read(ROOM, bytes, 0, written);
  return pages.slice(0, written * 8).map((_, at) => (bytes[at >>> 3] & (1 << (at & 7))) !== 0);
}

describe.each([
  ['split', {}],
  ['packed', packed],
] as const)('inflation, on a %s ring', (_, rings) => {
  test('says of every page that it is zeros, in the order of the list, and it is', () => {
    const rig = open(rings);
    rig.touch(P, 64);
    const pages = [P + 5, P + 3, P + 40, P, P + 1, P + 2, P + 63, P + 9, P + 10];
    expect(inflated(rig, pages)).toEqual(pages.map(() => true));
    for (const pfn of pages) expect(rig.contentOf(pfn)).toBe(0);
    expect(rig.contentOf(P + 4)).toBe(0xa5);
    // Nothing is acknowledged before it is gone.
    expect(rig.pendingPages).toBe(0);
  });

  test('says nothing of pages that are no memory, and as much as there is room for', () => {
    const rig = open(rings);
    expect(inflated(rig, [P, 2 ** 31, P + 1])).toEqual([true, false, true]);
    const pages = Array.from({ length: 20 }, (_unused, at) => P + at);
    expect(inflated(rig, pages, 1)).toHaveLength(8);
    expect(inflated(rig, pages, 64)).toEqual(pages.map(() => true));
    expect(rig.queue('inflate').exchange({ out: [pfns(P + 30)] })).toMatchObject([{ written: 0 }]);
    expect(rig.balloonedPages).toBe(21);
  });
});

test('a list that names more pages than there are is promised nothing', () => {
  const rig = open({ memoryBytes: 4 * MIB, discardUnit: PAGE_SIZE });
  const memoryPages = (4 * MIB) / PAGE_SIZE;
  const pages = Array.from({ length: memoryPages + 1 }, (_, at) => P + (at % 8));
  rig.forgetLists();
  const room = Math.ceil(pages.length / 8);
  const [{ written }] = rig
    .queue('inflate')
    .exchange({ out: [pfns(...pages)], in: [[(P + 64) * PAGE_SIZE, room]] });
  const bytes = new Uint8Array(written);
  rig.memory.read((P + 64) * PAGE_SIZE, bytes, 0, written);
  expect(bytes.every(byte => byte === 0)).toBe(true);
});

test('a batch of which a discard failed is promised nothing, and what was said in memory does not count', () => {
  const failing = { now: false };
  const rig = open({ wrapBacking: failingFrom(failing) });
  failing.now = true;
  expect(inflated(rig, [P, P + 1])).toEqual([]);
  failing.now = false;
  // The same pages once more: now they are gone.
  expect(inflated(rig, [P, P + 1])).toEqual([true, true]);
});

test('a device that acknowledges first promises nothing; it does so only when it is told to', () => {
  const rig = open();
  rig.device.inflation.mode = 'after-ack';
  rig.touch(P, 2);
  expect(inflated(rig, [P, P + 1])).toEqual([false, false]);
  expect(rig.pendingPages).toBe(2);
  rig.device.inflation.mode = 'auto';
  expect(inflated(rig, [P, P + 1])).toEqual([true, true]);
  rig.device.inflation.mode = 'none';
  expect(inflated(rig, [P + 2])).toEqual([false]);
});

test('pages of huge pages, which wait for the rest of theirs, are not promised', () => {
  const rig = open({ discardUnit: 2 * MIB });
  expect(inflated(rig, [P, P + 1])).toEqual([false, false]);
});

test('a driver that wants other values than zeros is promised nothing', () => {
  const rig = open({ without: 0n });
  rig.writeConfig('poisonValue', 0xaa);
  expect(inflated(rig, [P])).toEqual([false]);
  const [{ written }] = rig.queue('reporting').exchange({ in: [[P * PAGE_SIZE, PAGE_SIZE]] });
  expect(written).toBe(0);
});

test.each([false, true])('the promise waits for discards of other threads: %s', discardsElsewhere => {
  const rig = open({ discardsElsewhere });
  rig.touch(P, 8);
  rig.forgetLists();
  const queue = rig.queue('inflate');
  queue.add({ out: [pfns(P, P + 1)], in: [[ROOM, 1]] });
  queue.kick();
  if (discardsElsewhere) {
    expect(queue.collect()).toEqual([]);
    while (rig.discardSome());
    rig.device.settle();
  }
  expect(queue.collect()).toMatchObject([{ written: 1 }]);
  expect([rig.contentOf(P), rig.contentOf(P + 1)]).toEqual([0, 0]);
});

describe('a report', () => {
  test('has the length of its pages, which are zeros', () => {
    const rig = open();
    rig.touch(P, 64);
    const blocks = [
      [P * PAGE_SIZE, 16 * PAGE_SIZE],
      [(P + 32) * PAGE_SIZE, 4 * PAGE_SIZE],
    ] as const;
    const [{ written }] = rig.queue('reporting').exchange({ in: blocks });
    expect(written).toBe(20 * PAGE_SIZE);
    expect([rig.contentOf(P + 15), rig.contentOf(P + 16), rig.contentOf(P + 35)]).toEqual([0, 0xa5, 0]);
  });

  test('is as long as what can be discarded of it from its beginning on', () => {
    const rig = open({ discardUnit: 2 * MIB });
    const huge = [4 * MIB, 2 * MIB] as const;
    const part = [8 * MIB + PAGE_SIZE, 2 * MIB] as const;
    const lengthOf = (...blocks: readonly (readonly [number, number])[]) =>
      rig.queue('reporting').exchange({ in: blocks })[0].written;
    expect(lengthOf(huge, part)).toBe(2 * MIB);
    expect(lengthOf(part, huge)).toBe(0);
  });

  test('of which a discard failed has no length', () => {
    const failing = { now: true };
    const rig = open({ wrapBacking: failingFrom(failing) });
    const [{ written }] = rig.queue('reporting').exchange({ in: [[P * PAGE_SIZE, PAGE_SIZE]] });
    expect(written).toBe(0);
  });
});

test('each of the two is offered, and left out, by itself', () => {
  const reports = open({ without: PAGE_POISON | DEVICE_INIT_ON_INFLATE });
  expect(reports.queue('reporting').exchange({ in: [[P * PAGE_SIZE, PAGE_SIZE]] })[0].written).toBe(
    PAGE_SIZE,
  );
  expect(reports.device.inflation.acknowledgesFirst).toBe(true);
  const inflation = open({ without: PAGE_POISON | DEVICE_INIT_REPORTED });
  expect(inflated(inflation, [P])).toEqual([true]);
  expect(inflation.queue('reporting').exchange({ in: [[P * PAGE_SIZE, PAGE_SIZE]] })[0].written).toBe(0);
});
