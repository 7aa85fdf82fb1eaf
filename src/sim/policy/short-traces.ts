/**
 * Traces that real guests can play as well: four guests, less than two minutes, and as many bursts as fit in, at moments
 * that are spread over the periods of statistics. They are what the model is held to reality with; what is said of
 * policies comes from traces.ts.
 */
import { Random } from '../../guest/random.ts';
import { GIB } from '../../policy/units.ts';
import { asks, breathing, rising, sawTooth } from './demands.ts';
import { burstOf, fleet, MEMORY, traceOf, withBursts } from './plan.ts';
import type { Burst, Trace } from './trace.ts';
import { watermarkOf } from './trace.ts';

const COUNT = 4;
/** Until then the policy gets hold of its guests; only the model lives through it. */
export const SETTLED_S = 180;
const SECONDS = SETTLED_S + 100;

const others = (usedBytes: number) => ({ usedBytes, cacheBytes: GIB });

/** Bursts of one guest after the other, a quarter of a period of statistics later each. */
const inTurn = (toBytes: number, everyS: number, lastsS: number): Burst[] =>
  Array.from({ length: COUNT }, (_, index) =>
    burstOf(SETTLED_S + 10 + (everyS + 0.25) * index, lastsS, toBytes, index),
  );

const bursting = (
  name: string,
  overcommit: number,
  random: Random,
  bursts: readonly Burst[],
  rate = 0.5 * GIB,
) =>
  traceOf({
    name,
    title: `${COUNT} guests, of which each bursts`,
    seconds: SECONDS,
    overcommit,
    bursts,
    guests: fleet(
      random,
      (index, rest, base) => ({
        demand: asks(
          withBursts(
            base,
            bursts.filter(burst => burst.guest === index),
            rate,
          ),
          rest,
        ),
      }),
      COUNT,
    ),
  });

/** As long as one growth takes: for a look at whether all of it works. */
const GROWTH_S = 29;

const MAKERS: Readonly<Record<string, (random: Random) => Trace>> = {
  burst: random => bursting('burst', 1.5, random, inTurn(0.9 * MEMORY - watermarkOf(MEMORY), 22, 12)),

  'deep-burst': random => bursting('deep-burst', 2, random, inTurn(2.5 * GIB, 22, 12)),

  'boot-storm': random => {
    const bursts = Array.from({ length: COUNT - 1 }, (_, index) =>
      burstOf(SETTLED_S + 20 + 1.25 * index, 40, 2.7 * GIB, index),
    );
    return bursting('boot-storm', 1.6, random, bursts, 0.25 * GIB);
  },

  growth: random => {
    const bursts = [burstOf(SETTLED_S + 2, 26, 3 * GIB)];
    const trace = bursting('growth', 1.5, random, bursts, 0.1 * GIB);
    return { ...trace, title: 'one guest grows once, slowly', seconds: SETTLED_S + GROWTH_S };
  },

  'saw-tooth': random =>
    traceOf({
      name: 'saw-tooth',
      title: 'two guests run a job of half a minute every minute',
      seconds: SECONDS,
      overcommit: 1.5,
      guests: fleet(
        random,
        (index, rest) =>
          index < 2 ? { demand: asks(sawTooth(0.6 * GIB, 2.2 * GIB, 60, 30 * index), rest) } : {},
        COUNT,
      ),
    }),

  'host-burst': random =>
    traceOf({
      name: 'host-burst',
      title: 'a program of the host takes a fifth of it, and a guest grows slowly',
      seconds: SECONDS,
      overcommit: 1.3,
      others: atS => others(atS >= SETTLED_S + 20 && atS < SETTLED_S + 70 ? 3.5 * GIB : GIB),
      guests: fleet(
        random,
        (index, rest) => {
          if (index > 0) return {};
          const base = breathing(rest.programsBytes, random.split('growth'));
          const slow = { fromS: SETTLED_S + 30, untilS: SETTLED_S + 80, to: 1.6 * GIB, rate: 0.1 * GIB };
          return { demand: asks(rising(base, slow), rest) };
        },
        COUNT,
      ),
    }),
};

export const SHORT_TRACE_NAMES: readonly string[] = Object.keys(MAKERS);

export const makeShortTrace = (name: string, seed: number): Trace =>
  MAKERS[name](new Random(seed).split(`short ${name}`));
