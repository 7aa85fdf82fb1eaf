/**
 * ChromeOS' concierge, its policy that balances what is available: a balloon takes half of the difference between what a
 * guest has available above a critical amount and what the host has. The guest's critical amount starts at 400 MiB and
 * is learned downwards. Each guest is looked at by itself, as if it were the only one.
 */
import { reserveOf } from '../settings.ts';
import { MIB } from '../units.ts';
import { clamp, type Policy, viewsOf } from './anchor.ts';

const CRITICAL_GUEST_BYTES = 400 * MIB;
const OVERSHOOT_BYTES_MAX = 10 * MIB;
const NEAR_BYTES = MIB;
const FULL_PERCENT = 95;
const BALLOON_MAX = 0.75;

interface Guest {
  readonly critical: number;
  readonly available: number;
  readonly fullPercent: number;
  readonly largest: number;
}

export const concierge: Policy<Readonly<Record<string, Guest>>> = {
  name: 'concierge',
  source: 'ChromeOS: platform2/vm_tools/concierge/balloon_policy.cc',
  periodMs: 1000,
  begin: () => ({}),
  decide(sample, settings, memory) {
    const { host } = sample;
    const hostAbove = host.availableBytes - host.reservedBytes - reserveOf(settings, host);
    const after: Record<string, Guest> = {};
    const targets = viewsOf(sample, settings).map(({ name, memory: all, max, available, actual }) => {
      if (available === null) return -1;
      const balloon = all - actual;
      const before = memory[name];
      const largest = Math.max(before?.largest ?? all * BALLOON_MAX, balloon);
      const fullPercent = Math.floor((balloon * 100) / largest);
      let critical = before?.critical ?? CRITICAL_GUEST_BYTES;
      const low = available < critical && fullPercent < FULL_PERCENT;
      if (low && before !== undefined && before.available < critical && before.fullPercent < FULL_PERCENT)
        critical = before.available;
      after[name] = { critical, available, fullPercent, largest };
      const guestAbove = available - critical;
      const wanted = (guestAbove - hostAbove) / 2;
      const worth =
        guestAbove < NEAR_BYTES ||
        hostAbove < NEAR_BYTES ||
        Math.abs(wanted) * 100 > 2 * guestAbove ||
        Math.abs(wanted) * 100 > 2 * hostAbove;
      if (!worth) return -1;
      const delta = clamp(wanted, -(hostAbove + OVERSHOOT_BYTES_MAX), guestAbove + OVERSHOOT_BYTES_MAX);
      return Math.floor(clamp(balloon + delta, Math.max(0, all - max), all));
    });
    return { targets, memory: after };
  },
};
