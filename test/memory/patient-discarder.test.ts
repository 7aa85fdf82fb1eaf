/** When what is pending is discarded: at once where it lies close together, else when nothing is gained by waiting. */

import { beforeEach, describe, expect, test } from 'vitest';
import { DENSE_RUN_BYTES } from '../../src/memory/discard-claims.ts';
import { HugeUnits } from '../../src/memory/huge-units.ts';
import { PATIENCE_MS, PatientDiscarder } from '../../src/memory/patient-discarder.ts';
import { PendingDiscards } from '../../src/memory/pending-discards.ts';
import { CLAIM_BYTES_MAX } from '../../src/memory/pending-state.ts';

const PAGE = 4096;
const STRETCH = CLAIM_BYTES_MAX / PAGE;
const STRETCHES = 32;
const UNITS = STRETCHES * STRETCH;
const DENSE_RUN = DENSE_RUN_BYTES / PAGE;

let nowMs: number;
let set: PendingDiscards;
let discarder: PatientDiscarder;
let discarded: number;
let runs: number;

beforeEach(() => {
  nowMs = 1000;
  discarded = 0;
  runs = 0;
  set = PendingDiscards.create(UNITS, PAGE);
  // By the clock of the test no time passes.
  set.claimMsMax = Number.POSITIVE_INFINITY;
  set.runMsMax = Number.POSITIVE_INFINITY;
  discarder = new PatientDiscarder(
    set,
    PAGE,
    (_, count) => {
      discarded += count;
      runs++;
    },
    () => nowMs,
  );
});

/** Every `step`th page, from `first` on, in all stretches; returns how many. */
function markSparsely(first: number, step: number): number {
  let marked = 0;
  for (let unit = first; unit < UNITS; unit += step) marked += set.mark(unit, 1);
  return marked;
}

/** As the discarding thread does when it is woken; returns what was discarded. */
function sweep(): number {
  const before = discarded;
  while (discarder.discardSome().more);
  return discarded - before;
}

describe('what lies close together', () => {
  test('is discarded at once, whatever else is there', () => {
    const sparse = markSparsely(1, 4);
    set.mark(5 * STRETCH, STRETCH);
    expect(discarder.discardSome().more).toBe(true);
    expect([discarded, runs]).toEqual([STRETCH, 1]);
    expect(set.outstanding).toBe(sparse - STRETCH / 4);
  });

  test('has runs of 64 KiB on average: one page less, and it waits', () => {
    const runsOf = (length: number) => {
      for (let unit = 0; unit + length < UNITS; unit += 2 * DENSE_RUN) set.mark(unit, length);
    };
    runsOf(DENSE_RUN - 1);
    expect(sweep()).toBe(0);
    runsOf(DENSE_RUN);
    expect(sweep()).toBe(UNITS / 2);
  });

  test('is a single huge page', () => {
    const huge = PendingDiscards.create(512, 2 ** 21);
    const claims: number[] = [];
    const patient = new PatientDiscarder(huge, 2 ** 21, start => claims.push(start));
    for (let unit = 1; unit < 512; unit += 2) huge.mark(unit, 1);
    while (patient.discardSome().more);
    expect(claims.length).toBe(256);
  });
});

describe('sparse pages', () => {
  test('wait while more arrive, and go when they have become dense', () => {
    for (let first = 0; first < 15; first++) {
      markSparsely(first, 16);
      expect(sweep()).toBe(0);
      expect([discarder.waiting, set.waiting]).toEqual([true, true]);
      nowMs += 10;
    }
    markSparsely(15, 16);
    expect(sweep()).toBe(UNITS);
    expect(runs).toBe(STRETCHES);
    expect([discarder.waiting, set.waiting]).toEqual([false, false]);
  });

  test('go when the guest pauses', () => {
    const marked = markSparsely(0, 4);
    expect(sweep()).toBe(0);
    nowMs += 10;
    expect(sweep()).toBe(marked);
    expect(discarder.waiting).toBe(false);
  });

  test('go when there are few', () => {
    set.mark(10, 1);
    set.mark(20, 1);
    expect(sweep()).toBe(2);
  });

  test('go to the thread that keeps up with the guest, though it gives more meanwhile', () => {
    const marked = markSparsely(0, 4);
    sweep();
    let more = 0;
    while (discarder.discardSome().more) {
      // Less than what a claim takes.
      if (more < 2000) for (let unit = 0; unit < 100; unit++) more += set.mark(2 + more * 4, 1);
    }
    expect(discarded).toBe(marked + more);
  });

  test('stop going when the guest is faster again', () => {
    markSparsely(0, 8);
    sweep();
    expect(discarder.discardSome().more).toBe(true);
    markSparsely(2, 8);
    markSparsely(4, 8);
    expect(discarder.discardSome().more).toBe(false);
    expect(set.waiting).toBe(true);
  });

  test('wait no longer than the limit, then all go for a round, and the next ones wait anew', () => {
    let first = 0;
    const startMs = nowMs;
    for (; nowMs < startMs + PATIENCE_MS; nowMs += 100) {
      markSparsely(2 * first++, 32);
      expect(sweep()).toBe(0);
    }
    const marked = set.outstanding + markSparsely(2 * first++, 32);
    let claims = 0;
    // The guest is still the faster one.
    for (; claims < STRETCHES; claims++) {
      expect(discarder.discardSome().more).toBe(true);
      expect(set.waiting).toBe(false);
      set.mark(UNITS - 1 - 2 * claims, 1);
    }
    expect(discarded).toBeGreaterThanOrEqual(marked);
    // The round is over.
    set.retractAll();
    sweep();
    markSparsely(0, 8);
    expect(sweep()).toBe(0);
    expect(discarder.waiting).toBe(true);
  });
});

