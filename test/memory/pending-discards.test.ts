/** The set of units that wait to be discarded, against a plain set, with calls in the middle of each other. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CLAIM_BYTES_MAX, PendingDiscards } from '../../src/memory/pending-discards.ts';
import { SystemError } from '../../src/sys/error.ts';

const PAGE = 4096;
const HUGE = 2 ** 21;
const ENOSPC = 28;

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
  /** Claimed by the discard under way. */
  claimed = new Set<number>();
  discarded = 0;
  runs = 0;
  failures = 0;

  constructor({ units, unitBytes, claimUnits }: (typeof shapes)[number]) {
    this.set = PendingDiscards.create(units, unitBytes);
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
    const before = new Set(this.pending);
    const seen: [number, number][] = [];
    const { more, failure } = this.set.discardSome((start, count) => {
      if (seen.length === 0) this.#claim(start);
      seen.push([start, count]);
      for (let unit = start; unit < start + count; unit++) expect(this.claimed.has(unit)).toBe(true);
      // Maximal: what is beside a run was not claimed.
      expect(this.claimed.has(start - 1) || this.claimed.has(start + count)).toBe(false);
      for (const call of meanwhile) this.call(call);
      if (fails) throw new SystemError('fallocate', ENOSPC);
    });
    expect(more).toBe(before.size > 0);
    expect(seen.reduce((total, [, count]) => total + count, 0)).toBe(this.claimed.size);
    expect(failure?.message).toBe(fails && more ? 'fallocate failed with ENOSPC' : undefined);
    if (fails) {
      this.failures += seen.length;
    } else {
      this.discarded += this.claimed.size;
      this.runs += seen.length;
    }
    this.claimed = new Set();
    this.#checkTotals();
    return more;
  }

  /** The stretch of `unit` is claimed: all of its pending units and no others. */
  #claim(unit: number): void {
    const stretch = Math.floor(unit / this.claimUnits);
    for (const member of this.pending) {
      if (Math.floor(member / this.claimUnits) === stretch) this.claimed.add(member);
    }
    for (const member of this.claimed) this.pending.delete(member);
    expect(this.set.outstanding).toBe(this.pending.size + this.claimed.size);
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
