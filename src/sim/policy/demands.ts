/** What programs want over time, as functions that a trace puts together: rests, bursts, saw-teeth, leaks, files. */
import type { Random } from '../../guest/random.ts';
import { GIB, MIB } from '../../policy/units.ts';
import type { Demand, GuestSpec } from './trace.ts';

/** A page from NVMe, in seconds. */
export const NVME_S = 100e-6;

type Ask = GuestSpec['demand'];

export interface Rest {
  readonly programsBytes: number;
  readonly cacheBytes: number;
  readonly accesses: number;
}

/**
 * A guest with little to do, somewhat unlike its neighbours. Its memory is full of files that were read once: page cache
 * that is hardly looked at, which no guest reports as free.
 */
export const resting = (random: Random): Rest => ({
  programsBytes: (400 + random.below(300)) * MIB,
  cacheBytes: (2000 + random.below(1000)) * MIB,
  accesses: 20 + random.below(60),
});

/** Programs' memory as a function of time, with files beside it. */
export const asks =
  (
    programs: (atS: number) => number,
    files: { readonly cacheBytes: number; readonly accesses: number },
    committed = 1.3,
  ): Ask =>
  (atS: number, into: Demand) => {
    into.programsBytes = programs(atS);
    into.cacheBytes = files.cacheBytes;
    into.accesses = files.accesses;
    into.committedBytes = into.programsBytes * committed;
  };

/** Breathes by two percent over some minutes, as programs do. */
export const breathing = (base: number, random: Random): ((atS: number) => number) => {
  const period = 200 + random.below(400);
  const phase = random.below(1000);
  return atS => base * (1 + 0.02 * Math.sin((2 * Math.PI * (atS + phase)) / period));
};

/** Rises from its rest to `to` at `rate` bytes a second, stays until `untilS`, and falls back at once. */
export const rising = (
  base: (atS: number) => number,
  {
    fromS,
    untilS,
    to,
    rate,
  }: { readonly fromS: number; readonly untilS: number; readonly to: number; readonly rate: number },
): ((atS: number) => number) => {
  return atS => (atS < fromS || atS >= untilS ? base(atS) : Math.min(to, base(fromS) + rate * (atS - fromS)));
};

/** High for the first half of each period. */
export const sawTooth =
  (low: number, high: number, periodS: number, phaseS: number, rate = GIB) =>
  (atS: number): number => {
    const within = (((atS + phaseS) % periodS) + periodS) % periodS;
    return within >= periodS / 2 ? low : Math.min(high, low + rate * within);
  };

/** Grows from `low` to `high` over `periodS`, is started anew, and goes on. */
export const leaking =
  (low: number, high: number, periodS: number) =>
  (atS: number): number =>
    low + (high - low) * ((atS % periodS) / periodS);
