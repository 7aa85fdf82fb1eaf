/**
 * The traces by name: those that every policy is said to manage, and, from hard-traces.ts, those that are known to break
 * one. Each is made from a seed, and lasts as long as it takes to see what a policy makes of it.
 */
import { Random } from '../../guest/random.ts';
import { GIB, MIB } from '../../policy/units.ts';
import { asks, leaking, rising, sawTooth } from './demands.ts';
import { HARD_TRACES } from './hard-traces.ts';
import { burstOf, COUNT, fleet, type Maker, MEMORY, traceOf, withBursts } from './plan.ts';
import { type Trace, watermarkOf } from './trace.ts';

const TRACES: Readonly<Record<string, Maker>> = {
  roomy: random =>
    traceOf({
      name: 'roomy',
      title: 'the host has all that its guests may want',
      overcommit: 0.98,
      guests: fleet(random, (index, rest, base) =>
        index < 4
          ? { demand: asks(withBursts(base, [burstOf(400 + 60 * index, 200, 3 * GIB, index)]), rest) }
          : {},
      ),
    }),

  idle: random => traceOf({ name: 'idle', title: 'a fleet at rest', overcommit: 1.5, guests: fleet(random) }),

  burst: random => {
    const bursts = [300, 700, 1100].map(atS => burstOf(atS, 150, 0.9 * MEMORY - watermarkOf(MEMORY)));
    return traceOf({
      name: 'burst',
      title: 'one guest takes 1 GiB/s up to nine tenths of its memory',
      overcommit: 1.5,
      bursts,
      guests: fleet(random, (index, rest, base) =>
        index === 0 ? { demand: asks(withBursts(base, bursts), rest) } : {},
      ),
    });
  },

  'deep-burst': random => {
    const bursts = [300, 700, 1100].map(atS => burstOf(atS, 150, 2.5 * GIB));
    return traceOf({
      name: 'deep-burst',
      title: 'a burst of half of a guest where guests have half of their memory',
      overcommit: 2,
      bursts,
      guests: fleet(random, (index, rest, base) =>
        index === 0 ? { demand: asks(withBursts(base, bursts), rest) } : {},
      ),
    });
  },

  'boot-storm': random => {
    const bursts = Array.from({ length: COUNT }, (_, index) => burstOf(600 + index, 300, 2.2 * GIB, index));
    return traceOf({
      name: 'boot-storm',
      title: 'everybody begins to work at nine',
      overcommit: 1.4,
      bursts,
      guests: fleet(random, (index, rest, base) => ({
        demand: asks(withBursts(base, [bursts[index]], 0.25 * GIB), rest),
      })),
    });
  },

  'saw-tooth': random =>
    traceOf({
      name: 'saw-tooth',
      title: 'three guests run a job of half a minute every minute',
      overcommit: 1.5,
      guests: fleet(random, (index, rest) =>
        index < 3 ? { demand: asks(sawTooth(0.6 * GIB, 2.2 * GIB, 60, 20 * index), rest) } : {},
      ),
    }),

  'file-scan': random =>
    traceOf({
      name: 'file-scan',
      title: 'a backup reads ten times the memory of its guest',
      overcommit: 1.5,
      guests: fleet(random, (index, _, base) =>
        index === 1 ? { demand: asks(base, { cacheBytes: 10 * MEMORY, accesses: 4000 }) } : {},
      ),
    }),

  leak: random =>
    traceOf({
      name: 'leak',
      title: 'a guest grows to nine tenths over twenty minutes, and is started anew',
      overcommit: 1.5,
      seconds: 2700,
      guests: fleet(random, (index, rest) =>
        index === 0 ? { demand: asks(leaking(0.5 * GIB, 3.4 * GIB, 1200), rest) } : {},
      ),
    }),

  database: random =>
    traceOf({
      name: 'database',
      title: 'two databases with a hot cache among guests at rest',
      overcommit: 1.5,
      guests: fleet(random, (index, _, base) =>
        index < 2 ? { demand: asks(base, { cacheBytes: 2.2 * GIB, accesses: 20_000 }) } : {},
      ),
    }),

  'no-statistics': random => {
    const bursts = [300, 800].map(atS => burstOf(atS, 200, 3 * GIB));
    return traceOf({
      name: 'no-statistics',
      title: 'a third of the guests says nothing',
      overcommit: 1.4,
      bursts,
      guests: fleet(random, (index, rest, base) => ({
        statistics: index < 5,
        ...(index === 0 ? { demand: asks(withBursts(base, bursts), rest) } : {}),
      })),
    });
  },

  'liar-full': random =>
    traceOf({
      name: 'liar-full',
      title: 'a guest claims that it has nothing available',
      overcommit: 1.5,
      events: [{ atS: 300, guest: 2, kind: 'claim-full' }],
      bursts: [burstOf(600, 200, 3 * GIB)],
      guests: fleet(random, (index, rest, base) =>
        index === 0 ? { demand: asks(withBursts(base, [burstOf(600, 200, 3 * GIB)]), rest) } : {},
      ),
    }),

  'liar-empty': random =>
    traceOf({
      name: 'liar-empty',
      title: 'a guest claims that all of its memory is available',
      overcommit: 1.5,
      events: [{ atS: 300, guest: 2, kind: 'claim-empty' }],
      guests: fleet(random),
    }),

  stuck: random => {
    const bursts = [600, 1100].map(atS => burstOf(atS, 200, 3 * GIB));
    return traceOf({
      name: 'stuck',
      title: "two guests' balloons do not grow",
      overcommit: 1.5,
      bursts,
      events: [0, 1].map(index => ({ atS: 0, guest: 6 + index, kind: 'stuck' as const })),
      guests: fleet(random, (index, rest, base) =>
        index === 0 ? { demand: asks(withBursts(base, bursts), rest) } : {},
      ),
    });
  },

  slow: random => {
    const bursts = [600, 1100].map(atS => burstOf(atS, 200, 3 * GIB));
    return traceOf({
      name: 'slow',
      title: 'every balloon takes 64 MiB a second and no more',
      overcommit: 1.5,
      bursts,
      guests: fleet(random, (index, rest, base) => ({
        inflateRate: 64 * MIB,
        ...(index === 0 ? { demand: asks(withBursts(base, bursts), rest) } : {}),
      })),
    });
  },

  'host-burst': random =>
    traceOf({
      name: 'host-burst',
      title: 'a program of the host takes a fifth of it for five minutes',
      overcommit: 1.3,
      others: atS => ({ usedBytes: atS >= 600 && atS < 900 ? 6 * GIB : GIB, cacheBytes: GIB }),
      guests: fleet(random),
    }),

  reservation: random =>
    traceOf({
      name: 'reservation',
      title: 'a guest of 4 GiB is to be started',
      overcommit: 1.3,
      guests: fleet(random),
      more: { reservation: { atS: 600, bytes: 4 * GIB } },
    }),

  reboot: random =>
    traceOf({
      name: 'reboot',
      title: 'guests boot while they have the least',
      overcommit: 1.8,
      events: [500, 560, 900].map((atS, index) => ({ atS, guest: index, kind: 'reboot' as const })),
      guests: fleet(random, (index, rest, base) =>
        index < 3
          ? {
              demand: asks(rising(base, { fromS: 500, untilS: 1100, to: 1.8 * GIB, rate: 0.1 * GIB }), rest),
            }
          : {},
      ),
    }),

  'clock-step': random => {
    const bursts = [burstOf(620, 200, 3 * GIB), burstOf(1100, 200, 3 * GIB)];
    return traceOf({
      name: 'clock-step',
      title: 'the clock jumps an hour ahead, and half of it back',
      overcommit: 1.5,
      bursts,
      guests: fleet(random, (index, rest, base) =>
        index === 0 ? { demand: asks(withBursts(base, bursts), rest) } : {},
      ),
      more: {
        clockSteps: [
          { atS: 600, byMs: 3_600_000 },
          { atS: 1000, byMs: -1_800_000 },
        ],
      },
    });
  },

  restart: random => {
    const bursts = [burstOf(660, 200, 3 * GIB), burstOf(1100, 200, 3 * GIB)];
    return traceOf({
      name: 'restart',
      title: 'the policy is killed, and starts anew without its memory half a minute later',
      overcommit: 1.5,
      bursts,
      guests: fleet(random, (index, rest, base) =>
        index === 0 ? { demand: asks(withBursts(base, bursts), rest) } : {},
      ),
      more: { killedAtS: 600 },
    });
  },

  overcommitted: random =>
    traceOf({
      name: 'overcommitted',
      title: 'the guests, which have swap, want more than there is for ten minutes',
      overcommit: 1.6,
      guests: fleet(random, (_, rest, base) => ({
        swapBytes: 2 * GIB,
        demand: asks(rising(base, { fromS: 500, untilS: 1100, to: 2.7 * GIB, rate: 0.05 * GIB }), rest),
      })),
    }),
};

const MAKERS: Readonly<Record<string, Maker>> = { ...TRACES, ...HARD_TRACES };

export const TRACE_NAMES: readonly string[] = Object.keys(MAKERS);

export function makeTrace(name: string, seed: number): Trace {
  return MAKERS[name](new Random(seed).split(name));
}
