/** The device that takes frames out of its guest's allocator: beside threads that discard, and against guests that lie. */
import { describe, expect, test } from 'vitest';
import {
  FRAME_BYTES,
  FRAME_EVICTED,
  FRAME_FREE,
  FRAME_HELD,
  FRAME_HUGE,
  FRAME_PAGES,
  FRAME_RECLAIMING,
  LAYOUT_VERSION,
  LEND,
  SHARED_MESSAGE,
  sharedWordCount,
  WAIT,
  WITHDRAW,
} from '../../src/balloon/shared-frames.ts';
import { saveDevice, saveForSuccessor } from '../../src/device/saved-device.ts';
import type { Backing } from '../../src/memory/backing.ts';
import { SharedWords } from '../../src/memory/shared-words.ts';
import { SystemError } from '../../src/sys/error.ts';
import { type DeviceRig, openRig, type RigOptions } from '../support/device-rig.ts';

const FRAMES = 8;
/** In the first frame, behind rings and lists. */
const STATE = 0x1f_0000;

interface Lent {
  readonly rig: DeviceRig;
  readonly words: SharedWords;
}

function open(options: RigOptions = {}): Lent {
  const rig = openRig({ profile: 'shared', memory: 'shmem', ...options });
  const words = new SharedWords(rig.memory, STATE, sharedWordCount(FRAMES));
  for (let frame = 0; frame < FRAMES; frame++) words.replace(frame, words.load(frame), FRAME_FREE);
  return { rig, words };
}

const message = (
  command: number,
  fields: Partial<Record<'version' | 'address' | 'firstPfn' | 'frames', number>> = {},
) => SHARED_MESSAGE.encode({ command, version: 0, address: 0, firstPfn: 0, frames: 0, ...fields });

const LENDING = message(LEND, { version: LAYOUT_VERSION, address: STATE, frames: FRAMES });

function say({ rig }: Lent, bytes: Uint8Array): number {
  return rig.queue('shared').exchange({ out: [bytes] }).length;
}

/** A guest of so many frames, all of which it has lent. */
function openMany(frames: number): Lent {
  const memoryBytes = frames * FRAME_BYTES;
  const rig = openRig({ profile: 'shared', memory: 'heap', memoryBytes, discardsElsewhere: true });
  const words = new SharedWords(rig.memory, STATE, sharedWordCount(frames));
  for (let frame = 0; frame < frames; frame++) words.replace(frame, words.load(frame), FRAME_FREE);
  const lent = { rig, words };
  expect(say(lent, message(LEND, { version: LAYOUT_VERSION, address: STATE, frames }))).toBe(1);
  return lent;
}

const all = ({ words }: Lent) => Array.from({ length: FRAMES }, (_, frame) => words.load(frame));

/** As a thread that discards does; and what the data-plane thread does that was rung. */
function discardAll({ rig }: Lent): void {
  for (const account of rig.device.accounts.all) {
    while (account.reports?.discardSome(account.discardUnits).more);
    while (account.pending.discardSome(account.discardUnits).more);
  }
}

function progress({ rig }: Lent): void {
  for (const index of [...rig.device.resumable()]) rig.device.serveQueue(index);
}

const EVICTED = [FRAME_FREE, ...Array(FRAMES - 1).fill(FRAME_EVICTED)];

