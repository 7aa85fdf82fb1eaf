/** What a plan orders, what it leaves, and that it says why. */
import { describe, expect, test } from 'vitest';
import {
  explainEnd,
  explainFleet,
  explainOrder,
  explainPlacement,
  explainStaying,
} from '../../src/placement/explain.ts';
import { plan } from '../../src/placement/plan.ts';
import { carriedOut, GIB, guestOf, hostOf, TestLeader } from './fleet.ts';

const size = (bytes: number): string => `${bytes / GIB} GiB`;

/** Short of 2 GiB. */
const short = (more: Parameters<typeof hostOf>[2] = {}) =>
  hostOf('a', [guestOf('a1', 8), guestOf('a2', 8), guestOf('a3', 3), guestOf('a4', 3)], more);

describe('a host that is short', () => {
  test('has the guest moved away whose move costs least, with its memory reserved', () => {
    const { orders } = new TestLeader().settledPlan([short(), hostOf('b', [guestOf('b1', 8)])]);
    expect(orders).toMatchObject([
      {
        guest: 'a3',
        incarnation: 'a3.1',
        from: 'a',
        to: 'b',
        reserveBytes: 3 * GIB,
        because: { kind: 'short', shortBytes: 2 * GIB, budgetBytes: 20 * GIB },
      },
    ]);
  });

  test('keeps the guest that writes much, as its memory would have to be sent twice', () => {
    const busy = guestOf('a3', 3, { dirtyBytesPerSecond: 0.6 * GIB });
    const host = hostOf('a', [guestOf('a1', 8), guestOf('a2', 8), busy, guestOf('a4', 3.5)]);
    expect(new TestLeader().settledPlan([host, hostOf('b', [])]).orders.map(({ guest }) => guest)).toEqual([
      'a4',
    ]);
  });

  test('has several small guests moved where one large one costs more', () => {
    const guests = [guestOf('big', 8), ...[1, 2, 3, 4, 5, 6, 7].map(at => guestOf(`small${at}`, 2))];
    const { orders } = new TestLeader().settledPlan([hostOf('a', guests), hostOf('b', [])]);
    expect(orders.map(({ guest }) => guest)).toEqual(['small1']);
    const both = new TestLeader().settledPlan([
      hostOf('a', [...guests, guestOf('small8', 2)]),
      hostOf('b', []),
    ]);
    expect(both.orders.map(({ guest }) => guest)).toEqual(['small1', 'small2']);
  });

  test('is left alone while it may be a burst', () => {
    const calm = [hostOf('a', [guestOf('a1', 8)]), hostOf('b', [])];
    const leader = new TestLeader();
    leader.lookOn(calm, 60_000);
    const hosts = [short(), hostOf('b', [])];
    const first = leader.plan(hosts);
    expect(first.orders).toEqual([]);
    expect(first.hosts[0]).toMatchObject({ state: 'short', shortBytes: 2 * GIB, receives: false });
    leader.lookOn(hosts, 10_000);
    expect(leader.plan(hosts).orders).toHaveLength(1);
  });

  test('is told why nothing can be done: no host has the memory, and it is not a host that drains or is short itself', () => {
    const full = hostOf('b', [guestOf('b1', 8), guestOf('b2', 8), guestOf('b3', 2)]);
    const drained = hostOf('c', [], { draining: true });
    const { orders, staying } = new TestLeader().settledPlan([short(), full, drained]);
    expect(orders).toEqual([]);
    expect(staying).toMatchObject([{ guest: 'a3', host: 'a', why: 'room', bytes: 3 * GIB }]);
    expect(explainStaying(staying[0], size)).toBe(
      'a3 stays on a: no host that may receive has 3 GiB for it beside its head-room.',
    );
  });
});

