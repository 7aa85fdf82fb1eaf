/** Traces that are known to break one policy or another. */

import { GIB, MIB } from '../../policy/units.ts';
import { asks, breathing, sawTooth } from './demands.ts';
import { burstOf, COUNT, fleet, type Maker, traceOf, withBursts } from './plan.ts';

export const HARD_TRACES: Readonly<Record<string, Maker>> = {
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
