/**
 * oVirt's Memory Overcommitment Manager with the rules of vdsm. Below a fifth of the host's memory free, guests shrink by
 * a twentieth a cycle as far as a share of free memory is left to them, which falls with the host's; below a twentieth
 * they are made to swap. Above, they grow by a twentieth. Figures are averages over ten cycles.
 */
import { type Policy, sum, targetsOf, viewsOf } from './anchor.ts';

const PRESSURE = 0.2;
const CRITICAL = 0.05;
const GUEST_FREE = 0.2;
const CHANGE_MAX = 0.05;
const CHANGE_MIN = 0.0025;
const HISTORY = 10;

interface Memory {
  readonly hostFree: readonly number[];
  /** By guest: what it kept and what was unused of it. */
  readonly guests: Readonly<Record<string, readonly (readonly [keep: number, unused: number])[]>>;
}

const latest = <Item>(items: readonly Item[], item: Item): readonly Item[] =>
  [...items, item].slice(-HISTORY);
const mean = (values: readonly number[]): number => sum(values) / values.length;

export const mom: Policy<Memory> = {
  name: 'oVirt MOM',
  source: 'oVirt/vdsm: mom.d/02-balloon.policy',
  periodMs: 15_000,
  begin: () => ({ hostFree: [], guests: {} }),
  decide(sample, settings, memory) {
    const { freeBytes, totalBytes } = sample.host;
    const hostFree = latest(memory.hostFree, freeBytes / totalBytes);
    const free = mean(hostFree);
    const views = viewsOf(sample, settings);
    const guests: Record<string, readonly (readonly [number, number])[]> = {};
    const keeps = views.map(({ name, actual, free: unused, min, max }) => {
      if (unused === null) return null;
      const past = latest(memory.guests[name] ?? [], [actual, unused]);
      guests[name] = past;
      const used = mean(past.map(([kept, left]) => kept - left));
      let wanted = Math.min(max, actual * (1 + CHANGE_MAX));
      if (free < PRESSURE) {
        const leave = free <= CRITICAL ? -CRITICAL + free : GUEST_FREE * (free / PRESSURE);
        wanted = Math.min(max, Math.max(actual * (1 - CHANGE_MAX), Math.max(min, used + leave * actual)));
      }
      return Math.abs(wanted - actual) > CHANGE_MIN * actual ? wanted : null;
    });
    return { targets: targetsOf(views, keeps), memory: { hostFree, guests } };
  },
};
