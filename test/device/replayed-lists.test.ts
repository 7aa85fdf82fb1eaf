/** Lists that a guest sends a second time: each page is given once and taken back once, and the account stays exact. */
import { describe, expect, test } from 'vitest';
import { MUST_TELL_HOST } from '../../src/balloon/features.ts';
import { PROFILE_NAMES } from '../../src/balloon/profiles.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { type DeviceRig, FIRST_PAGE, openRig, packed, type Run } from '../support/device-rig.ts';

const P = FIRST_PAGE;
const RINGS = [
  ['split', {}],
  ['packed', packed],
] as const;
const RUNS: readonly Run[] = [
  [P, 40],
  [P + 64, 1],
  [P + 100, 3],
];
const PAGES = 44;

/** Sends the list `times` times in one batch. */
function replay(rig: DeviceRig, role: 'inflate' | 'deflate', times: number): void {
  const queue = rig.queue(role);
  rig.forgetLists();
  let buffers = 0;
  for (let time = 0; time < times; time++) {
    for (const buffer of rig.encode(rig.inflateFormat, RUNS)) {
      queue.add(buffer);
      buffers++;
    }
  }
  queue.kick();
  expect(queue.collect()).toHaveLength(buffers);
}

/** Which pages the account has. */
const given = (rig: DeviceRig): [number, number][] => {
  const runs: [number, number][] = [];
  for (const { region, ballooned } of rig.device.accounts.all) {
    ballooned.forEachRun((page, count) => runs.push([region.firstPfn + page, count]));
  }
  return runs;
};

describe.each(PROFILE_NAMES)('profile %s', name => {
  const cases = RINGS.flatMap(([ring, options]) => [
    [`${ring} rings, told`, options] as const,
    [`${ring} rings, not told`, { ...options, without: MUST_TELL_HOST }] as const,
  ]);

  // An account that adds up what lists name, in place of the pages that they change, fails it.
  test.each(cases)('the same list twice changes nothing the second time (%s)', (_, options) => {
    const rig = openRig({ profile: name, memory: 'shmem', ...options });
    rig.touch(P, 128, 0x3c);
    const resident = rig.residentBytes;
    for (const times of [1, 1, 2]) {
      replay(rig, 'inflate', times);
      expect([rig.balloonedPages, given(rig)]).toEqual([PAGES, RUNS]);
    }
    rig.device.drain();
    expect(rig.pendingPages).toBe(0);
    expect(rig.residentBytes).toBe(resident - PAGES * PAGE_SIZE);
    const { badPages } = rig.device.counters;
    expect(badPages).toBe(0);

    replay(rig, 'deflate', 1);
    expect([rig.balloonedPages, given(rig)]).toEqual([0, []]);
    rig.touch(P, 128, 0x4d);
    // What is not in the balloon cannot be taken out of it, and keeps what it holds.
    for (const times of [1, 2]) replay(rig, 'deflate', times);
    expect([rig.balloonedPages, given(rig)]).toEqual([0, []]);
    expect(rig.device.counters).toMatchObject({ deflatedPages: PAGES, badPages: 3 * PAGES, badBuffers: 0 });
    rig.device.drain();
    for (const pfn of [P, P + 39, P + 64, P + 102]) expect(rig.contentOf(pfn)).toBe(0x4d);
    expect(rig.residentBytes).toBe(resident);

    // Given anew after all that, once.
    replay(rig, 'inflate', 2);
    rig.device.drain();
    expect(rig.balloonedPages).toBe(PAGES);
    expect(rig.residentBytes).toBe(resident - PAGES * PAGE_SIZE);
  });
});
