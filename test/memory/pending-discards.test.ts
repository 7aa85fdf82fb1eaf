/** The set of units that wait to be discarded, against a plain set, with calls in the middle of each other. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HugeUnits } from '../../src/memory/huge-units.ts';
import { PendingDiscards } from '../../src/memory/pending-discards.ts';
import { CLAIM_BYTES_MAX } from '../../src/memory/pending-state.ts';
import { SystemError } from '../../src/sys/error.ts';

const PAGE = 4096;
const HUGE = 2 ** 21;
const ENOSPC = 28;
/** What was marked as a whole is discarded by so many stretches at a time, at most. */
const RUN_STRETCHES_MAX = 32;

type Call = { kind: 'mark' | 'retract'; start: number; count: number };
/** What one discard does: what happens in the middle of each of its runs, and whether it fails. */
type Step = Call | { kind: 'discard'; meanwhile: Call[]; fails: boolean };

const shapes = [
  // Units, their size, and so the units that a claim covers.
  { units: 10_000, unitBytes: PAGE, claimUnits: CLAIM_BYTES_MAX / PAGE },
  { units: 333, unitBytes: HUGE, claimUnits: 32 },
  { units: 70, unitBytes: 2 ** 30, claimUnits: 32 },
  { units: 1, unitBytes: PAGE, claimUnits: CLAIM_BYTES_MAX / PAGE },
] as const;

const callIn = (units: number): fc.Arbitrary<Call> =>
  fc
    .record({
      kind: fc.constantFrom('mark' as const, 'retract' as const),
      start: fc.nat(units - 1),
      count: fc.integer({ min: 1, max: Math.max(1, Math.floor(units / 3)) }),
    })
    .map(call => ({ ...call, count: Math.min(call.count, units - call.start) }));

const stepIn = (units: number): fc.Arbitrary<Step> =>
  fc.oneof(
    callIn(units),
    fc.record({
      kind: fc.constant('discard' as const),
      meanwhile: fc.array(callIn(units), { maxLength: 3 }),
      fails: fc.boolean(),
    }),
  );

/** A set and its model, which do the same. */
class Pair {
  readonly set: PendingDiscards;
  readonly claimUnits: number;
  pending = new Set<number>();
  /** In flight. */
  claimed = new Set<number>();
  discarded = 0;
  runs = 0;
  failures = 0;

  constructor({ units, unitBytes, claimUnits }: (typeof shapes)[number]) {
    this.set = PendingDiscards.create(units, unitBytes);
    // The model has no clock: nothing is cut or left because this machine is slow.
    this.set.claimMsMax = Number.POSITIVE_INFINITY;
    this.set.runMsMax = Number.POSITIVE_INFINITY;
    this.claimUnits = claimUnits;
  }

  call({ kind, start, count }: Call): void {
    const units = Array.from({ length: count }, (_, index) => start + index);
    const there = units.filter(unit => this.pending.has(unit)).length;
    if (kind === 'mark') {
      expect(this.set.mark(start, count)).toBe(count - there);
      for (const unit of units) this.pending.add(unit);
    } else {
      expect(this.set.retract(start, count)).toBe(there);
      for (const unit of units) this.pending.delete(unit);
    }
    const touched = units.some(unit => this.claimed.has(unit));
    if (touched) expect(this.set.inFlight(start, count)).toBe(true);
    if (this.claimed.size === 0) expect(this.set.inFlight(start, count)).toBe(false);
    expect(this.set.outstanding).toBe(this.pending.size + this.claimed.size);
    expect(this.set.countIn(start, count)).toBe(units.filter(unit => this.pending.has(unit)).length);
  }

  discard(meanwhile: readonly Call[], fails: boolean): boolean {
    const before = this.pending.size;
    let stretch: number | undefined;
    const { more, failure } = this.set.discardSome((start, count) => {
      stretch ??= Math.floor(start / this.claimUnits);
      // All of it lies in one stretch, but for stretches that were marked as a whole: then it is one run of those.
      if (count > this.claimUnits) {
        expect([start % this.claimUnits, count % this.claimUnits]).toEqual([0, 0]);
        expect(start / this.claimUnits).toBe(stretch);
        expect(count / this.claimUnits).toBeLessThanOrEqual(RUN_STRETCHES_MAX);
      } else {
        expect(Math.floor((start + count - 1) / this.claimUnits)).toBe(stretch);
      }
      // Maximal, unless runs are cut because they take long.
      const end = start + count;
      if (this.set.units === 10_000 && count < 64 && end % this.claimUnits !== 0)
        expect(this.pending.has(end)).toBe(false);
      this.claimed = new Set();
      for (let unit = start; unit < end; unit++) {
        expect(this.pending.delete(unit)).toBe(true);
        this.claimed.add(unit);
      }
      expect(this.set.outstanding).toBe(this.pending.size + count);
      for (const call of meanwhile) this.call(call);
      if (fails) {
        this.failures++;
        throw new SystemError('fallocate', ENOSPC);
      }
      this.discarded += count;
      this.runs++;
    });
    this.claimed = new Set();
    expect(more).toBe(before > 0);
    expect(failure?.message).toBe(fails && more ? 'fallocate failed with ENOSPC' : undefined);
    this.#checkTotals();
    return more;
  }