describe('an order', () => {
  const hosts = [short(), hostOf('b', [guestOf('b1', 8)]), hostOf('c', [guestOf('c1', 8), guestOf('c2', 4)])];

  test('is the same for the same view, and another one for the next report', () => {
    const first = new TestLeader().settledPlan(hosts).orders;
    expect(new TestLeader().settledPlan(JSON.parse(JSON.stringify(hosts))).orders).toEqual(first);
    const later = new TestLeader().settledPlan([short({ revision: 2 }), hosts[1], hosts[2]]).orders;
    expect(later[0]).toMatchObject({ guest: first[0].guest, to: first[0].to });
    expect(later[0].id).not.toBe(first[0].id);
  });

  test('holds its memory at the destination until the guest is reported there: no two go into the same memory', () => {
    const leader = new TestLeader();
    // Both hosts are short of 2 GiB, and c has room for one guest of 3 GiB, not for two.
    const guests = (name: string) => [guestOf(`${name}1`, 8), guestOf(`${name}2`, 8), guestOf(`${name}3`, 6)];
    const room = hostOf('c', [guestOf('c1', 8), guestOf('c2', 4)]);
    const fleet = [hostOf('a', guests('a')), hostOf('b', guests('b')), room];
    const first = leader.settledPlan(fleet);
    expect(first.orders).toMatchObject([{ guest: 'a3', to: 'c' }]);
    expect(first.hosts[2]).toMatchObject({ arriving: 1, incomingBytes: 6 * GIB });
    for (let round = 0; round < 5; round++) expect(leader.plan(fleet).orders).toEqual([]);
    const after = carriedOut(fleet, first.orders[0]);
    const then = leader.plan(after);
    expect(then.orders).toEqual([]);
    expect(then.ends).toMatchObject([{ end: 'done', order: { guest: 'a3' } }]);
    expect(then.hosts[2]).toMatchObject({ arriving: 0, incomingBytes: 0, needBytes: 18 * GIB });
  });

  test('of a leader that is gone is found in the reports, with its reservation', () => {
    const [order] = new TestLeader().settledPlan(hosts).orders;
    const { id, guest, from, to, reserveBytes } = order;
    const reserved = hosts.map(host =>
      host.host === to ? { ...host, incoming: [{ order: id, guest, from, bytes: reserveBytes }] } : host,
    );
    const leader = new TestLeader();
    const first = leader.plan(reserved);
    expect(first.ends).toMatchObject([{ end: 'found', order: { id } }]);
    const { orders, hosts: placed } = leader.settledPlan(reserved);
    expect(orders).toEqual([]);
    expect(placed.find(({ host }) => host === to)).toMatchObject({
      incomingBytes: reserveBytes,
      arriving: 1,
    });
  });

  test('that is not seen to be carried out has failed; its guest rests, and is ordered anew under another name', () => {
    const leader = new TestLeader();
    const [order] = leader.settledPlan(hosts).orders;
    let revision = 1;
    const again = () => leader.plan(hosts.map(host => ({ ...host, revision: ++revision })));
    let placement = again();
    while (placement.ends.length === 0) {
      expect(placement.orders).toEqual([]);
      placement = again();
    }
    expect(placement.ends).toMatchObject([{ end: 'failed', order: { id: order.id } }]);
    // Another guest of the same host goes in its place.
    expect(placement.orders).toMatchObject([{ guest: 'a4' }]);
    expect(placement.orders[0].id).not.toBe(order.id);
  });

  test('that was refused has failed at once', () => {
    const leader = new TestLeader();
    const [order] = leader.settledPlan(hosts).orders;
    const { ends } = leader.plan(hosts, { failed: [order.id] });
    expect(ends).toMatchObject([{ end: 'failed', order: { id: order.id } }]);
  });

  test('in flight whose destination died: the guest stays where it is, and is free again', () => {
    const leader = new TestLeader();
    const [order] = leader.settledPlan(hosts).orders;
    const left = hosts.filter(({ host }) => host !== order.to);
    let placement = leader.plan(left);
    for (let round = 0; round < 30 && placement.ends.length === 0; round++) placement = leader.plan(left);
    expect(placement.ends).toMatchObject([{ end: 'failed', order: { id: order.id } }]);
    expect(placement.memory.orders.filter(({ id }) => id === order.id)).toEqual([]);
  });

  test('in flight whose source died: its reservation ends when the destination has neither guest nor reservation', () => {
    const leader = new TestLeader();
    const [order] = leader.settledPlan(hosts).orders;
    const left = hosts.filter(({ host }) => host !== order.from);
    const incoming = [{ order: order.id, guest: order.guest, from: order.from, bytes: order.reserveBytes }];
    const holding = left.map(host => (host.host === order.to ? { ...host, incoming } : host));
    for (let round = 0; round < 40; round++) expect(leader.plan(holding).ends).toEqual([]);
    let placement = leader.plan(left);
    for (let round = 0; round < 30 && placement.ends.length === 0; round++) placement = leader.plan(left);
    expect(placement.ends).toMatchObject([{ end: 'failed', order: { id: order.id } }]);
    expect(placement.hosts.every(({ incomingBytes }) => incomingBytes === 0)).toBe(true);
  });

  test('says in words what is to be done and why', () => {
    const leader = new TestLeader();
    const placement = leader.settledPlan(hosts);
    const [order] = placement.orders;
    expect(explainOrder(order, size)).toBe(
      'a3 moves from a to b, as the guests of a need 2 GiB more than the 20 GiB that they may have, and this costs least: ' +
        '3 GiB to send in 3.0 s, 3 GiB reserved at b.',
    );
    expect(explainPlacement(placement.hosts[0], size)).toMatch(
      /^a is short of 2 GiB for 60 s: .*; 1 on the way from it\.$/,
    );
    const { ends } = leader.plan(carriedOut(hosts, order));
    expect(ends.map(explainEnd)).toEqual(['a3 has moved from a to b.']);
    expect(explainFleet(placement.state, 0)).toBe('Guests are moved where they have to be.');
  });
});

