/** A device beside threads that discard: what has to wait for them is kept, and nothing else waits. */

import { expect, test } from 'vitest';
import { MUST_TELL_HOST } from '../../src/balloon/features.ts';
import type { PendingDiscards } from '../../src/memory/pending-discards.ts';
import { type DeviceRig, openRig, FIRST_PAGE as P } from '../support/device-rig.ts';

const open = (options: Parameters<typeof openRig>[0] = {}): DeviceRig =>
  openRig({ memory: 'shmem', discardsElsewhere: true, ...options });

type OpenRun = NonNullable<ReturnType<PendingDiscards['beginRun']>>;

/** The next run, as another thread takes it; it is in flight until it is ended. */
function begin(rig: DeviceRig): OpenRun {
  const run = rig.device.accounts.all[0].pending.beginRun();
  if (run === undefined) throw new Error('nothing is pending');
  return run;
}

function end(rig: DeviceRig, run: OpenRun): void {
  expect(run.end(rig.device.accounts.all[0].discardUnits)).toBeUndefined();
}

/** As a data-plane thread does that was rung; returns which rings went on. */
function progress(rig: DeviceRig): number[] {
  const indices = [...rig.device.resumable()];
  for (const index of indices) rig.device.serveQueue(index);
  return indices;
}

test('a deflation of pages that are being punched is returned when the punch has ended, and no sooner', () => {
  const rig = open();
  rig.touch(P, 64);
  expect(rig.inflate([P, 64]).length).toBe(1);
  const run = begin(rig);
  expect(rig.deflate([P + 8, 4])).toEqual([]);
  // Asked for nothing: not by kicks, nor by news of something else.
  rig.device.serveQueue(rig.queue('deflate').index);
  progress(rig);
  expect(rig.queue('deflate').collect()).toEqual([]);
  // Other rings go on.
  expect(rig.inflate([P + 100, 4]).length).toBe(1);
  end(rig, run);
  expect(progress(rig)).toEqual([rig.queue('deflate').index]);
  expect(rig.queue('deflate').collect().length).toBe(1);
  expect(rig.device.inflation.acknowledgeTimes.durations.counts.reduce((sum, count) => sum + count)).toBe(3);
});

test('a deflation of pages that are pending beside the punch waits for nothing', () => {
  const rig = open();
  rig.touch(P, 64, 0x5a);
  rig.inflate([P, 8], [P + 16, 8]);
  const run = begin(rig);
  expect(rig.deflate([P + 16, 8]).length).toBe(1);
  expect(rig.contentOf(P + 16)).toBe(0x5a);
  end(rig, run);
});

test('more huge pages of the pool than small ones may be pending when a batch is returned', () => {
  const size = 8 * 2 ** 30;
  const pages = 7 * 2 ** 18;
  const openOf = (discardUnit: number) =>
    open({
      profile: 'page-chunks',
      memoryBytes: size,
      wrapBacking: backing =>
        new Proxy(backing, {
          get: (target, name) => {
            if (name === 'discardUnit') return discardUnit;
            const found = Reflect.get(target, name, target);
            return typeof found === 'function' ? found.bind(target) : found;
          },
        }),
    });
  const small = openOf(4096);
  expect(small.inflate([P, pages])).toEqual([]);
  const huge = openOf(2 ** 21);
  expect(huge.inflate([P, pages]).length).toBe(1);
  expect(huge.pendingPages).toBe(pages);
});

test('without MUST_TELL_HOST a batch is returned when its pages are discarded', () => {
  const rig = open({ without: MUST_TELL_HOST });
  rig.touch(P, 64);
  const before = rig.residentBytes;
  expect(rig.inflate([P, 64])).toEqual([]);
  expect(rig.host.hurries).toBe(1);
  expect(progress(rig).length).toBe(1);
  expect(rig.queue('inflate').collect()).toEqual([]);
  while (rig.discardSome());
  progress(rig);
  expect(rig.queue('inflate').collect().length).toBe(1);
  expect(before - rig.residentBytes).toBe(64 * 4096);
});

test('a pause is settled when all is discarded, and no ring is served before', () => {
  const rig = open();
  rig.touch(P, 64);
  rig.inflate([P, 64]);
  expect(rig.device.settle()).toBe(true);
  rig.device.stopQueue(rig.queue('inflate').index, 'paused');
  expect(rig.device.settle()).toBe(false);
  // Another ring of the guest has to wait, for the front-end relies on the answer.
  expect(rig.deflate([P, 4])).toEqual([]);
  while (rig.discardSome());
  expect(rig.device.settle()).toBe(true);
  expect(progress(rig)).toEqual([rig.queue('deflate').index]);
  expect(rig.queue('deflate').collect().length).toBe(1);
});

test('a region that goes is let go of when the punch in it has ended', () => {
  const rig = open();
  rig.touch(P, 64);
  rig.inflate([P, 64]);
  const run = begin(rig);
  let gone = 0;
  rig.device.regionRemoved(rig.region, () => gone++);
  expect([gone, rig.device.settle()]).toEqual([0, false]);
  expect(run.end((start, count) => rig.region.backing.discard(start * 4096, count * 4096))).toBeUndefined();
  expect([rig.device.settle(), gone]).toEqual([true, 1]);
  expect(rig.device.inflation.discards.punches).toBe(1);
});