  #checkTotals(): void {
    const { set } = this;
    expect([set.discardedUnits, set.discards, set.failures, set.outstanding]).toEqual([
      this.discarded,
      this.runs,
      this.failures,
      this.pending.size,
    ]);
    expect(set.inFlight(0, set.units)).toBe(false);
  }
}

describe.each(shapes)('a set of $units units of $unitBytes bytes', shape => {
  test('hands every unit that is marked and not retracted to exactly one discard', () => {
    fc.assert(
      fc.property(fc.array(stepIn(shape.units), { maxLength: 25 }), steps => {
        const pair = new Pair(shape);
        for (const step of steps) {
          if (step.kind === 'discard') pair.discard(step.meanwhile, step.fails);
          else pair.call(step);
        }
        while (pair.discard([], false));
        expect(pair.pending.size).toBe(0);
      }),
    );
  });

  test('is one set for all who open it', () => {
    fc.assert(
      fc.property(fc.array(callIn(shape.units), { maxLength: 10 }), calls => {
        const pair = new Pair(shape);
        for (const call of calls) pair.call(call);
        const other = new PendingDiscards(pair.set.shared, shape.units, shape.unitBytes);
        expect(other.outstanding).toBe(pair.pending.size);
        const discarded = new Set<number>();
        expect(
          other.discardAll((start, count) => {
            for (let unit = start; unit < start + count; unit++) discarded.add(unit);
          }),
        ).toBeUndefined();
        expect(discarded).toEqual(pair.pending);
        expect(pair.set.discardedUnits).toBe(discarded.size);
        expect(pair.set.outstanding).toBe(0);
      }),
      { numRuns: 30 },
    );
  });
});

