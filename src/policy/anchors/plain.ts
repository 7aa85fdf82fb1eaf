/** Three policies that do not react: no balloon at all, a size for good, and one that knows the future. */
import { reserveOf } from '../settings.ts';
import type { Sample, Settings } from '../types.ts';
import { budgetOf, clamp, divide, type Policy, sum, targetsOf, viewsOf } from './anchor.ts';

/** Guests report free pages, and nothing else happens. */
export const reportingOnly: Policy<null> = {
  name: 'reporting only',
  source: 'free page reporting alone, without a policy',
  periodMs: 60_000,
  begin: () => null,
  decide: ({ guests }, _settings, memory) => ({ targets: guests.map(() => 0), memory }),
};

type Sizes = Readonly<Record<string, number>>;

/** Sizes that a person chose once: the host's memory in proportion to the guests'. */
export const fixed: Policy<Sizes> = {
  name: 'static',
  source: 'sizes set by hand, as Incus and TrueNAS have it',
  periodMs: 60_000,
  begin: () => ({}),
  decide(sample, settings, memory) {
    const { host } = sample;
    const views = viewsOf(sample, settings);
    const part = (host.totalBytes - reserveOf(settings, host)) / sum(views.map(view => view.memory));
    const sizes = views.map(({ name, memory: all, min, max }) =>
      Object.hasOwn(memory, name) ? memory[name] : clamp(all * part, min, max),
    );
    const after = Object.fromEntries(views.map(({ name }, at) => [name, sizes[at]]));
    return { targets: targetsOf(views, sizes), memory: after };
  },
};

/** What a guest will want within the next moments. */
export interface FutureUse {
  /** Without this, it is in distress. */
  readonly programsBytes: number;
  /** Page cache that would be used. */
  readonly cacheBytes: number;
  /** Accesses to it, a second. */
  readonly accesses: number;
}

/** How far ahead the oracle looks: longer than any guest needs to give memory. */
const ORACLE_MS = 10_000;

/**
 * Knows what every guest will want, and gives each of them that in time: programs first, then page cache where a byte of
 * it is used most. It takes nothing that the host does not need.
 */
export const oracle = (future: (guest: number, fromMs: number, toMs: number) => FutureUse): Policy<null> => ({
  name: 'oracle',
  source: 'the trace itself',
  periodMs: 1000,
  begin: () => null,
  decide(sample: Sample, settings: Settings, memory: null) {
    const views = viewsOf(sample, settings);
    const wishes = views.map((_, at) => future(at, sample.atMs, sample.atMs + ORACLE_MS));
    const needs = views.map(({ min, max }, at) => clamp(wishes[at].programsBytes, min, max));
    const budget = budgetOf(sample, settings);
    const keeps = divide(
      budget,
      views.map(({ min, shares }, at) => ({ low: min, high: needs[at], weight: shares })),
    );
    let left = budget - sum(keeps);
    const order = views.map((_, at) => at).sort((a, b) => density(wishes[b]) - density(wishes[a]));
    for (const at of order) {
      const more = clamp(Math.min(wishes[at].cacheBytes, views[at].max - keeps[at]), 0, Math.max(0, left));
      keeps[at] += more;
      left -= more;
    }
    const all = divide(
      budget,
      views.map(({ max, shares }, at) => ({ low: keeps[at], high: max, weight: shares })),
    );
    return { targets: targetsOf(views, all), memory };
  },
});

const density = ({ accesses, cacheBytes }: FutureUse): number => (cacheBytes > 0 ? accesses / cacheBytes : 0);
