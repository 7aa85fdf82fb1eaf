/** What a host goes by in its fleet, and what holds where nothing is said. Words of people are read elsewhere. */
import { settled } from '../placement/settings.ts';
import type { PlacementSettings } from '../placement/types.ts';

export const FLEET_DEFAULT = 'default';
export const FLEET_PERIOD_MS = 2000;
/** Four looks at the leader's key in a period, each a round trip to a majority of servers. */
export const FLEET_PERIOD_MS_MIN = 200;
export const FLEET_PERIOD_MS_MAX = 60_000;
export const LINK_DEFAULT = '10gbit';

/** Of periods. A report that is late or lost stops nothing. */
const STALE_PERIODS = 5;
/** Of periods; twice as long as a report may be old, and what an order may take to show. */
const SETTLE_PERIODS = 12.5;
/** A machine has to be started at the destination before anything shows at its source, however short the period is. */
const PICK_UP_MS_MIN = 30_000;

export const staleMsOf = (periodMs: number): number => STALE_PERIODS * periodMs;

/** The settings of placement that go with a period; what is set wins. */
export const placementOf = (periodMs: number, set: PlacementSettings): PlacementSettings => ({
  staleMs: staleMsOf(periodMs),
  settleMs: SETTLE_PERIODS * periodMs,
  pickUpMs: Math.max(PICK_UP_MS_MIN, STALE_PERIODS * 3 * periodMs),
  ...set,
});

/**
 * How long what is stored lives. A host that died is forgotten by the store when placement forgets it: a new leader knows
 * of silent hosts from their last reports alone. An order is known for as long as it could be sent.
 */
export const livesOf = (periodMs: number) => ({
  hosts: Math.max(settled({}).missedMs, 10 * periodMs),
  leader: 10 * periodMs,
  wishes: null,
  orders: 86_400_000,
});
