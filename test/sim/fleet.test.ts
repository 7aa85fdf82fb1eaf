/**
 * A simulated fleet whose hosts fail, are cut off and change their leader: placement breaks no rule, does better than a
 * scheduler by first-fit or no migration, and the simulation would see it if it did not.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { plan } from '../../src/placement/plan.ts';
import type { FleetGuest, FleetHost, FleetView, PlacementMemory } from '../../src/placement/types.ts';
import { PLANNERS, type Planner } from '../../src/sim/fleet/planners.ts';
import { fleetTable, reportFleet } from '../../src/sim/fleet/report.ts';
import { type FleetOutcome, liveFleet } from '../../src/sim/fleet/run.ts';
import { type FleetTrace, makeFleetTrace } from '../../src/sim/fleet/trace.ts';

/** The seed of random tests: printed in their names, taken from the environment to repeat one. */
const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_801);
const SIZE = { hosts: 30, guests: 600, seconds: 1000 };
const SEEDS = 3;
/** Fleets in which a mistake is looked for. */
const SEEDS_MAX = 20;

const traces = new Map<number, FleetTrace>();

function live(planner: Planner, seed: number): FleetOutcome {
  const trace = traces.get(seed) ?? makeFleetTrace(SIZE, new Random(seed).split('fleet'));
  traces.set(seed, trace);
  return liveFleet(trace, planner, seed);
}

const all = (planner: Planner): FleetOutcome[] =>
  Array.from({ length: SEEDS }, (_, at) => live(planner, SEED + at));

const sum = (outcomes: readonly FleetOutcome[], of: (outcome: FleetOutcome) => number): number =>
  outcomes.reduce((total, outcome) => total + of(outcome), 0);

describe(`fleets from seed ${SEED} on`, () => {
  let [ours, script, unmoved]: FleetOutcome[][] = [[], [], []];

  beforeAll(() => {
    [ours, script, unmoved] = Object.values(PLANNERS).map(all);
  });

  it('see no rule broken by placement', () => {
    expect(ours.flatMap(({ broken, trace }) => (broken.length === 0 ? [] : [...trace, ...broken]))).toEqual(
      [],
    );
    expect(sum(ours, ({ moves }) => moves)).toBeGreaterThan(10);
  });

  it('are overcommitted less than by first-fit, and half as long as without moves at most', () => {
    const overcommitted = [ours, script, unmoved].map(one =>
      sum(one, ({ overcommittedHostS }) => overcommittedHostS),
    );
    expect(overcommitted[0]).toBeLessThan(overcommitted[1]);
    expect(overcommitted[0]).toBeLessThan(overcommitted[2] / 2);
  });

  it('have no guest return within its cool-down, and send less than by first-fit', () => {
    expect(sum(ours, ({ pingPongs }) => pingPongs)).toBe(0);
    expect(sum(ours, ({ sentBytes }) => sentBytes)).toBeLessThan(sum(script, ({ sentBytes }) => sentBytes));
  });

  it('live the same from the same seed', () => {
    expect(live(plan, SEED)).toEqual(ours[0]);
  });
});