describe('beside threads that discard', () => {
  test('a frame is said to be evicted when its memory is gone, and no sooner', () => {
    const lent = open({ discardsElsewhere: true });
    const { rig } = lent;
    expect(say(lent, LENDING)).toBe(1);
    rig.touch(FRAME_PAGES, FRAMES * FRAME_PAGES - FRAME_PAGES);
    const before = rig.residentBytes;
    rig.device.shared.evict();
    // Never the frame in which the state itself lies.
    expect(all(lent)).toEqual([FRAME_FREE, ...Array(FRAMES - 1).fill(FRAME_RECLAIMING)]);
    expect(rig.host.hurries).toBeGreaterThan(0);
    progress(lent);
    expect(all(lent)[1]).toBe(FRAME_RECLAIMING);
    discardAll(lent);
    progress(lent);
    expect(all(lent)).toEqual(EVICTED);
    expect(before - rig.residentBytes).toBe((FRAMES - 1) * FRAME_BYTES);
    expect(rig.device.reporting.totals.punches).toBe(1);
  });

  test('of many free frames some are evicted at a time, so that a guest that works finds others', () => {
    const frames = 100;
    const lent = openMany(frames);
    const { rig, words } = lent;
    const count = (word: number) =>
      Array.from({ length: frames }, (_, frame) => words.load(frame)).filter(one => one === word).length;
    rig.device.shared.evict();
    let rounds = 0;
    for (; count(FRAME_RECLAIMING) > 0; rounds++) {
      expect(count(FRAME_RECLAIMING)).toBeLessThanOrEqual(32);
      expect(count(FRAME_FREE) + count(FRAME_EVICTED)).toBeGreaterThanOrEqual(frames - 32);
      discardAll(lent);
      progress(lent);
    }
    expect(rounds).toBe(4);
    expect(count(FRAME_EVICTED)).toBe(frames - 1);
  });

  test.each([
    ['a guest that waits for memory', WAIT],
    ['a driver that takes its state back', WITHDRAW],
  ])('%s hears when all is discarded that was begun before, and no sooner', (_, command) => {
    const lent = open({ discardsElsewhere: true });
    const { rig } = lent;
    say(lent, LENDING);
    rig.device.shared.evict();
    expect(say(lent, message(command))).toBe(0);
    progress(lent);
    expect(rig.queue('shared').collect()).toEqual([]);
    discardAll(lent);
    progress(lent);
    expect(rig.queue('shared').collect()).toHaveLength(1);
    if (command === WAIT) expect(all(lent)).toEqual(EVICTED);
    else expect(rig.device.shared.lent).toBe(false);
  });

  test('memory of held frames goes back while the words of others are changed', () => {
    const frames = 200;
    const { rig, words } = openMany(frames);
    const changed: number[] = [];
    rig.host.pendingMarked = () => {
      const held = Array.from({ length: frames }, (_, frame) => words.load(frame)).filter(
        word => word === FRAME_HELD,
      ).length;
      changed.push(held);
      // All that is marked, and nothing else, is held by then.
      expect(rig.device.accounts.pendingPages).toBe(held * FRAME_PAGES);
    };
    rig.device.targetPages = (frames - 1) * FRAME_PAGES;
    // Frames 199 to 192, to 128, to 64, and all.
    expect(changed).toEqual([8, 72, 136, 199]);
  });

  test('a frame that is returned before it was discarded keeps its memory', () => {
    const lent = open({ discardsElsewhere: true });
    const { rig } = lent;
    say(lent, LENDING);
    rig.touch(FRAME_PAGES, FRAMES * FRAME_PAGES - FRAME_PAGES, 0x5a);
    rig.device.targetPages = 4 * FRAME_PAGES;
    expect(all(lent).filter(word => word === FRAME_HELD)).toHaveLength(4);
    expect(rig.balloonedPages).toBe(4 * FRAME_PAGES);
    expect(rig.pendingPages).toBe(4 * FRAME_PAGES);
    rig.device.targetPages = 0;
    expect(all(lent)).toEqual(Array(FRAMES).fill(FRAME_FREE));
    discardAll(lent);
    for (let frame = 1; frame < FRAMES; frame++) expect(rig.contentOf(frame * FRAME_PAGES)).toBe(0x5a);
  });

  test('a frame on which a discard is under way is returned when that is over', () => {
    const lent = open({ discardsElsewhere: true });
    const { rig } = lent;
    say(lent, LENDING);
    rig.device.targetPages = 4 * FRAME_PAGES;
    const [account] = rig.device.accounts.all;
    const run = account.pending.beginRun();
    rig.device.targetPages = 0;
    expect(all(lent).filter(word => word === FRAME_HELD)).toHaveLength(4);
    run?.end(account.discardUnits);
    progress(lent);
    expect(all(lent)).toEqual(Array(FRAMES).fill(FRAME_FREE));
  });

  test('a device settles when nothing of it is under way', () => {
    const lent = open({ discardsElsewhere: true });
    say(lent, LENDING);
    lent.rig.device.shared.evict();
    expect(lent.rig.device.settle()).toBe(false);
    discardAll(lent);
    expect(lent.rig.device.settle()).toBe(true);
    expect(all(lent)).toEqual(EVICTED);
  });
});

test('a device whose guest has lent its allocator is not saved: another would not know what is held', () => {
  const lent = open();
  const { device } = lent.rig;
  expect(saveDevice(device).length).toBeGreaterThan(0);
  say(lent, LENDING);
  expect(() => saveDevice(device)).toThrow('has lent its allocator');
  expect(() => saveForSuccessor(device)).toThrow('has lent its allocator');
});

describe('a discard that fails', () => {
  test('leaves the frames to the guest, as free as they were', () => {
    const failing = (backing: Backing): Backing => {
      backing.discard = () => {
        throw new SystemError('fallocate', 5);
      };
      return backing;
    };
    const lent = open({ wrapBacking: failing });
    say(lent, LENDING);
    lent.rig.device.shared.evict();
    expect(all(lent)).toEqual(Array(FRAMES).fill(FRAME_FREE));
    expect(lent.rig.device.counters.evictedFrames).toBe(0);
  });
});

