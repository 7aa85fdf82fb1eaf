/** Fleets that lie, are silent, contradict each other or come back from the dead: what becomes of each. */
import { describe, expect, test } from 'vitest';
import { explainFleet, explainPlacement, explainStaying } from '../../src/placement/explain.ts';
import { plan } from '../../src/placement/plan.ts';
import type { FleetGuest, FleetHost } from '../../src/placement/types.ts';
import { carriedOut, GIB, guestOf, hostOf, PERIOD_MS, TestLeader } from './fleet.ts';

const size = (bytes: number): string => `${bytes / GIB} GiB`;

/** Short of 2 GiB; the cheapest guest to move is a3. */
const short = (more: Partial<FleetHost> = {}) =>
  hostOf('a', [guestOf('a1', 8), guestOf('a2', 8), guestOf('a3', 3), guestOf('a4', 3)], more);
const roomy = (name: string, more: Partial<FleetHost> = {}) => hostOf(name, [guestOf(`${name}1`, 4)], more);
const others = [roomy('x'), roomy('y'), roomy('z')];

describe('a report', () => {
  test.each([
    ['older than the limit', 10_001, 'stale'],
    ['whose age is not known', null, 'unseen'],
    ['from the future', -3_600_000, 'stale'],
    ['of no age', Number.NaN, 'stale'],
    ['of an infinite age', Number.POSITIVE_INFINITY, 'stale'],
  ])('%s moves nothing from its host, and nothing to it', (_, ageMs, state) => {
    const from = new TestLeader().settledPlan([short({ ageMs }), ...others]);
    expect(from.orders).toEqual([]);
    expect(from.hosts[0]).toMatchObject({ host: 'a', state, receives: false });
    const to = new TestLeader().settledPlan([
      short(),
      roomy('b', { ageMs, memoryBytes: 100 * GIB }),
      ...others,
    ]);
    expect(to.orders.map(order => order.to)).toEqual(['x']);
  });

  test('of a host whose clock is an hour off counts by its age at the leader: no time of the host is asked for', () => {
    const times = Object.keys(short()).filter(name => /time|atMs|wall/i.test(name));
    expect(times).toEqual([]);
    // What the host says how long ago something was may be nonsense. It keeps the guest where it is, at most.
    for (const agoMs of [-3_600_000, Number.NaN, Number.NEGATIVE_INFINITY]) {
      const guests = short().guests.map(guest => ({ ...guest, left: [{ host: 'x', agoMs }] }));
      const { orders } = new TestLeader().settledPlan([short({ guests }), ...others]);
      expect(orders).toMatchObject([{ guest: 'a3', to: 'y' }]);
      expect(orders[0].left).toContainEqual({ host: 'x', agoMs: 0 });
    }
  });

  const nonsense = [Number.NaN, -1, Number.POSITIVE_INFINITY, 2 ** 60, -(2 ** 60)];
  const sizes = ['memoryBytes', 'reserveBytes', 'othersBytes', 'linkBytesPerSecond'] as const;

  test.each(sizes.flatMap(name => nonsense.map(value => ({ name, value }))))(
    'with $name of $value is not gone by',
    ({ name, value }) => {
      const from = new TestLeader().settledPlan([short({ [name]: value }), ...others]);
      expect(from.orders).toEqual([]);
      expect(from.hosts[0]).toMatchObject({ state: 'implausible', receives: false });
      expect(explainPlacement(from.hosts[0], size)).toContain('make no sense');
      const to = new TestLeader().settledPlan([short(), roomy('b', { [name]: value }), roomy('x')]);
      expect(to.orders.map(order => order.to)).toEqual(['x']);
    },
  );

  const figures = ['sizeBytes', 'residentBytes', 'needBytes', 'minBytes', 'dirtyBytesPerSecond'] as const;

  test.each(figures.flatMap(name => nonsense.map(value => ({ name, value }))))(
    'of a guest with $name of $value: the guest stays, its host receives nothing, others of the host can leave',
    ({ name, value }) => {
      const strange = guestOf('strange', 4, { [name]: value });
      const from = new TestLeader().settledPlan([
        short({ guests: [strange, ...short().guests], draining: true }),
        ...others,
      ]);
      expect(from.orders.map(({ guest }) => guest)).toContain('a3');
      expect(from.staying).toContainEqual(
        expect.objectContaining({ guest: 'strange', host: 'a', why: 'implausible', bytes: -1 }),
      );
      const to = new TestLeader().settledPlan([short(), hostOf('b', [strange]), roomy('x')]);
      expect(to.orders.map(order => order.to)).toEqual(['x']);
    },
  );

  test('of a reservation of nonsense keeps all of the host', () => {
    for (const bytes of nonsense) {
      const incoming = [{ order: 'move-1', guest: 'g', from: 'gone', bytes }];
      const { orders, hosts } = new TestLeader().settledPlan([short(), roomy('b', { incoming }), roomy('x')]);
      expect(orders.map(order => order.to)).toEqual(['x']);
      expect(hosts.every(({ incomingBytes }) => Number.isFinite(incomingBytes))).toBe(true);
    }
  });

  test('that needs more than a guest has counts with what it has', () => {
    const { hosts } = new TestLeader().settledPlan([
      hostOf('a', [guestOf('a1', 8, { needBytes: 100 * GIB })]),
    ]);
    expect(hosts[0]).toMatchObject({ needBytes: 8 * GIB, state: 'steady' });
  });
});

