/**
 * The traces by name: those that every policy is said to manage, and those that are known to break one. Each is made
 * from a seed, and lasts as long as it takes to see what a policy makes of it.
 */
import { Random } from '../../guest/random.ts';
import { asks, breathing, leaking, NVME_S, type Rest, resting, rising, sawTooth } from './demands.ts';
import type { Burst, GuestSpec, Trace, TraceEvent } from './trace.ts';
import { GIB, MIB, watermarkOf } from './trace.ts';

const COUNT = 8;
const MEMORY = 4 * GIB;
const DEFAULT_SECONDS = 1500;

type Maker = (random: Random) => Trace;

/** The memory of a host whose guests have `overcommit` times what they may have together. */
function hostFor(guests: readonly GuestSpec[], overcommit: number, othersBytes: number): number {
  const all = guests.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  const total = (all / overcommit + othersBytes) / 0.95;
  return Math.ceil(Math.max(total, all / overcommit + othersBytes + GIB) / MIB) * MIB;
}

interface Plan {
  readonly name: string;
  readonly title: string;
  readonly overcommit: number;
  readonly guests: readonly GuestSpec[];
  readonly seconds?: number;
  readonly othersBytes?: number;
  readonly others?: Trace['others'];
  readonly events?: readonly TraceEvent[];
  readonly bursts?: readonly Burst[];
  readonly more?: Partial<Trace>;
}

function traceOf(plan: Plan): Trace {
  const { name, title, overcommit, guests, othersBytes = GIB, events = [], bursts = [] } = plan;
  return {
    name,
    title,
    seconds: plan.seconds ?? DEFAULT_SECONDS,
    guests,
    totalBytes: hostFor(guests, overcommit, othersBytes),
    others: plan.others ?? (() => ({ usedBytes: othersBytes, cacheBytes: GIB })),
    events: [...events].sort((a, b) => a.atS - b.atS),
    bursts,
    settings: { guests: {} },
    ...plan.more,
  };
}

const guest = (index: number, demand: GuestSpec['demand'], more: Partial<GuestSpec> = {}): GuestSpec => ({
  name: `vm${index + 1}`,
  memoryBytes: MEMORY,
  swapBytes: 0,
  deflateOnOom: false,
  reporting: true,
  statistics: true,
  inflateRate: 2 * GIB,
  pageSeconds: NVME_S,
  demand,
  ...more,
});

/** Guests that rest, each in its way; `of` says what some of them do instead. */
function fleet(
  random: Random,
  of: (index: number, rest: Rest, base: (atS: number) => number) => Partial<GuestSpec> = () => ({}),
  count = COUNT,
): GuestSpec[] {
  return Array.from({ length: count }, (_, index) => {
    const own = random.split(`guest ${index}`);
    const rest = resting(own);
    const base = breathing(rest.programsBytes, own);
    return guest(index, asks(base, rest), of(index, rest, base));
  });
}

const burstOf = (atS: number, lastsS: number, toBytes: number, index = 0): Burst => ({
  guest: index,
  atS,
  untilS: atS + lastsS,
  toBytes,
});

/** What a guest that rises to `to` uses with its bursts after one another. */
const withBursts = (
  base: (atS: number) => number,
  bursts: readonly Burst[],
  rate = GIB,
): ((atS: number) => number) =>
  bursts.reduce(
    (before, { atS, untilS, toBytes }) => rising(before, { fromS: atS, untilS, to: toBytes, rate }),
    base,
  );