describe('memory that the host holds in huge pages', () => {
  const HUGE = 512;
  /** How long the rest of a huge page may take. */
  const REST_MS = 20;
  let discards: [start: number, count: number][];

  beforeEach(() => {
    discards = [];
    set.huge = HugeUnits.of(HUGE * PAGE, PAGE, 0);
    const discard = (start: number, count: number) => void discards.push([start, count]);
    discarder = new PatientDiscarder(set, PAGE, discard, () => nowMs);
  });

  const sweepAll = () => {
    while (discarder.discardSome().more);
  };

  test('is discarded in whole ones, and the parts at both ends wait for the rest of theirs', () => {
    set.mark(100, 3 * HUGE);
    sweepAll();
    expect(discards).toEqual([[HUGE, 2 * HUGE]]);
    expect([set.outstanding, discarder.waiting, set.hugePagesCut]).toEqual([HUGE, true, 0]);
    nowMs += REST_MS - 1;
    set.mark(0, 100);
    set.mark(3 * HUGE + 100, HUGE - 100);
    sweepAll();
    expect(discards.slice(1)).toEqual([
      [0, HUGE],
      [3 * HUGE, HUGE],
    ]);
    expect([set.outstanding, discarder.waiting, set.hugePagesCut]).toEqual([0, false, 0]);
  });

  test('is given back in parts, and counted, when the guest gives nothing for a while', () => {
    set.mark(100, HUGE);
    sweepAll();
    nowMs += REST_MS - 1;
    sweepAll();
    expect(discards).toEqual([]);
    nowMs += 1;
    sweepAll();
    expect(discards).toEqual([[100, HUGE]]);
    expect([set.outstanding, discarder.waiting, set.hugePagesCut]).toEqual([0, false, 2]);
  });

  test('waits no longer than sparse pages do while the guest goes on', () => {
    let given = 0;
    const startMs = nowMs;
    for (; nowMs < startMs + PATIENCE_MS; nowMs += REST_MS - 1) {
      given += set.mark(2 * given, 1);
      sweepAll();
      expect(discards).toEqual([]);
    }
    sweepAll();
    expect(set.outstanding).toBe(0);
  });

  test('waits for nothing when the end of all discards is waited for', () => {
    set.mark(7, HUGE - 1);
    set.haste = true;
    sweepAll();
    expect(discards).toEqual([[7, HUGE - 1]]);
  });

  test('is cut between huge pages where runs take long', () => {
    set.runMsMax = -1;
    // A stretch that is marked as a whole is not cut.
    for (let at = 0; at < 4 * STRETCH; at += HUGE) set.mark(at, HUGE);
    sweepAll();
    expect(discards.length).toBeGreaterThan(8);
    expect(discards.filter(([start, count]) => start % HUGE !== 0 || count % HUGE !== 0)).toEqual([]);
  });

  test('has long runs again as soon as they take little', () => {
    set.runMsMax = -1;
    for (let at = 0; at < 4 * STRETCH; at += HUGE) set.mark(at, HUGE);
    sweepAll();
    expect(discards.at(-1)?.[1]).toBe(HUGE);
    set.runMsMax = Number.POSITIVE_INFINITY;
    discards = [];
    for (let at = 0; at < 4 * STRETCH; at += HUGE) set.mark(at, HUGE);
    sweepAll();
    expect(discards.at(-1)?.[1]).toBe(STRETCH);
  });

  test('may begin in the middle of one', () => {
    set.huge = HugeUnits.of(HUGE * PAGE, PAGE, 128 * PAGE);
    set.mark(0, 2 * HUGE);
    sweepAll();
    expect(discards).toEqual([[HUGE - 128, HUGE]]);
  });
});

test('a set that is closed while its pages wait is left alone', () => {
  markSparsely(0, 4);
  sweep();
  set.close();
  expect(sweep()).toBe(0);
  expect(discarder.waiting).toBe(false);
});