describe('a name', () => {
  const doubtful = (more: Partial<FleetGuest>) =>
    new TestLeader().settledPlan([
      short({ draining: true }),
      hostOf('b', [guestOf('a3', 3, { incarnation: 'another', ...more })]),
      ...others,
    ]);

  test('that guests of two hosts have moves neither of them, and both hosts are named', () => {
    const { orders, staying } = doubtful({});
    expect(orders.map(({ guest }) => guest).sort()).toEqual(['a1', 'a2', 'a4']);
    expect(staying).toEqual([{ guest: 'a3', host: 'a', why: 'doubtful', detail: 'a, b', bytes: 3 * GIB }]);
    expect(explainStaying(staying[0], size)).toContain('more than one host has or had it (a, b)');
  });

  test('that guests of two hosts have is not moved by a wish either', () => {
    const hosts = [short(), hostOf('b', [guestOf('a4', 3, { incarnation: 'another' })]), ...others];
    const { orders, staying } = new TestLeader().settledPlan(hosts, { wishes: [{ guest: 'a4', to: 'x' }] });
    expect(orders.map(({ guest }) => guest)).toEqual(['a3']);
    expect(staying).toMatchObject([{ guest: 'a4', why: 'doubtful' }]);
  });

  test('that one host reports twice is in doubt as well', () => {
    const guests = [...short().guests, guestOf('a3', 1, { incarnation: 'another' })];
    const { orders } = new TestLeader().settledPlan([short({ guests }), ...others]);
    expect(orders.map(({ guest }) => guest)).toEqual(['a4']);
  });

  test('that two hosts have moves nothing from or to either', () => {
    const { orders, hosts } = new TestLeader().settledPlan([
      short(),
      short({ revision: 7 }),
      ...others,
      roomy('b'),
    ]);
    expect(orders).toEqual([]);
    expect(hosts.slice(0, 2).map(({ state }) => state)).toEqual(['twice', 'twice']);
  });

  test('of any kind is a name: a prototype holds no guest', () => {
    const guests = ['__proto__', 'constructor', 'toString', ''].map((name, at) => guestOf(name, 5 + at));
    const { orders } = new TestLeader().settledPlan([hostOf('__proto__', guests), hostOf('constructor', [])]);
    expect(orders).toMatchObject([{ guest: 'constructor', from: '__proto__', to: 'constructor' }]);
  });
});

describe('a host that is back from the dead', () => {
  /** a3 has moved from a to b, and a4 from there, too. */
  const before = [short(), roomy('b'), ...others];
  const leaderAfter = () => {
    const leader = new TestLeader();
    const [order] = leader.settledPlan(before).orders;
    const after = carriedOut(before, order);
    expect(leader.plan(after).ends).toMatchObject([{ end: 'done' }]);
    return { leader, order, after };
  };

  test('with an old view has a guest that has moved: nothing is ordered for it while two hosts report it', () => {
    const { leader, order, after } = leaderAfter();
    const [, ...rest] = after;
    const old = short({ revision: 9, draining: true });
    for (let round = 0; round < 20; round++) {
      const { orders, staying } = leader.plan([old, ...rest]);
      expect(orders.filter(({ guest }) => guest === order.guest)).toEqual([]);
      expect(staying).toContainEqual(expect.objectContaining({ guest: order.guest, why: 'doubtful' }));
    }
    // One host alone reports it.
    const { staying } = leader.plan([{ ...after[0], draining: true }, ...rest]);
    expect(staying.filter(({ why }) => why === 'doubtful')).toEqual([]);
  });

  test('with a copy that is known to have moved: it is a ghost also while its new host is silent', () => {
    const { leader, order, after } = leaderAfter();
    const hosts = after
      .filter(({ host }) => host !== order.to)
      .map(host => (host.host === 'a' ? short({ revision: 9, draining: true }) : host));
    const { orders, staying } = leader.plan(hosts);
    expect(orders.map(({ guest }) => guest)).not.toContain(order.guest);
    expect(staying).toContainEqual(
      expect.objectContaining({ guest: order.guest, why: 'doubtful', detail: order.to }),
    );
  });

  test('with guests that were started elsewhere: they stay while the host that had them last is silent, and not for ever', () => {
    // a has an old copy of b1, which was started on b; b was cut off, and its report is no longer kept.
    const leader = new TestLeader({ missedMs: 100_000 });
    const cut = [hostOf('a', [], { draining: true }), roomy('b', { ageMs: 30_000 }), ...others];
    leader.lookOn([hostOf('a', [], { draining: true }), roomy('b'), ...others], 60_000);
    leader.plan(cut);
    const back = [hostOf('a', [guestOf('b1', 4, { incarnation: 'old' })], { draining: true }), ...others];
    expect(leader.plan(back)).toMatchObject({
      orders: [],
      staying: [{ guest: 'b1', host: 'a', why: 'doubtful', detail: 'b' }],
    });
    leader.lookOn(back, 100_000);
    expect(leader.plan(back).orders).toMatchObject([{ guest: 'b1', from: 'a' }]);
  });

  test('whose guest has honestly come back, as another copy, is believed', () => {
    const { leader, order, after } = leaderAfter();
    const back = guestOf(order.guest, 3, { incarnation: 'third' });
    const hosts = after.map(host => {
      if (host.host === 'a') return { ...host, draining: true, guests: [...host.guests, back] };
      return { ...host, guests: host.guests.filter(({ guest }) => guest !== order.guest) };
    });
    leader.lookOn(hosts, 60_000);
    expect(leader.plan(hosts).orders.map(({ guest }) => guest)).toContain(order.guest);
  });
});