describe('a guest that lies', () => {
  const lending = (fields: Parameters<typeof message>[1]) =>
    message(LEND, { version: LAYOUT_VERSION, address: STATE, frames: FRAMES, ...fields });

  test.each([
    ['nothing', new Uint8Array(0)],
    ['half of a message', LENDING.subarray(0, 16)],
    ['more than a message', new Uint8Array(64)],
    ['an unknown command', message(7)],
    ['another layout', lending({ version: 2 })],
    ['an odd address', lending({ address: STATE + 4 })],
    ['a state beyond memory', lending({ address: 2 ** 40 })],
    ['a state that ends beyond memory', lending({ address: FRAMES * FRAME_BYTES - 4096, frames: 2 ** 31 })],
    ['frames that are not whole', lending({ firstPfn: 3 })],
    ['no frames', lending({ frames: 0 })],
    ['more frames than there is memory', lending({ frames: FRAMES + 1 })],
    ['numbers beyond all bounds', lending({ frames: 2 ** 52, firstPfn: 2 ** 52 })],
  ])('is refused who says %s', (_, bytes) => {
    const lent = open();
    expect(say(lent, bytes)).toBe(1);
    expect(lent.rig.device.counters.badBuffers).toBe(1);
    expect(lent.rig.device.shared.lent).toBe(false);
    expect(lent.rig.host.brokenRings).toEqual([]);
  });

  test('has frames beyond its memory left alone', () => {
    const lent = open();
    expect(say(lent, lending({ firstPfn: 4 * FRAME_PAGES }))).toBe(1);
    lent.rig.device.shared.evict();
    lent.rig.device.targetPages = 8 * FRAME_PAGES;
    // The last four of these frames are no memory: the target cannot be held in them.
    expect(all(lent).slice(4)).toEqual(Array(4).fill(FRAME_FREE));
    expect(lent.rig.device.accounts.balloonedPages).toBeLessThanOrEqual(4 * FRAME_PAGES);
    expect(lent.rig.readConfig('numPages')).toBe(4 * FRAME_PAGES);
  });

  test.each([-1, 0, 1, 511, 513, FRAME_HUGE, FRAME_RECLAIMING, FRAME_HELD, 0x7fff_ffff])(
    'has no frame taken whose word is %i',
    word => {
      const lent = open();
      say(lent, LENDING);
      for (let frame = 0; frame < FRAMES; frame++) lent.words.replace(frame, FRAME_FREE, word);
      lent.rig.device.shared.evict();
      lent.rig.device.targetPages = 8 * FRAME_PAGES;
      expect(all(lent)).toEqual(Array(FRAMES).fill(word));
      expect(lent.rig.device.accounts.balloonedPages).toBe(0);
    },
  );

  test('and changes words that are the host’s has them left as they are, counted, and costs one look a frame', () => {
    const lent = open({ discardsElsewhere: true });
    const { rig, words } = lent;
    say(lent, LENDING);
    let steps = 0;
    rig.host.stepSoon = () => steps++;
    rig.device.shared.evict();
    for (; steps > 0; steps--) rig.device.shared.step();
    for (let frame = 1; frame < FRAMES; frame++)
      words.replace(frame, FRAME_RECLAIMING, frame % 2 ? FRAME_FREE : 77);
    discardAll(lent);
    progress(lent);
    for (let turns = 0; steps > 0 && turns < 10; turns++) {
      steps--;
      rig.device.shared.step();
    }
    // Frames that are free again are not tried again before the next pass.
    expect(steps).toBe(0);
    expect(rig.device.counters.strayFrames).toBe(FRAMES - 1);
    expect(all(lent)).toEqual([FRAME_FREE, FRAME_FREE, 77, FRAME_FREE, 77, FRAME_FREE, 77, FRAME_FREE]);
    rig.device.targetPages = 2 * FRAME_PAGES;
    for (let frame = 0; frame < FRAMES; frame++) words.replace(frame, FRAME_HELD, FRAME_FREE);
    rig.device.targetPages = 0;
    expect(rig.device.counters.strayFrames).toBe(FRAMES + 1);
    expect(rig.device.accounts.balloonedPages).toBe(0);
  });

  test('and says that a frame is evicted does not keep its memory beyond its limit', () => {
    const lent = open();
    const { rig, words } = lent;
    say(lent, LENDING);
    rig.touch(FRAME_PAGES, FRAMES * FRAME_PAGES - FRAME_PAGES);
    const before = rig.residentBytes;
    for (let frame = 1; frame < FRAMES; frame++) words.replace(frame, FRAME_FREE, FRAME_EVICTED);
    rig.device.targetPages = 7 * FRAME_PAGES;
    expect(before - rig.residentBytes).toBe(7 * FRAME_BYTES);
  });

  test('and whose state is gone from memory is taken from no more', () => {
    const lent = open();
    const { rig } = lent;
    const { backing } = openRig({ memory: 'shmem', memoryBytes: FRAME_BYTES }).region;
    const region = rig.addRegion(FRAMES * FRAME_BYTES, backing);
    expect(say(lent, lending({ address: FRAMES * FRAME_BYTES }))).toBe(1);
    expect(rig.device.shared.lent).toBe(true);
    rig.memory.remove(region);
    rig.device.regionRemoved(region);
    rig.device.shared.evict();
    expect(rig.device.shared.lent).toBe(false);
    expect(rig.host.badInputs.at(-1)).toContain('is gone');
    rig.device.targetPages = 100;
    expect(rig.readConfig('numPages')).toBe(100);
  });
});
