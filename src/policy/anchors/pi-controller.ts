/**
 * A controller as people write them for themselves: proportional and integral, on the share of memory that a guest has
 * free, towards a fifth. It has a dead band of 128 MiB and a least size of a third, and asks nothing of the host.
 */

import { MIB } from '../units.ts';
import { clamp, type Policy, targetsOf, viewsOf } from './anchor.ts';

const FREE_WANTED = 0.2;
const PROPORTIONAL = 0.5;
const INTEGRAL = 0.05;
const INTEGRAL_MAX = 1;
const DEAD_BAND_BYTES = 128 * MIB;
const SIZE_MIN = 0.33;

/** By guest: the sum of errors. */
type Sums = Readonly<Record<string, number>>;

export const piController: Policy<Sums> = {
  name: 'PI controller',
  source: 'qemus/qemu: balloon.py',
  periodMs: 5000,
  begin: () => ({}),
  decide(sample, settings, memory) {
    const views = viewsOf(sample, settings);
    const after: Record<string, number> = {};
    const keeps = views.map(({ name, memory: all, keep, actual, available, min, max }) => {
      if (available === null) return null;
      const error = FREE_WANTED - available / Math.max(1, actual);
      const total = clamp((memory[name] ?? 0) + error, -INTEGRAL_MAX, INTEGRAL_MAX);
      const asked = keep + all * (PROPORTIONAL * error + INTEGRAL * total);
      const wanted = clamp(asked, Math.max(min, SIZE_MIN * all), max);
      // What the limits cut off is taken out of the sum, so that it does not wind up.
      after[name] = clamp(total + (wanted - asked) / all / PROPORTIONAL, -INTEGRAL_MAX, INTEGRAL_MAX);
      return Math.abs(wanted - keep) < DEAD_BAND_BYTES ? null : wanted;
    });
    return { targets: targetsOf(views, keeps), memory: after };
  },
};
