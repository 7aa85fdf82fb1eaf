/**
 * Which guests leave a host, in which order: the set that costs least and makes the rest fit, or all of them, the cheapest
 * first. Where they go is not decided here.
 */
import { type Cost, costOf } from './cost.ts';
import type { Site } from './sites.ts';
import { needOf } from './sites.ts';
import type { FleetGuest } from './types.ts';

export interface Leaver {
  readonly guest: FleetGuest;
  /** What its host no longer has to give. */
  readonly reliefBytes: number;
  /** With all of the host's link; where a link shared with other moves is slower, all are alike. */
  readonly cost: Cost;
}

export const leaverOf = (guest: FleetGuest, site: Site): Leaver | undefined => {
  const cost = costOf(guest, site.host.linkBytesPerSecond);
  return cost === undefined ? undefined : { guest, reliefBytes: needOf(guest), cost };
};

const byName = (a: Leaver, b: Leaver): number => (a.guest.guest < b.guest.guest ? -1 : 1);

/** The safest and the cheapest first: at any moment as many guests as possible are away. */
export const cheapestFirst = (leavers: readonly Leaver[]): Leaver[] =>
  leavers.toSorted((a, b) => a.cost.sendMs - b.cost.sendMs || byName(a, b));

/**
 * Those that cover `shortBytes` together at the least cost, then all others, best first, for those that find no place.
 * To cover at least cost is a knapsack; the greedy way of Csirik, Frenk, Labbé and Zhang (1991) costs at most twice the
 * least: by cost for what they relieve, each that completes what is gathered so far is a candidate, and stays out of it. A single guest is often cheaper still.
 */
export function reliefOf(leavers: readonly Leaver[], shortBytes: number): Leaver[] {
  const byRate = leavers
    .filter(({ reliefBytes }) => reliefBytes > 0)
    .sort((a, b) => a.cost.sendMs / a.reliefBytes - b.cost.sendMs / b.reliefBytes || byName(a, b));
  const several = covering(byRate, shortBytes);
  const single = cheapestFirst(byRate.filter(({ reliefBytes }) => reliefBytes >= shortBytes))[0];
  const chosen = single !== undefined && single.cost.sendMs <= costOfAll(several) ? [single] : several;
  const taken = new Set(chosen);
  return [...chosen, ...byRate.filter(leaver => !taken.has(leaver))];
}

const costOfAll = (leavers: readonly Leaver[]): number =>
  leavers.reduce((sum, { cost }) => sum + cost.sendMs, 0);

function covering(leavers: readonly Leaver[], shortBytes: number): Leaver[] {
  const gathered: Leaver[] = [];
  let [relief, cost] = [0, 0];
  let best: { readonly members: number; readonly last: Leaver; readonly cost: number } | undefined;
  for (const leaver of leavers) {
    const whole = cost + leaver.cost.sendMs;
    if (relief + leaver.reliefBytes < shortBytes) {
      gathered.push(leaver);
      relief += leaver.reliefBytes;
      cost = whole;
    } else if (best === undefined || whole < best.cost) {
      best = { members: gathered.length, last: leaver, cost: whole };
    }
  }
  // Too little in any case: all that there are.
  return best === undefined
    ? gathered
    : withoutNeedless([...gathered.slice(0, best.members), best.last], shortBytes);
}

/** Leaves out what the others can do without, the costliest first. */
function withoutNeedless(leavers: readonly Leaver[], shortBytes: number): Leaver[] {
  let spare = leavers.reduce((sum, { reliefBytes }) => sum + reliefBytes, -shortBytes);
  const needless = new Set<Leaver>();
  for (const leaver of cheapestFirst(leavers).reverse()) {
    if (leaver.reliefBytes > spare) continue;
    spare -= leaver.reliefBytes;
    needless.add(leaver);
  }
  return leavers.filter(leaver => !needless.has(leaver));
}