const MAKERS: Readonly<Record<string, Maker>> = {
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

  // Those that are known to break a policy.
  'host-cache': random =>
    traceOf({
      name: 'host-cache',
      title: 'the host reads files: its page cache is full, and nothing is missing',
      overcommit: 0.98,
      others: () => ({ usedBytes: GIB, cacheBytes: 40 * GIB }),
      guests: fleet(random, (index, _, base) =>
        index < 3 ? { demand: asks(base, { cacheBytes: 2.2 * GIB, accesses: 10_000 }) } : {},
      ),
    }),

  'well-used': random =>
    traceOf({
      name: 'well-used',
      title: 'all guests use most of their memory, and the host has it',
      overcommit: 0.98,
      guests: fleet(random, () => ({
        demand: asks(breathing(3 * GIB, random), { cacheBytes: 0.6 * GIB, accesses: 3000 }),
      })),
    }),

  heaps: random => {
    const bursts = [400, 900].map(atS => burstOf(atS, 200, 3 * GIB));
    return traceOf({
      name: 'heaps',
      title: 'four guests were promised much more than they use',
      overcommit: 1.5,
      bursts,
      guests: fleet(random, (index, rest, base) => {
        if (index === 0) return { demand: asks(withBursts(base, bursts), rest) };
        return index < 5 ? { demand: asks(base, rest, 6) } : {};
      }),
    });
  },

  frozen: random => {
    const bursts = [600, 1100].map(atS => burstOf(atS, 200, 2.2 * GIB));
    return traceOf({
      name: 'frozen',
      title: 'statistics of a guest stop just before it needs memory',
      overcommit: 1.3,
      bursts,
      events: bursts.flatMap(({ atS, untilS }) => [
        { atS: atS - 20, guest: 0, kind: 'freeze' as const },
        { atS: untilS, guest: 0, kind: 'thaw' as const },
      ]),
      guests: fleet(random, (index, rest, base) =>
        index === 0 ? { deflateOnOom: true, demand: asks(withBursts(base, bursts, 0.02 * GIB), rest) } : {},
      ),
    });
  },

  'no-reporting': random => {
    const bursts = [400, 900].map(atS => burstOf(atS, 200, 3 * GIB));
    return traceOf({
      name: 'no-reporting',
      title: 'guests that report no free pages: what was touched once stays with the host',
      overcommit: 1.4,
      bursts,
      guests: fleet(random, (index, _, base) => ({
        reporting: false,
        demand:
          index === 0
            ? asks(withBursts(base, bursts), { cacheBytes: 2 * GIB, accesses: 100 })
            : asks(base, { cacheBytes: 3 * GIB, accesses: 40 }),
      })),
    });
  },

  'day-and-night': random =>
    traceOf({
      name: 'day-and-night',
      title: 'two halves of the fleet work in turn',
      overcommit: 1.5,
      seconds: 2640,
      guests: fleet(random, (index, rest) => ({
        demand: asks(sawTooth(0.6 * GIB, 2.4 * GIB, 1200, index < COUNT / 2 ? 0 : 600, 0.05 * GIB), rest),
      })),
    }),

  mixture: random => {
    const sizes = [1, 1, 2, 2, 4, 8, 8, 16];
    const bursts = [burstOf(500, 200, 9 * GIB, 7), burstOf(1000, 200, 6 * GIB, 6)];
    return traceOf({
      name: 'mixture',
      title: 'guests of 1 to 16 GiB, of which the largest bursts',
      overcommit: 1.5,
      bursts,
      guests: fleet(random, (index, rest) => {
        const share = sizes[index] / 4;
        const base = breathing(
          Math.max(300 * MIB, rest.programsBytes * share),
          random.split(`size ${index}`),
        );
        const own = bursts.filter(burst => burst.guest === index);
        const files = { cacheBytes: rest.cacheBytes * share, accesses: rest.accesses };
        return { memoryBytes: sizes[index] * GIB, demand: asks(withBursts(base, own), files) };
      }),
    });
  },

  'hot-plug': random =>
    traceOf({
      name: 'hot-plug',
      title: 'two guests get twice their memory',
      overcommit: 1.2,
      events: [0, 1].map(index => ({ atS: 500 + 100 * index, guest: index, kind: 'plug' as const })),
      guests: fleet(random),
    }),

  hang: random =>
    traceOf({
      name: 'hang',
      title: 'a guest stands still for five minutes, and another one bursts',
      overcommit: 1.5,
      events: [
        { atS: 500, guest: 3, kind: 'hang' },
        { atS: 800, guest: 3, kind: 'resume' },
      ],
      bursts: [burstOf(600, 300, 3 * GIB)],
      guests: fleet(random, (index, rest, base) =>
        index === 0 ? { demand: asks(withBursts(base, [burstOf(600, 300, 3 * GIB)]), rest) } : {},
      ),
    }),
};

export const TRACE_NAMES: readonly string[] = Object.keys(MAKERS);

export function makeTrace(name: string, seed: number): Trace {
  return MAKERS[name](new Random(seed).split(name));
}
