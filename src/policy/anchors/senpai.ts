/**
 * Meta's Senpai, applied to a balloon: a guest is squeezed by up to one percent as long as its programs stand still for
 * less than ten milliseconds in six seconds, and let go, by up to all that it has, when it is more. Both by the square
 * of how far off it is. It asks neither what the host needs nor what other guests do.
 */
import { clamp, type Policy, targetsOf, viewsOf } from './anchor.ts';

const INTERVAL_MS = 6000;
const TARGET_MS = 10;
const PROBE_MAX = 0.01;
const BACK_OFF_MAX = 1;
const PROBE_COEFFICIENT = 10;
const BACK_OFF_COEFFICIENT = 20;

/** The part by which a guest changes that stood still for `stallMs` in an interval; below 0: it shrinks. */
export function adjustment(stallMs: number): number {
  const off = stallMs / TARGET_MS;
  if (stallMs > TARGET_MS) return Math.min(BACK_OFF_MAX, (off / BACK_OFF_COEFFICIENT) ** 2);
  const ease = 1 / Math.max(off, 1 / PROBE_COEFFICIENT) / PROBE_COEFFICIENT;
  return -PROBE_MAX * ease ** 2;
}

/** By guest: its stall time when it was looked at last. */
type Stalls = Readonly<Record<string, number>>;

export const senpai: Policy<Stalls> = {
  name: 'Senpai-like',
  source: 'facebookincubator/senpai: senpai.py',
  periodMs: INTERVAL_MS,
  begin: () => ({}),
  decide(sample, settings, memory) {
    const views = viewsOf(sample, settings);
    const after: Record<string, number> = {};
    const keeps = views.map(({ name, keep, min, max, memory: all }, at) => {
      const { foreign, residentBytes } = sample.guests[at];
      if (foreign === undefined) return null;
      after[name] = foreign.stallMs;
      const before = memory[name];
      // At first a limit is what is held.
      if (before === undefined) return clamp(residentBytes ?? all, min, max);
      const change = adjustment(Math.max(0, foreign.stallMs - before));
      return clamp(keep * (1 + change), min, max);
    });
    return { targets: targetsOf(views, keeps), memory: after };
  },
};
