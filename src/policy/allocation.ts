/**
 * Divides memory among guests: max-min fair by weight, between bounds. What everybody needs comes first; then, where
 * memory is left, more to those who use what they have (Waldspurger's tax on idle memory). Where it does not suffice,
 * parts by shares, and never below a floor. Nothing of time or movement is known here.
 */
import type { GuestDecision, HostDecision } from './types.ts';

/** The part of a guest's weight that it loses for memory that lies idle. */
const IDLE_TAX = 0.75;
/** Halvings of the level; a double has no more digits. */
const STEPS = 60;

type Guests = readonly GuestDecision[];

/** What takes part in a fill, between two bounds, and the part that it gets. */
export interface Part {
  readonly ours: boolean;
  readonly lowBytes: number;
  readonly highBytes: number;
  readonly weight: number;
  partBytes: number;
}
type Parts = readonly Part[];

const clamp = (value: number, low: number, high: number): number => Math.max(low, Math.min(high, value));

/**
 * Raises one level for all until the parts, `weight` times the level between the bounds, add up to `amount`. Leaves them
 * in `partBytes`. Where the lower bounds are above it or the upper ones below, those are the parts.
 */
export function fill(guests: Parts, amount: number): void {
  let lows = 0;
  let highs = 0;
  let top = 0;
  for (const guest of guests) {
    if (!guest.ours) continue;
    lows += guest.lowBytes;
    highs += guest.highBytes;
    top = Math.max(top, guest.highBytes / guest.weight);
  }
  if (amount >= highs) setParts(guests, 'high', top);
  else if (amount <= lows) setParts(guests, 'low', 0);
  else setParts(guests, 'level', levelFor(guests, amount, top));
}

/** The highest level, up to `top`, whose parts add up to no more than `amount`. */
function levelFor(guests: Parts, amount: number, top: number): number {
  let low = 0;
  let high = top;
  for (let step = 0; step < STEPS && low < high; step++) {
    const level = (low + high) / 2;
    if (level === low || level === high) break;
    if (sumAt(guests, level) <= amount) low = level;
    else high = level;
  }
  return low;
}

function sumAt(guests: Parts, level: number): number {
  let sum = 0;
  for (const guest of guests) {
    if (guest.ours) sum += clamp(guest.weight * level, guest.lowBytes, guest.highBytes);
  }
  return sum;
}

function setParts(guests: Parts, end: 'low' | 'high' | 'level', level: number): void {
  for (const guest of guests) {
    if (!guest.ours) continue;
    const { lowBytes, highBytes, weight } = guest;
    if (end === 'level') guest.partBytes = clamp(weight * level, lowBytes, highBytes);
    else guest.partBytes = end === 'low' ? lowBytes : highBytes;
  }
}

/**
 * Weight of a guest in what is left over: its shares without the tax on what it does not use. What a burst may come to
 * is no use yet: with it, the first guests of a storm would get the room of those that follow.
 */
function taxedWeight({ shares, steadyBytes, maxBytes }: GuestDecision): number {
  const idle = maxBytes > 0 ? clamp(1 - steadyBytes / maxBytes, 0, 1) : 0;
  return shares * (1 - IDLE_TAX * idle);
}

/** Fills in `wantBytes` and `bound` of every guest that the policy decides about. */
export function allocate(guests: Guests, host: HostDecision): void {
  const amount = Math.max(0, host.budgetBytes - host.fixedBytes);
  let floors = 0;
  let nows = 0;
  let needs = 0;
  let maxima = 0;
  for (const guest of guests) {
    if (!guest.ours) continue;
    floors += guest.floorBytes;
    nows += guest.nowBytes;
    needs += guest.needBytes;
    maxima += guest.maxBytes;
  }
  host.floorsBytes = floors;
  host.needBytes = needs;
  host.maxBytes = maxima;
  host.floorsAbove = floors > amount;
  host.overcommitted = nows > amount;
  const tier = nows > amount ? 'now' : needs > amount ? 'need' : 'surplus';
  for (const guest of guests) {
    if (!guest.ours) continue;
    guest.lowBytes = tier === 'now' ? guest.floorBytes : tier === 'need' ? guest.nowBytes : guest.needBytes;
    guest.highBytes = tier === 'now' ? guest.nowBytes : tier === 'need' ? guest.needBytes : guest.maxBytes;
    guest.weight = tier === 'surplus' ? taxedWeight(guest) : guest.shares;
  }
  fill(guests, amount);
  for (const guest of guests) {
    if (!guest.ours) continue;
    guest.wantBytes = guest.partBytes;
    if (tier === 'surplus') guest.bound = amount >= maxima ? 'room' : 'surplus';
    else guest.bound = guest.partBytes <= guest.floorBytes ? 'floor' : 'shares';
  }
}
