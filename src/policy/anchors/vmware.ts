/**
 * VMware ESX: memory is revoked where the fewest shares pay for a page, and idle pages cost four times as much (a tax of
 * 75 %). Activity is averaged fast when it rises and slowly when it falls. The balloon takes 65 % of a guest at most, and
 * only while the host has less free than it wants. ESX samples active pages; here the guest's statistics say it.
 */

import { GIB } from '../units.ts';
import { divide, type Policy, sum, targetsOf, viewsOf } from './anchor.ts';

const TAX = 0.75;
const BALLOON_MAX = 0.65;
const FAST = 0.5;
const SLOW = 0.1;

/** Of a host's memory, by slices: what ESXi 5 keeps free. */
export function minFree(totalBytes: number): number {
  let left = totalBytes;
  let bytes = 0;
  for (const [slice, share] of [
    [4 * GIB, 0.06],
    [8 * GIB, 0.04],
    [16 * GIB, 0.02],
    [Number.POSITIVE_INFINITY, 0.01],
  ] as const) {
    const part = Math.min(left, slice);
    bytes += part * share;
    left -= part;
  }
  return bytes;
}

/** Shares that pay for a page: the fewer, the sooner memory is taken. */
export const price = (shares: number, pages: number, active: number): number =>
  shares / (pages * (active + (1 - active) / (1 - TAX)));

type Averages = Readonly<Record<string, readonly [fast: number, slow: number]>>;

export const vmware: Policy<Averages> = {
  name: 'VMware',
  source: "Waldspurger, Memory Resource Management in VMware ESX Server, OSDI'02",
  periodMs: 15_000,
  begin: () => ({}),
  decide(sample, settings, memory) {
    const views = viewsOf(sample, settings);
    const { host } = sample;
    const averages: Record<string, readonly [number, number]> = {};
    const active = views.map(({ name, used, actual }) => {
      const now = used ?? actual;
      const [fast, slow] = memory[name] ?? [now, now];
      const next = [fast + FAST * (now - fast), slow + SLOW * (now - slow)] as const;
      averages[name] = next;
      return Math.max(now, ...next);
    });
    const free = host.availableBytes - host.reservedBytes - minFree(host.totalBytes);
    // Where all prices are equal, no guest is asked before another.
    const keeps = divide(
      sum(views.map(({ actual }) => actual)) + free,
      views.map(({ min, max, memory: all, shares, actual }, at) => ({
        low: Math.min(max, Math.max(min, (1 - BALLOON_MAX) * all)),
        high: max,
        weight: price(shares, 1, Math.min(1, active[at] / Math.max(1, actual))),
      })),
    );
    return { targets: targetsOf(views, keeps), memory: averages };
  },
};