describe('a guest that has moved', () => {
  /** b is short of what it was given, and only a has room. */
  const [away] = new TestLeader().settledPlan([short(), hostOf('b', [guestOf('b1', 8)])]).orders;
  const grown = hostOf('b', [
    guestOf('b1', 8, { obstacle: 'it has a device of the host' }),
    guestOf('b2', 8, { obstacle: 'it has a device of the host' }),
    guestOf('a3', 6, { incarnation: 'a3.2', left: away.left }),
  ]);

  test('does not go back within its cool-down, also by a leader that has not seen it move', () => {
    const settings = { coolDownMs: 100_000 };
    const leader = new TestLeader(settings);
    const only = [hostOf('a', []), grown];
    expect(leader.settledPlan(only)).toMatchObject({
      orders: [],
      staying: [{ guest: 'a3', why: 'cool-down' }],
    });
    // How long ago it left is its host's to say; here it always says: a moment ago.
    leader.lookOn(only, 200_000);
    expect(leader.plan(only).orders).toEqual([]);
    const forgotten = only.map(host => ({
      ...host,
      guests: host.guests.map(guest => ({ ...guest, left: [] })),
    }));
    expect(leader.plan(forgotten).orders).toMatchObject([{ guest: 'a3', to: 'a' }]);
  });

  test('does not go back by a leader that saw it move, whatever its host says', () => {
    const leader = new TestLeader({ coolDownMs: 100_000 });
    const hosts = [short(), hostOf('b', [guestOf('b1', 8)])];
    const [order] = leader.settledPlan(hosts).orders;
    let moved = carriedOut(hosts, order);
    expect(leader.plan(moved).ends).toMatchObject([{ end: 'done' }]);
    moved = [
      hostOf('a', []),
      hostOf('b', [
        guestOf('b1', 8, { obstacle: 'pinned' }),
        guestOf('a3', 14, { sizeBytes: 16 * GIB, incarnation: 'x' }),
      ]),
    ];
    for (let round = 0; round < 40; round++) expect(leader.plan(moved).orders).toEqual([]);
    leader.lookOn(moved, 60_000);
    expect(leader.plan(moved).orders).toMatchObject([{ guest: 'a3', from: 'b', to: 'a' }]);
  });
});