describe('a set', () => {
  const create = () => PendingDiscards.create(10_000, PAGE);

  test('goes round its stretches, so that one that is marked all the time does not starve the others', () => {
    const set = create();
    const order: number[] = [];
    set.mark(0, 1);
    set.mark(5000, 1);
    set.mark(9000, 1);
    for (let time = 0; time < 4; time++) {
      set.discardSome(start => order.push(start));
      set.mark(0, 1);
    }
    expect(order).toEqual([0, 5000, 9000, 0]);
  });

  test('forgets all that is marked, and says how much that was', () => {
    const set = create();
    set.mark(10, 50);
    set.mark(9990, 10);
    expect(set.retractAll()).toBe(60);
    expect(set.outstanding).toBe(0);
    expect(set.discardSome(() => expect.unreachable()).more).toBe(false);
  });

  test('is idle while nothing is marked or in flight, as the thread that marks sees it', () => {
    const set = PendingDiscards.create(10_000, PAGE);
    const other = new PendingDiscards(set.shared, 10_000, PAGE);
    expect(set.idle).toBe(true);
    set.markOne(7);
    expect(set.idle).toBe(false);
    set.retract(7, 1);
    expect(set.idle).toBe(true);
    set.mark(0, 10_000);
    const during: boolean[] = [];
    other.discardAll(() => during.push(set.idle));
    expect(during.length).toBeGreaterThan(1);
    expect(during).not.toContain(true);
    expect(set.idle).toBe(true);
  });

  test('that is closed hands out nothing, whatever is still marked', () => {
    const set = create();
    set.mark(0, 100);
    expect(set.closed).toBe(false);
    set.close();
    expect(set.closed).toBe(true);
    set.mark(0, 100);
    expect(set.discardAll(() => expect.unreachable())).toBeUndefined();
  });

  test('says when it discarded last, and how long all of it took', () => {
    const set = create();
    expect([set.lastDiscardMs, set.discardMs]).toEqual([0, 0]);
    set.mark(0, 1);
    set.discardAll(() => {});
    expect(set.lastDiscardMs).toBeGreaterThan(0);
    const first = set.discardMs;
    expect(first).toBeGreaterThan(0);
    set.mark(0, 1);
    set.discardAll(() => {});
    expect(set.discardMs).toBeGreaterThan(first);
  });

  test('goes on after runs that cannot be discarded, and tells the last reason', () => {
    const set = create();
    set.mark(0, 1);
    set.mark(2, 1);
    set.mark(6000, 1);
    const failure = set.discardAll(start => {
      if (start === 2) throw new SystemError('fallocate', ENOSPC);
    });
    expect(failure).toBeInstanceOf(SystemError);
    expect([set.discardedUnits, set.failures, set.outstanding]).toEqual([2, 1, 0]);
  });

  test('lets an error of our own through, and can be used afterwards', () => {
    const set = create();
    set.mark(0, 2);
    expect(() =>
      set.discardSome(() => {
        throw new TypeError('a bug');
      }),
    ).toThrow(TypeError);
    expect(set.inFlight(0, 10_000)).toBe(false);
    set.mark(0, 2);
    set.discardAll(() => {});
    expect(set.discardedUnits).toBe(2);
  });

  test('takes a run when its turn comes: what is retracted before that keeps its memory', () => {
    const set = create();
    for (let unit = 0; unit < 100; unit += 2) set.mark(unit, 1);
    const discarded: number[] = [];
    set.discardSome(start => {
      discarded.push(start);
      if (start !== 0) return;
      expect(set.inFlight(0, 1)).toBe(true);
      // A claim of the whole stretch would hold these, and a guest that takes them back would wait for it.
      expect(set.inFlight(1, 9_999)).toBe(false);
      expect(set.retract(1, 9_999)).toBe(49);
    });
    expect(discarded).toEqual([0]);
  });

  test('ends a claim after some milliseconds, however many runs its stretch has', () => {
    const set = create();
    for (let unit = 0; unit < 4096; unit += 2) set.mark(unit, 1);
    const startedMs = performance.now();
    let runs = 0;
    set.discardSome(() => {
      runs++;
      const untilMs = performance.now() + 2;
      while (performance.now() < untilMs);
    });
    // 2,048 of them would take 4 s; the bound is in time, and this allows for a machine that stops now and then.
    expect(runs).toBeLessThan(10);
    expect(performance.now() - startedMs).toBeLessThan(2048);
    expect(set.outstanding).toBe(2048 - runs);
    let more = 0;
    expect(set.discardAll(() => void more++)).toBeUndefined();
    expect(more).toBe(2048 - runs);
  });

  test('cuts long runs when they take long, and no further than helps', () => {
    const set = create();
    const lengths: number[] = [];
    const slowly = (_: number, count: number) => {
      lengths.push(count);
      const untilMs = performance.now() + 7;
      while (performance.now() < untilMs);
    };
    for (let time = 0; time < 12; time++) {
      set.mark(0, 4096);
      set.discardSome(slowly);
      set.retractAll();
    }
    expect(lengths[0]).toBe(4096);
    expect(lengths.at(-1)).toBe(64);
    expect(Math.min(...lengths)).toBe(64);
  });

  test('rings the watcher of the run in flight when it is over, once, and no other', () => {
    const set = create();
    // However slow the machine is: both runs belong to one claim.
    set.claimMsMax = Number.POSITIVE_INFINITY;
    set.runMsMax = Number.POSITIVE_INFINITY;
    let news = 0;
    set.onNews = () => news++;
    set.mark(0, 1);
    set.mark(2, 1);
    const generations: number[] = [];
    set.discardSome(start => {
      expect(news).toBe(start === 0 ? 0 : 1);
      generations.push(set.generation);
      if (start === 0) set.watchRun();
    });
    expect(news).toBe(1);
    expect(new Set([...generations, set.generation]).size).toBe(3);
  });

  test('rings its drainer when nothing is outstanding', () => {
    const set = create();
    const news: number[] = [];
    set.onNews = () => news.push(set.outstanding);
    set.mark(0, 1);
    set.mark(9000, 1);
    set.watchDrain();
    set.discardAll(() => {});
    set.watchDrain();
    set.discardAll(() => expect.unreachable());
    expect(news.at(-1)).toBe(0);
  });

  test('is closed without waiting, and rings when the discard under way is over', () => {
    const set = create();
    let news = 0;
    set.onNews = () => news++;
    set.mark(0, 1);
    set.mark(9000, 1);
    set.discardSome(() => {
      expect(set.closeNow()).toBe(false);
    });
    expect(news).toBe(1);
    expect(set.closeNow()).toBe(true);
    expect(set.discardSome(() => expect.unreachable()).more).toBe(false);
  });

  test('that is held in the middle of a claim has its next runs left alone', () => {
    const set = create();
    set.mark(0, 1);
    set.mark(2, 1);
    set.discardSome(start => {
      expect(start).toBe(0);
      set.held = true;
    });
    expect(set.outstanding).toBe(1);
    set.held = false;
    const rest: number[] = [];
    set.discardAll(start => rest.push(start));
    expect(rest).toEqual([2]);
  });

  test('of terabytes that has nothing costs a claimer no more than one of a gigabyte', () => {
    const time = (set: PendingDiscards): number => {
      let least = Number.POSITIVE_INFINITY;
      for (let round = 0; round < 20; round++) {
        const startedMs = performance.now();
        for (let time = 0; time < 20; time++) set.discardSome(() => expect.unreachable());
        least = Math.min(least, performance.now() - startedMs);
      }
      return least;
    };
    // 4096 times as much.
    expect(
      time(PendingDiscards.create(2 ** 30, PAGE)) / time(PendingDiscards.create(2 ** 18, PAGE)),
    ).toBeLessThan(20);
  });

  test('takes terabytes in steps of 16 MiB, and not word by word', () => {
    const units = 2 ** 30;
    const set = PendingDiscards.create(units, PAGE);
    const stretches = (units * PAGE) / CLAIM_BYTES_MAX;
    expect(set.mark(0, units)).toBe(units);
    expect(set.mark(0, units)).toBe(0);
    // What is taken back out of the middle leaves the rest.
    expect(set.retract(units / 2 - 1, 2)).toBe(2);
    expect(set.takeRest()).toBe(true);
    expect(set.takeRest()).toBe(false);
    expect(set.countIn(0, units)).toBe(units - 2);
    let discarded = 0;
    set.discardAll((_, count) => {
      discarded += count;
    });
    expect([discarded, set.outstanding]).toEqual([units - 2, 0]);
    expect(set.retract(0, units)).toBe(0);
    // Words would be 2 ** 25 each time.
    expect(set.work).toBeLessThan(4 * stretches);
    expect(set.discards).toBeLessThan(stretches / 4);
  });

  test('has long runs only where they take next to nothing', () => {
    const set = PendingDiscards.create(2 ** 18, PAGE);
    const stretch = CLAIM_BYTES_MAX / PAGE;
    const lengths = (ms: number): number[] => {
      const found: number[] = [];
      set.mark(0, 2 ** 18);
      set.discardAll((_, count) => {
        found.push(count / stretch);
        const untilMs = performance.now() + (ms * count) / stretch;
        while (performance.now() < untilMs);
      });
      return found;
    };
    expect(Math.max(...lengths(0))).toBeGreaterThan(1);
    // The first may be long still.
    expect(Math.max(...lengths(1).slice(1))).toBe(1);
  });

  test.each([
    ['small pages', PAGE, undefined, 8],
    ['pages that may be huge', PAGE, HugeUnits.of(HUGE, PAGE, 0), 16],
    ['pages of the pool', HUGE, undefined, 32],
  ])('has no longer runs of %s than may take long after all', (_, unitBytes, huge, most) => {
    const stretch = Math.max(CLAIM_BYTES_MAX / unitBytes, 32);
    const units = 128 * stretch;
    const set = PendingDiscards.create(units, unitBytes);
    set.huge = huge;
    // However slow the machine is, some run took little before.
    let longest = 0;
    for (let time = 0; time < 20 && longest < most; time++) {
      set.mark(0, units);
      set.discardAll((_start, count) => {
        longest = Math.max(longest, count / stretch);
      });
    }
    expect(longest).toBe(most);
  });

  test('whose discards take so long that they are cut is marked unit by unit', () => {
    const set = PendingDiscards.create(3 * 4096, PAGE);
    const slowly = (): void => {
      const untilMs = performance.now() + 7;
      while (performance.now() < untilMs);
    };
    set.mark(0, 3 * 4096);
    set.discardAll(slowly);
    const lengths: number[] = [];
    set.mark(0, 3 * 4096);
    set.discardAll((_, count) => void lengths.push(count));
    expect(lengths[0]).toBeLessThan(4096);
  });

  test('from which all was taken back tells the watcher of its end', () => {
    const set = create();
    let told = 0;
    set.onNews = () => told++;
    set.mark(0, 10);
    set.watchDrain();
    set.retract(0, 10);
    expect(set.discardSome(() => expect.unreachable()).more).toBe(false);
    expect(told).toBe(1);
  });

  test('waits for nothing where nothing is in flight', () => {
    const set = create();
    set.mark(0, 100);
    set.waitWhileInFlight(0, 100);
    expect(set.outstanding).toBe(100);
  });

  test.each([0, -1, 1.5, 2 ** 30 + 1, Number.NaN])('of %d units is a bug of ours', units => {
    expect(() => PendingDiscards.create(units, PAGE)).toThrow('discard units');
  });
});
