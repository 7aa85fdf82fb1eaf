/**
 * What placement promises over all fleets of a small model, honest and nonsensical ones: the same answer to the same
 * question, orders that keep every rule, reservations that fit. Fleets that live on are the simulation's (test/sim).
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { plan } from '../../src/placement/plan.ts';
import type { FleetGuest, FleetHost, FleetView, Placement } from '../../src/placement/types.ts';
import { GIB, guestOf, hostOf, TestLeader } from './fleet.ts';

const RUNS = { numRuns: 100 };
const HEADROOM = 0.05;
/** A leader that need not look on first. */
const HASTY = { settleMs: 0, patienceMs: 0 };

const nonsense = fc.constantFrom(Number.NaN, -1, Number.POSITIVE_INFINITY, 2 ** 60, -1e300);
const gibs = fc.integer({ min: 0, max: 32 }).map(quarters => quarters / 4);
const figure = fc.oneof(
  { weight: 30, arbitrary: gibs.map(gib => gib * GIB) },
  { weight: 1, arbitrary: nonsense },
);

const rarely = <Value>(often: Value, rare: fc.Arbitrary<Value>): fc.Arbitrary<Value> =>
  fc.oneof({ weight: 15, arbitrary: fc.constant(often) }, { weight: 1, arbitrary: rare });

const guests = fc.record({
  /** Undefined: one of its own. */
  name: rarely<string | undefined>(undefined, fc.constantFrom('g0.0', 'g1.1', 'toString')),
  incarnation: fc.constantFrom('1', '2', '3'),
  sizeBytes: rarely(8 * GIB, nonsense),
  residentBytes: figure,
  needBytes: figure,
  minBytes: fc.constant(0.25 * GIB),
  dirtyBytesPerSecond: fc.oneof(
    fc.constant(null),
    figure.map(bytes => bytes / 16),
  ),
  obstacle: rarely<string | null>(null, fc.constant('it has a device of the host')),
  moving: rarely<FleetGuest['moving']>(
    null,
    fc.record({ order: fc.constant('move-x'), to: fc.constantFrom('h0', 'h1', 'gone') }),
  ),
  left: fc.array(
    fc.record({ host: fc.constantFrom('h0', 'h1', 'h2'), agoMs: fc.integer({ min: -10, max: 2_000_000 }) }),
    { maxLength: 2 },
  ),
});

const hosts: fc.Arbitrary<FleetHost[]> = fc
  .array(
    fc.record({
      guests: fc.array(guests, { maxLength: 8 }),
      ageMs: rarely<number | null>(500, fc.constantFrom(null, 60_000, -5, Number.NaN)),
      draining: rarely(false, fc.constant(true)),
      memoryBytes: rarely(20 * GIB, nonsense),
      linkBytesPerSecond: fc.constantFrom(GIB, GIB / 4),
      incoming: rarely<FleetHost['incoming']>(
        [],
        fc.array(
          fc.record({
            order: fc.constantFrom('move-1', 'move-2', 'move-3'),
            guest: fc.constantFrom('g1.1', 'g2.0', 'gone'),
            from: fc.constantFrom('h0', 'gone'),
            bytes: figure,
          }),
          { maxLength: 2 },
        ),
      ),
    }),
    { minLength: 1, maxLength: 10 },
  )
  .map(list =>
    list.map(({ guests: own, ...more }, at) =>
      hostOf(
        `h${at}`,
        own.map(({ name, ...guest }, index): FleetGuest => ({ guest: name ?? `g${at}.${index}`, ...guest })),
        more,
      ),
    ),
  );

const isFresh = ({ ageMs, memoryBytes }: FleetHost): boolean =>
  ageMs !== null && ageMs >= 0 && ageMs <= 10_000 && memoryBytes > 0 && memoryBytes <= 2 ** 50;

const needOf = ({ guests: own }: FleetHost): number =>
  own.reduce((sum, { needBytes, minBytes, sizeBytes }) => {
    const need = Math.min(sizeBytes, Math.max(needBytes, minBytes));
    return need >= 0 && need <= 2 ** 50 ? sum + need : sum;
  }, 0);

