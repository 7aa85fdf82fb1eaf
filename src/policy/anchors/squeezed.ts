/**
 * xapi's squeezed. No guest is asked anything: all of them are the same fraction of the way from their minimum to their
 * maximum, so that the host has the free memory that is wanted. Those that shrink go first; the others follow when the
 * memory is free. One that makes no progress for five seconds is left out.
 */
import { reserveOf } from '../settings.ts';
import { MIB } from '../units.ts';
import { clamp, type Policy, sum, targetsOf, viewsOf } from './anchor.ts';

const STUCK_MS = 5000;
const INACCURACY_BYTES = 2 * MIB;
const REST_MS = 30_000;

interface Progress {
  readonly actual: number;
  readonly sinceMs: number;
}

interface Memory {
  /** While guests move, it looks every second. */
  readonly nextMs: number;
  readonly progress: Readonly<Record<string, Progress>>;
}

export const squeezed: Policy<Memory> = {
  name: 'squeezed',
  source: 'xapi-project/xen-api: ocaml/squeezed/lib/squeeze.ml',
  periodMs: 1000,
  begin: () => ({ nextMs: 0, progress: {} }),
  decide(sample, settings, memory) {
    const { atMs, host } = sample;
    const views = viewsOf(sample, settings);
    if (atMs < memory.nextMs) return { targets: views.map(() => -1), memory };
    const progress: Record<string, Progress> = {};
    const active = views.map(({ name, keep, actual }) => {
      const before = memory.progress[name];
      const moved = before === undefined || Math.abs(before.actual - actual) > INACCURACY_BYTES;
      progress[name] = moved ? { actual, sinceMs: atMs } : before;
      const there = Math.abs(actual - keep) <= INACCURACY_BYTES;
      if (there) progress[name] = { actual, sinceMs: atMs };
      return there || atMs - progress[name].sinceMs < STUCK_MS;
    });
    const used = views.filter((_, at) => active[at]);
    const free = host.availableBytes - reserveOf(settings, host) - host.reservedBytes;
    const surplus = free + sum(used.map(({ actual, min }) => actual - min - 2 * INACCURACY_BYTES));
    const range = sum(used.map(({ min, max }) => max - min));
    const way = range === 0 ? 1 : clamp(surplus / range, 0, 1);
    const ideal = views.map(({ min, max }) => min + way * (max - min));
    const shrinks = views.some(({ actual }, at) => active[at] && actual - ideal[at] > INACCURACY_BYTES);
    const keeps = views.map(({ actual }, at) => {
      if (!active[at]) return actual;
      return shrinks && ideal[at] > actual ? actual : ideal[at];
    });
    const moving = views.some(
      ({ actual }, at) => active[at] && Math.abs(actual - ideal[at]) > INACCURACY_BYTES,
    );
    return {
      targets: targetsOf(views, keeps),
      memory: { nextMs: moving ? atMs : atMs + REST_MS, progress },
    };
  },
};