describe('a simulated fleet finds', () => {
  /** Whether one of the fleets has `rule` broken by `planner`. */
  const breaks = (planner: Planner, rule: string): boolean => {
    for (let at = 0; at < SEEDS_MAX; at++) {
      if (live(planner, SEED + at).broken.some(what => what.startsWith(rule))) return true;
    }
    return false;
  };

  const withHosts = (view: FleetView, change: (host: FleetHost) => Partial<FleetHost>): FleetView => ({
    ...view,
    hosts: view.hosts.map(host => ({ ...host, ...change(host) })),
  });

  const withGuests = (view: FleetView, change: (guest: FleetGuest) => Partial<FleetGuest>): FleetView =>
    withHosts(view, ({ guests }) => ({ guests: guests.map(guest => ({ ...guest, ...change(guest) })) }));

  const remembering = (memory: PlacementMemory | undefined, change: Partial<PlacementMemory>) =>
    memory && { ...memory, ...change };

  it('reservations that do not count', () => {
    const planner: Planner = (view, memory) => {
      const unreserved = withHosts(view, ({ incoming }) => ({
        incoming: incoming.map(one => ({ ...one, bytes: 0 })),
      }));
      const orders = memory?.orders.map(order => ({ ...order, reserveBytes: 0 })) ?? [];
      return plan(unreserved, remembering(memory, { orders }));
    };
    expect(breaks(planner, 'a reservation is exceeded')).toBe(true);
  });

  it('old reports that are gone by', () => {
    const planner: Planner = (view, memory) =>
      plan(
        withHosts(view, () => ({ ageMs: 0 })),
        memory,
      );
    expect(breaks(planner, 'an order goes by stale data')).toBe(true);
  });

  it('a cool-down that is forgotten', () => {
    const planner: Planner = (view, memory) =>
      plan(
        withGuests(view, () => ({ left: [] })),
        remembering(memory, { moves: [] }),
      );
    expect(breaks(planner, 'a guest goes back within its cool-down')).toBe(true);
  });

  it('a host that came back and is believed', () => {
    const planner: Planner = (view, memory) => {
      // Of two reports of one guest, the one of the host that drains.
      const drained = new Set(
        view.hosts.filter(({ draining }) => draining).flatMap(({ guests }) => guests.map(named)),
      );
      const believed = withHosts(view, ({ draining, guests }) => ({
        guests: draining ? guests : guests.filter(guest => !drained.has(named(guest))),
      }));
      return plan(believed, remembering(memory, { moves: [] }));
    };
    expect(breaks(planner, 'a guest in doubt is moved')).toBe(true);
    expect(breaks(planner, 'a guest runs twice')).toBe(true);
  });

  it('a new leader that goes by reports which it has not seen change', () => {
    const planner: Planner = (view, memory) =>
      plan(
        withHosts(view, ({ ageMs }) => ({ ageMs: ageMs ?? 0 })),
        memory,
        { settleMs: 0, patienceMs: 0 },
      );
    expect(breaks(planner, 'an order goes by stale data')).toBe(true);
  });

  it('a leader that forgets what it ordered', () => {
    const planner: Planner = (view, memory) =>
      plan(
        withGuests(
          withHosts(view, () => ({ incoming: [] })),
          () => ({ moving: null }),
        ),
        remembering(memory, { orders: [] }),
      );
    expect(breaks(planner, 'an order is given twice')).toBe(true);
  });

  it('an order that is given once more', () => {
    let before: ReturnType<Planner>['orders'] = [];
    const planner: Planner = (view, memory) => {
      const { orders, memory: next } = plan(view, memory);
      const twice = [...before, ...orders];
      before = orders;
      return { orders: twice, memory: next };
    };
    expect(breaks(planner, 'an order is given twice')).toBe(true);
  });

  it('hosts that receive while they are drained or short', () => {
    const planner: Planner = (view, memory) => {
      const { orders, memory: next } = plan(view, memory);
      const worst = view.hosts.find(({ draining }) => draining)?.host;
      return {
        orders: worst === undefined ? orders : orders.map(order => ({ ...order, to: worst })),
        memory: next,
      };
    };
    expect(breaks(planner, 'a host receives that is short or drained')).toBe(true);
  });

  it('more moves than may be at a time', () => {
    const planner: Planner = (view, memory) =>
      plan(view, memory, { arrivesMax: 99, leavesMax: 99, drainsMax: 99 });
    expect(breaks(planner, 'too many guests are on their way to one host')).toBe(true);
  });
});

const named = ({ guest }: FleetGuest): string => guest;

it('a report compares three planners, and says what to run to see a failure again', () => {
  const choice = { hosts: 8, guests: 80, seconds: 240, seed: 1 };
  const lines: string[] = [];
  const report = reportFleet(choice, line => lines.push(line));
  expect(report.rows.map(({ planner }) => planner)).toEqual(['ours', 'first-fit', 'no migration']);
  expect(report.failures).toEqual([]);
  expect(fleetTable(report).split('\n')).toHaveLength(5);
  const wild = reportFleet(choice, line => lines.push(line), {
    ours: (view, memory) => {
      const { orders, memory: next } = plan(view, memory, { settleMs: 0, patienceMs: 0 });
      return { orders: [...orders, ...orders], memory: next };
    },
  });
  expect(wild.failures[0].command).toBe('npm run sim -- fleet --hosts 8 --guests 80 --seconds 240 --seed 1');
  expect(lines.at(-1)).toBe(`Again: ${wild.failures[0].command}`);
});