/** What every order keeps to, whatever the fleet is; written without a look at how placement reckons. */
function expectRules(view: FleetView, { orders }: Placement): void {
  const byName = new Map(view.hosts.map(host => [host.host, host]));
  const arriving = new Map<string, number>();
  const seen = new Set<string>();
  for (const { guest: name, incarnation, from, to, reserveBytes, left, id } of orders) {
    expect(seen.has(name) || seen.has(id), 'no order twice').toBe(false);
    seen.add(name).add(id);
    const [source, destination] = [byName.get(from), byName.get(to)];
    if (source === undefined || destination === undefined)
      throw new Error('an order names a host that is not there');
    expect(isFresh(source) && isFresh(destination), 'nothing on stale data').toBe(true);
    expect(source).not.toBe(destination);
    expect(destination.draining).toBe(false);
    const copies = view.hosts.flatMap(host => host.guests.filter(({ guest }) => guest === name));
    expect(copies.length, 'a guest in doubt stays').toBe(1);
    const [guest] = copies;
    expect(guest).toMatchObject({ incarnation, obstacle: null, moving: null });
    expect(source.guests).toContain(guest);
    expect(guest.left.filter(({ agoMs }) => agoMs < 600_000).map(({ host }) => host)).not.toContain(to);
    expect(left[0]).toEqual({ host: from, agoMs: 0 });
    expect(reserveBytes).toBeGreaterThanOrEqual(guest.residentBytes > 8 * GIB ? 0 : guest.residentBytes);
    const incoming = destination.incoming.filter(
      one => !destination.guests.some(own => own.guest === one.guest),
    );
    const reserved = incoming.reduce(
      (sum, { bytes }) => sum + Math.max(0, Number.isNaN(bytes) ? 0 : bytes),
      arriving.get(to) ?? 0,
    );
    arriving.set(to, (arriving.get(to) ?? 0) + reserveBytes);
    const room = destination.memoryBytes * (1 - HEADROOM) - needOf(destination) - reserved;
    expect(reserveBytes, 'a reservation fits').toBeLessThanOrEqual(room + 1);
  }
}

describe('placement', () => {
  test('keeps its rules over any fleet, and its memory is JSON', () => {
    let ordered = 0;
    fc.assert(
      fc.property(hosts, fleet => {
        const leader = new TestLeader(HASTY);
        leader.lookOn(fleet, 5000);
        const view = { atMs: leader.atMs, hosts: fleet };
        const placement = plan(view, leader.memory, HASTY);
        ordered += placement.orders.length;
        expectRules(view, placement);
        if (placement.state !== 'moves') expect(placement.orders).toEqual([]);
        const kept = JSON.parse(JSON.stringify(leader.memory));
        expect(plan(view, kept, HASTY)).toEqual(placement);
        // The next plan orders nothing once more.
        const next = plan({ atMs: view.atMs + 2000, hosts: fleet }, placement.memory, HASTY);
        const twice = next.orders.filter(({ guest }) =>
          placement.orders.some(order => order.guest === guest),
        );
        expect(twice).toEqual([]);
      }),
      RUNS,
    );
    expect(ordered).toBeGreaterThan(RUNS.numRuns / 5);
  });

  test('orders the same whatever order hosts are listed in', () => {
    fc.assert(
      fc.property(hosts, fleet => {
        const one = new TestLeader(HASTY).plan(fleet).orders;
        const other = new TestLeader(HASTY).plan(fleet.toReversed()).orders;
        expect(other.map(({ id }) => id).sort()).toEqual(one.map(({ id }) => id).sort());
      }),
      RUNS,
    );
  });

  test('orders moves that cost at most twice the least that would do', () => {
    const needs = fc.array(
      fc.record({
        need: fc.integer({ min: 1, max: 16 }).map(halves => halves / 2),
        resident: fc.integer({ min: 1, max: 16 }).map(halves => halves / 2),
      }),
      { minLength: 3, maxLength: 7 },
    );
    fc.assert(
      fc.property(needs, list => {
        const own = list.map(({ need, resident }, at) =>
          guestOf(`g${at}`, need, { residentBytes: resident * GIB }),
        );
        const total = list.reduce((sum, { need }) => sum + need, 0);
        const shortGib = 0.3 * total;
        const host = hostOf('a', own, { memoryBytes: (total - shortGib) * GIB });
        // Empty hosts, more than there are guests: room is no matter, and each move costs what the guest has.
        const empty = list.map((_, at) => hostOf(`b${at}`, []));
        const { orders } = new TestLeader({ ...HASTY, leavesMax: 99 }).plan([host, ...empty]);
        const costs = list.map(({ resident }) => resident);
        let least = Number.POSITIVE_INFINITY;
        for (let set = 0; set < 2 ** list.length; set++) {
          const members = list.map((_, at) => at).filter(at => (set >> at) % 2 === 1);
          const relief = members.reduce((sum, at) => sum + list[at].need, 0);
          if (relief >= shortGib - 1e-9)
            least = Math.min(
              least,
              members.reduce((sum, at) => sum + costs[at], 0),
            );
        }
        const cost = orders.reduce((sum, { guest }) => sum + costs[Number(guest.slice(1))], 0);
        expect(cost).toBeLessThanOrEqual(2 * least + 1e-9);
      }),
      RUNS,
    );
  });
});
