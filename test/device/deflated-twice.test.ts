/**
 * Deflations that are taken once more, since their buffers were not returned when the device, or its process, stopped: what of
 * them has left the account already is no bad page, and pages that no deflation took are.
 */
import { expect, test } from 'vitest';
import type { AccountPlace } from '../../src/device/page-accounts.ts';
import { BLOCK_PAGES } from '../../src/memory/block-bitmap.ts';
import { wordsFor } from '../../src/memory/page-bitmap.ts';
import {
  type DeviceRig,
  openRig,
  FIRST_PAGE as P,
  type RigOptions,
  type Run,
} from '../support/device-rig.ts';

/** Accounts of one region that outlive the device. */
function place(): AccountPlace {
  let words: ReturnType<AccountPlace['wordsOf']> | undefined;
  return {
    wordsOf: ({ pageCount }) => {
      words ??= {
        counts: new Int32Array(Math.ceil(pageCount / BLOCK_PAGES)),
        words: new Int32Array(wordsFor(pageCount)),
      };
      return words;
    },
    tenureChanged: () => {},
    untold: new Uint32Array(1),
  };
}

/** Offers a deflation that is taken and not returned, for a discard is under way on its pages. */
function keepDeflation(rig: DeviceRig, ...runs: readonly Run[]): void {
  expect(rig.device.accounts.all[0].pending.beginRun()).toBeDefined();
  expect(rig.deflate(...runs)).toEqual([]);
}

/** The device of the next process, to which the driver offers its buffers again. */
function successor(accountPlace: AccountPlace, options: RigOptions = {}): DeviceRig {
  const rig = openRig({ accountPlace, ...options });
  rig.device.recover({
    actualPages: 0,
    poisonValue: 0,
    hintId: 0,
    begun: true,
    partial: false,
    settled: true,
    actualKnown: true,
  });
  // Until the ring goes on, nothing is discarded.
  rig.device.suspendQueue(0);
  rig.device.resumeQueue(0);
  return rig;
}

const figures = ({ device }: DeviceRig) => ({
  deflated: device.inflation.counters.deflatedPages,
  bad: device.counters.badPages,
});

/** A process ended after it had taken a deflation of 4 pages. */
function ended(): AccountPlace {
  const accountPlace = place();
  const rig = openRig({ discardsElsewhere: true, accountPlace });
  rig.inflate([P, 10]);
  keepDeflation(rig, [P + 2, 3], [P + 7, 1]);
  expect(rig.balloonedPages).toBe(6);
  return accountPlace;
}

test('a deflation that is taken again after a crash has no bad page (failed before: all of them)', () => {
  const accountPlace = ended();
  const rig = successor(accountPlace);
  expect(rig.deflate([P + 2, 3], [P + 7, 1])).toHaveLength(1);
  expect(figures(rig)).toEqual({ deflated: 4, bad: 0 });
  expect(accountPlace.untold[0]).toBe(0);
  expect(rig.balloonedPages).toBe(6);
  // Once: the driver has heard of it.
  rig.deflate([P + 2, 3]);
  expect(figures(rig)).toEqual({ deflated: 4, bad: 3 });
});

test('nor one that is taken again after two crashes, beside one that is new', () => {
  const accountPlace = ended();
  const second = successor(accountPlace, { discardsElsewhere: true });
  second.inflate([P + 20, 5]);
  keepDeflation(second, [P + 2, 3], [P + 7, 1], [P, 1], [P + 21, 2]);
  expect(figures(second)).toEqual({ deflated: 7, bad: 0 });
  const third = successor(accountPlace);
  third.deflate([P + 2, 3], [P + 7, 1], [P, 1], [P + 21, 2]);
  expect(figures(third)).toEqual({ deflated: 7, bad: 0 });
});

test('pages that no deflation took are bad all the same, whatever a driver names first', () => {
  const rig = successor(ended());
  rig.deflate([P + 100, 3], [P + 2, 3], [P + 7, 1]);
  expect(figures(rig)).toEqual({ deflated: 4, bad: 3 });
  rig.deflate([P + 200, 1]);
  expect(figures(rig)).toEqual({ deflated: 4, bad: 4 });
});

test('a driver cannot keep for later what it may name again', () => {
  const size = 4;
  const rig = successor(ended(), { queueSize: size });
  for (let buffers = 0; buffers < size; buffers++) rig.deflate([P + 8, 1]);
  expect(figures(rig)).toEqual({ deflated: size, bad: 0 });
  rig.deflate([P + 8, 1]);
  expect(figures(rig)).toEqual({ deflated: size, bad: 1 });
});

test('a deflation that is half taken when its ring stands still has no bad page (failed before: what of it was taken)', () => {
  const rig = openRig();
  rig.inflate([P, 2000]);
  const { index, driver } = rig.queue('deflate');
  const runs = Array.from({ length: 400 }, (_, at): Run => [P + 3 * at, 1]);
  rig.forgetLists();
  for (const buffer of rig.encode(rig.inflateFormat, runs)) rig.queue('deflate').add(buffer);
  driver.publish(rig.memory);
  rig.device.serveQueue(index, 2500);
  const { deflated } = figures(rig);
  expect(deflated).toBeGreaterThan(0);
  expect(deflated).toBeLessThan(400);
  rig.device.suspendQueue(index);
  rig.device.resumeQueue(index);
  while (rig.device.serveQueue(index));
  expect(rig.queue('deflate').collect()).not.toEqual([]);
  expect(rig.balloonedPages).toBe(1600);
  expect(figures(rig).bad).toBe(0);
});

test('single pages of a balloon that another device filled are unknown, and not bad (failed before beside known ones)', () => {
  const rig = openRig();
  rig.inflate([P, 10]);
  rig.device.accounts.partial = true;
  rig.deflate([P + 20, 1]);
  expect(figures(rig).bad).toBe(0);
  expect(rig.device.inflation.counters.unknownPages).toBe(1);
});
