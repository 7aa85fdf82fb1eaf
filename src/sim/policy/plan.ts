/**
 * From what happens to a few guests to a whole trace: a fleet of guests at rest, of which some do something else, on a host
 * with so much memory that they are overcommitted as wanted. The traces themselves are in traces.ts and hard-traces.ts.
 */
import type { Random } from '../../guest/random.ts';
import { GIB, MIB } from '../../policy/units.ts';
import { asks, breathing, NVME_S, type Rest, resting, rising } from './demands.ts';
import type { Burst, GuestSpec, Trace, TraceEvent } from './trace.ts';

export const COUNT = 8;
export const MEMORY = 4 * GIB;
const DEFAULT_SECONDS = 1500;

export type Maker = (random: Random) => Trace;

/** The memory of a host whose guests have `overcommit` times what they may have together. */
function hostFor(guests: readonly GuestSpec[], overcommit: number, othersBytes: number): number {
  const all = guests.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  const total = (all / overcommit + othersBytes) / 0.95;
  return Math.ceil(Math.max(total, all / overcommit + othersBytes + GIB) / MIB) * MIB;
}

interface Plan {
  readonly name: string;
  readonly title: string;
  readonly overcommit: number;
  readonly guests: readonly GuestSpec[];
  readonly seconds?: number;
  readonly othersBytes?: number;
  readonly others?: Trace['others'];
  readonly events?: readonly TraceEvent[];
  readonly bursts?: readonly Burst[];
  readonly more?: Partial<Trace>;
}

export function traceOf(plan: Plan): Trace {
  const { name, title, overcommit, guests, othersBytes = GIB, events = [], bursts = [] } = plan;
  return {
    name,
    title,
    seconds: plan.seconds ?? DEFAULT_SECONDS,
    guests,
    totalBytes: hostFor(guests, overcommit, othersBytes),
    others: plan.others ?? (() => ({ usedBytes: othersBytes, cacheBytes: GIB })),
    events: [...events].sort((a, b) => a.atS - b.atS),
    bursts,
    settings: { guests: {} },
    ...plan.more,
  };
}

const guest = (index: number, demand: GuestSpec['demand'], more: Partial<GuestSpec> = {}): GuestSpec => ({
  name: `vm${index + 1}`,
  memoryBytes: MEMORY,
  swapBytes: 0,
  deflateOnOom: false,
  reporting: true,
  statistics: true,
  inflateRate: 2 * GIB,
  pageSeconds: NVME_S,
  demand,
  ...more,
});

/** Guests that rest, each in its way; `of` says what some of them do instead. */
export function fleet(
  random: Random,
  of: (index: number, rest: Rest, base: (atS: number) => number) => Partial<GuestSpec> = () => ({}),
  count = COUNT,
): GuestSpec[] {
  return Array.from({ length: count }, (_, index) => {
    const own = random.split(`guest ${index}`);
    const rest = resting(own);
    const base = breathing(rest.programsBytes, own);
    return guest(index, asks(base, rest), of(index, rest, base));
  });
}

export const burstOf = (atS: number, lastsS: number, toBytes: number, index = 0): Burst => ({
  guest: index,
  atS,
  untilS: atS + lastsS,
  toBytes,
});

/** What a guest that rises to `to` uses with its bursts after one another. */
export const withBursts = (
  base: (atS: number) => number,
  bursts: readonly Burst[],
  rate = GIB,
): ((atS: number) => number) =>
  bursts.reduce(
    (before, { atS, untilS, toBytes }) => rising(before, { fromS: atS, untilS, to: toBytes, rate }),
    base,
  );