describe('silence', () => {
  test.each([
    ['half of the hosts', 2, 'partition'],
    ['less than half of them', 1, 'moves'],
  ])('of %s: %i of 4', (_, silent, state) => {
    const hosts = [short(), ...others].map((host, at) =>
      at >= 4 - silent ? { ...host, ageMs: 60_000 } : host,
    );
    const placement = new TestLeader().settledPlan(hosts);
    expect(placement).toMatchObject({ state, unknownHosts: silent });
    expect(placement.orders).toHaveLength(state === 'moves' ? 1 : 0);
    if (state === 'partition') expect(explainFleet(placement.state, silent)).toContain('silent (2)');
  });

  test('of hosts that vanished a moment ago counts as well, until they are given up', () => {
    const leader = new TestLeader({ missedMs: 100_000 });
    leader.lookOn([short(), ...others], 60_000);
    const left = [short(), others[0]];
    expect(leader.plan(left)).toMatchObject({ state: 'partition', orders: [], unknownHosts: 2 });
    leader.lookOn(left, 100_000);
    expect(leader.plan(left)).toMatchObject({ state: 'moves', orders: [{ guest: 'a3' }], unknownHosts: 0 });
  });

  test('of a destination leaves an order in flight, and the guest is not ordered again', () => {
    const leader = new TestLeader();
    const hosts = [short(), ...others];
    const [order] = leader.settledPlan(hosts).orders;
    // The guest is gone from its source, and its destination is cut off.
    const away = hosts.map(host => {
      if (host.host === order.to) return { ...host, ageMs: 60_000 };
      return { ...host, guests: host.guests.filter(({ guest }) => guest !== order.guest) };
    });
    for (let round = 0; round < 60; round++)
      expect(leader.plan(away)).toMatchObject({ ends: [], orders: [] });
    expect(leader.plan(carriedOut(hosts, order)).ends).toMatchObject([{ end: 'done' }]);
  });
});

describe('a leader', () => {
  const hosts = [short(), ...others];

  test('that has just begun looks on first', () => {
    const leader = new TestLeader();
    for (let atMs = 0; atMs < 25_000; atMs += PERIOD_MS)
      expect(leader.plan(hosts)).toMatchObject({ state: 'settling', orders: [] });
    expect(leader.plan(hosts)).toMatchObject({ state: 'moves', orders: [{ guest: 'a3' }] });
  });

  test('whose clock begins anew keeps what it knew, as long ago as it was', () => {
    const leader = new TestLeader();
    const [order] = leader.settledPlan(hosts).orders;
    leader.atMs = 5;
    const { state, orders, memory } = leader.plan(hosts);
    expect({ state, orders }).toEqual({ state: 'moves', orders: [] });
    expect(memory.orders).toMatchObject([{ id: order.id, atMs: 5 }]);
  });

  test('with settings that make no sense goes by the defaults', () => {
    const settings = {
      staleMs: Number.NaN,
      settleMs: -1,
      patienceMs: Number.POSITIVE_INFINITY,
      headroom: 2,
      movesMax: -3,
    };
    expect(new TestLeader(settings).settledPlan(hosts)).toEqual(new TestLeader().settledPlan(hosts));
  });

  test('without hosts has nothing to do', () => {
    expect(plan({ atMs: 0, hosts: [] })).toMatchObject({ orders: [], hosts: [], unknownHosts: 0 });
  });
});
