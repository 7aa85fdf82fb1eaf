/** The settings of placement with their defaults, each with its reason. Nonsense counts as not set. */
import type { PlacementSettings } from './types.ts';

type Settled = Readonly<Required<PlacementSettings>>;

const MINUTE = 60_000;

const DEFAULTS: Settled = {
  // Some periods of reports: one that is late or lost stops nothing.
  staleMs: 10_000,
  // Longer than `staleMs` by what an order may take to show in a report: what a new leader goes by has all of them.
  settleMs: 25_000,
  // A burst of this length is over before its guest would be elsewhere.
  patienceMs: 10_000,
  // Needs go by minutes. A guest that went back sooner would be moved for noise.
  coolDownMs: 15 * MINUTE,
  // A host answers an order within seconds, or not at all.
  pickUpMs: 30_000,
  // A host that reboots is back by then; one that is not is gone for good, and stands against nothing any more.
  missedMs: 5 * MINUTE,
  // One that is helped just so is short again with the next breath of a guest.
  spare: 0.02,
  // A host that was filled up would be the next to be short.
  headroom: 0.05,
  // Two keep a link busy while one of them starts or stops; more only make each other slower.
  leavesMax: 2,
  // A drain waits for nothing between two plans.
  drainsMax: 8,
  arrivesMax: 4,
  movesMax: 64,
};

const PARTS: readonly (keyof PlacementSettings)[] = ['spare', 'headroom'];
const COUNTS: readonly (keyof PlacementSettings)[] = ['leavesMax', 'drainsMax', 'arrivesMax', 'movesMax'];

export function settled(settings: PlacementSettings): Settled {
  const result: Record<keyof PlacementSettings, number> = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS) as (keyof PlacementSettings)[]) {
    const value = settings[name];
    if (value === undefined || !Number.isFinite(value) || value < 0) continue;
    if (PARTS.includes(name) && value >= 1) continue;
    result[name] = COUNTS.includes(name) ? Math.floor(value) : value;
  }
  return result;
}

export type { Settled };