describe('a drain', () => {
  const drained = hostOf(
    'a',
    [
      guestOf('large', 6),
      guestOf('small', 1),
      guestOf('pinned', 1, { obstacle: 'it has a device of the host' }),
      guestOf('writer', 2, { dirtyBytesPerSecond: 2 * GIB }),
      guestOf('middle', 3),
    ],
    { draining: true },
  );

  test('empties a host, the cheapest guest first, and says what cannot move and why', () => {
    const { orders, staying, hosts } = new TestLeader().settledPlan([
      drained,
      hostOf('b', []),
      hostOf('c', []),
    ]);
    expect(orders.map(({ guest }) => guest)).toEqual(['small', 'middle', 'large']);
    expect(orders.every(({ because }) => because.kind === 'drain')).toBe(true);
    expect(staying.map(({ guest, why }) => [guest, why])).toEqual([
      ['pinned', 'obstacle'],
      ['writer', 'dirty'],
    ]);
    expect(staying.map(one => explainStaying(one, size))).toEqual([
      'pinned stays on a: it has a device of the host.',
      "writer stays on a: it writes faster than its host's link can send.",
    ]);
    expect(hosts[0].state).toBe('draining');
  });

  test('has so many guests on their way at a time', () => {
    const leader = new TestLeader({ drainsMax: 2 });
    const { orders, staying } = leader.settledPlan([drained, hostOf('b', []), hostOf('c', [])]);
    expect(orders).toHaveLength(2);
    expect(staying.filter(({ why }) => why === 'next').map(({ guest }) => guest)).toEqual(['large']);
  });

  test('is over when the host is empty', () => {
    const { hosts } = new TestLeader().settledPlan([hostOf('a', [], { draining: true }), hostOf('b', [])]);
    expect(hosts[0].state).toBe('empty');
    expect(explainPlacement(hosts[0], size)).toBe('a is drained, and empty.');
  });

  test('waits for links that are busy, where a guest writes too fast for what is left of them', () => {
    const writer = guestOf('writer', 8, { dirtyBytesPerSecond: 0.5 * GIB });
    const host = hostOf('a', [guestOf('small', 1), writer], { draining: true });
    const leader = new TestLeader();
    const first = leader.settledPlan([host, hostOf('b', []), hostOf('c', [])]);
    expect(first.orders.map(({ guest }) => guest)).toEqual(['small']);
    expect(first.staying).toMatchObject([{ guest: 'writer', why: 'link' }]);
    const then = leader.plan(carriedOut([host, hostOf('b', []), hostOf('c', [])], first.orders[0]));
    expect(then.orders.map(({ guest }) => guest)).toEqual(['writer']);
  });
});

describe('a wish', () => {
  const hosts = [hostOf('a', [guestOf('a1', 3)]), hostOf('b', []), hostOf('c', [], { draining: true })];

  test('is ordered where it can be', () => {
    const { orders } = new TestLeader().settledPlan(hosts, { wishes: [{ guest: 'a1', to: 'b' }] });
    expect(orders).toMatchObject([{ guest: 'a1', from: 'a', to: 'b', because: { kind: 'wish' } }]);
  });

  test.each([
    ['a1', 'c', 'receiver', 'c may not receive'],
    ['a1', 'a', 'there', 'it is wanted there'],
    ['a1', 'd', 'missing', 'no host called d'],
    ['z1', 'b', 'missing', 'no guest of that name'],
  ])('for %s on %s is answered with why it cannot be: %s', (guest, to, why, words) => {
    const { orders, staying } = new TestLeader().settledPlan(hosts, { wishes: [{ guest, to }] });
    expect(orders).toEqual([]);
    expect(staying).toMatchObject([{ guest, why, detail: to }]);
    expect(explainStaying(staying[0], size)).toContain(words);
  });
});

test('a plan changes nothing that it is given', () => {
  const hosts = [short(), hostOf('b', [])];
  const leader = new TestLeader();
  leader.lookOn(hosts, 60_000);
  const before = JSON.stringify([hosts, leader.memory]);
  expect(plan({ atMs: leader.atMs, hosts }, leader.memory).orders).toHaveLength(1);
  expect(JSON.stringify([hosts, leader.memory])).toBe(before);
});

test('a plan looks at each guest a bounded number of times, however large the fleet is', () => {
  const looksOf = (count: number): number => {
    const hosts = Array.from({ length: count }, (_, at) =>
      hostOf(
        `h${at}`,
        Array.from({ length: 10 }, (_unused, index) => guestOf(`${at}.${index}`, at % 2 === 0 ? 2.2 : 1)),
        { draining: at % 5 === 1 },
      ),
    );
    return plan({ atMs: 0, hosts }, undefined, { settleMs: 0, patienceMs: 0 }).looks;
  };
  const [small, large] = [looksOf(100), looksOf(1000)];
  expect(large / small).toBeLessThan(12);
});
