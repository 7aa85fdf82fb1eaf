/** Orders carried out by a source and a destination that are played: once, after a reservation, and never on an old word. */
import { beforeEach, describe, expect, test } from 'vitest';
import { Arrivals } from '../../src/fleet/arrivals.ts';
import { Claims } from '../../src/fleet/claims.ts';
import { Departures } from '../../src/fleet/departures.ts';
import { NoAgentError } from '../../src/fleet/errors.ts';
import type { FleetOrder, HostAnswer, OrderOutcome } from '../../src/fleet/messages.ts';
import { FakeBucket } from './fake-bus.ts';
import { FakeMachines, moving } from './fake-machines.ts';
import { GIB, orderOf } from './samples.ts';
import { soon } from './soon.ts';

const ADDRESS = 'tcp:host2:4444';
const yes: HostAnswer = { version: 1, refusal: null, address: ADDRESS };

let bucket: FakeBucket;
let claims: Claims;
let source: FakeMachines;
let asked: string[];
let outcomes: OrderOutcome[];
let answer: (ask: string, order: FleetOrder) => HostAnswer;

function departures(): Departures {
  return new Departures({
    host: 'host1',
    machines: source.machines,
    claims,
    ask: async (host, { ask, order }) => {
      asked.push(`${ask} ${order.guest} ${host}`);
      return answer(ask, order);
    },
    sleep: () => new Promise(resolve => setImmediate(resolve)),
    onChange: () => {},
    onOutcome: (_, outcome) => outcomes.push(outcome),
  });
}

beforeEach(() => {
  bucket = new FakeBucket();
  claims = new Claims(bucket, 'agent');
  source = new FakeMachines();
  source.add('web');
  asked = [];
  outcomes = [];
  answer = () => yes;
});

describe('a source', () => {
  test('has room made, tells the machine where to go, and says how it ended', async () => {
    const order = orderOf('web');
    expect(await departures().take(order, 1)).toBeNull();
    await soon(() => expect(outcomes).toEqual([{ id: order.id, result: 'moved', why: null }]));
    expect(source.told).toEqual([`web ${ADDRESS}`]);
    expect(asked[0]).toBe('receive web host2');
    await soon(async () => expect((await claims.find(order.id, 'from'))?.result).toBe('moved'));
  });

  test('carries no order out twice, neither asked again nor as an agent that was started anew', async () => {
    const order = orderOf('web');
    const one = departures();
    await one.take(order, 1);
    await soon(() => expect(outcomes).toHaveLength(1));
    source.add('web', order.incarnation);
    expect(await one.take(order, 1)).toBeNull();
    claims = new Claims(bucket, 'agent after a restart');
    expect(await departures().take(order, 1)).toBe('it was carried out before');
    expect(source.told).toHaveLength(1);
  });

  test('does nothing with an order that the leader has taken back', async () => {
    const order = orderOf('web');
    const leader = new Claims(bucket, 'leader');
    expect(await leader.claim(order, 'from', 'host3', 'withdrawn')).toBeUndefined();
    expect(await departures().take(order, 1)).toBe('it was taken back');
    expect(source.told).toEqual([]);
  });

  test('does nothing while it cannot claim the order, for want of a quorum, and goes on when it can', async () => {
    const order = orderOf('web');
    const one = departures();
    bucket.silent = true;
    expect(await one.take(order, 1)).toBeNull();
    expect([source.told, one.all]).toMatchObject([[], [{ status: 'is claimed' }]]);
    bucket.silent = false;
    await soon(() => expect(outcomes).toMatchObject([{ result: 'moved' }]));
    expect(source.told).toHaveLength(1);
  });

  test('whose claim was stored and not answered carries the order out, once', async () => {
    const order = orderOf('web');
    bucket.deaf = true;
    expect(await departures().take(order, 1)).toBeNull();
    bucket.deaf = false;
    await soon(() => expect(outcomes).toMatchObject([{ result: 'moved' }]));
    expect(source.told).toHaveLength(1);
  });

  test('gives a destination up of which no agent listens, and keeps its guest', async () => {
    answer = ask => {
      throw new NoAgentError(`${ask}: no agent listens`);
    };
    await departures().take(orderOf('web'), 1);
    await soon(() => expect(outcomes).toMatchObject([{ result: 'failed' }]));
    expect([source.told, source.guests.has('web')]).toEqual([[], true]);
  });

  test('moves the copy of a guest that the order means, and no other', async () => {
    expect(await departures().take(orderOf('web', { incarnation: 'older' }), 1)).toContain('another copy');
    expect(await departures().take(orderOf('mail'), 1)).toBe('no mail runs here');
    expect(source.told).toEqual([]);
  });

  test('keeps its guest where the destination refuses, and says why', async () => {
    answer = ask => (ask === 'receive' ? { ...yes, refusal: 'no room', address: null } : yes);
    await departures().take(orderOf('web'), 1);
    await soon(() => expect(outcomes).toMatchObject([{ result: 'refused', why: 'host2: no room' }]));
    expect([source.told, source.guests.has('web')]).toEqual([[], true]);
  });

  test('frees the place of a migration that failed; the guest runs on here', async () => {
    source.onMigrate = (_, to) =>
      moving(to, { error: { code: 'AEROSTAT_MIGRATION', message: 'the link broke' } });
    await departures().take(orderOf('web'), 1);
    await soon(() => expect(outcomes).toMatchObject([{ result: 'failed', why: 'the link broke' }]));
    expect(asked).toEqual(['receive web host2', 'release web host2']);
  });

  test('frees no place while it is not known where the guest runs', async () => {
    source.onMigrate = (_, to) =>
      moving(to, { error: { code: 'AEROSTAT_MIGRATION_UNKNOWN', message: 'no word' } });
    const one = departures();
    await one.take(orderOf('web'), 1);
    await soon(() => expect(one.all).toMatchObject([{ status: 'sending', sentBytes: 10 }]));
    expect([outcomes, asked]).toEqual([[], ['receive web host2']]);
    source.guests.delete('web');
    await soon(() => expect(outcomes).toMatchObject([{ result: 'moved' }]));
  });

  test('that was started anew goes on watching what it had begun', async () => {
    const order = orderOf('web');
    await claims.claim(order, 'from', 'host1');
    const played = source.guests.get('web');
    if (played !== undefined) played.migration = moving(ADDRESS);
    const one = departures();
    await one.resume();
    expect(one.movingOf('web')).toEqual({ order: order.id, to: 'host2' });
    source.guests.delete('web');
    await soon(() => expect(outcomes).toMatchObject([{ result: 'moved' }]));
    expect(source.told).toEqual([]);
  });

  test('that was started anew before its machine had begun leaves the guest here', async () => {
    await claims.claim(orderOf('web'), 'from', 'host1');
    await departures().resume();
    await soon(() => expect(outcomes).toMatchObject([{ result: 'failed' }]));
    expect([source.told, asked]).toEqual([[], ['release web host2']]);
  });
});

describe('a destination', () => {
  let places: FakeMachines;
  let started: string[];
  let ended: string[];
  let end: (guest: string) => void;
  /** A machine that is started waits for it. */
  let ready: Promise<void>;

  function arrivals(freeBytes = 2 * GIB): Arrivals {
    const ends = new Map<string, () => void>();
    end = guest => ends.get(guest)?.();
    return new Arrivals({
      host: 'host2',
      machines: places.machines,
      claims,
      startReceiver: async ({ guest }) => {
        started.push(guest);
        await ready;
        return {
          address: `tcp:host2:${guest}`,
          ended: new Promise(resolve => ends.set(guest, () => resolve('it ended'))),
          end: () => void ended.push(guest),
        };
      },
      freeBytes: async () => freeBytes,
      memoryMaxBytes: 8 * GIB,
      startsMax: 2,
      now: () => 5000,
      onChange: () => {},
    });
  }

  beforeEach(() => {
    places = new FakeMachines();
    ready = Promise.resolve();
    started = [];
    ended = [];
  });

  test('keeps memory for a guest before it says where to send it, and no more than it has', async () => {
    const one = arrivals(2 * GIB);
    const orders = ['a', 'b', 'c'].map(guest => orderOf(guest));
    const answers = await Promise.all(orders.map(order => one.receive(order)));
    expect(answers.map(said => 'address' in said)).toEqual([true, true, false]);
    expect(one.all.map(({ guest, bytes }) => [guest, bytes])).toEqual([
      ['a', GIB],
      ['b', GIB],
    ]);
    expect(started).toEqual(['a', 'b']);
  });

  test('starts no more machines at a time than the host has processors for, and the others after them', async () => {
    const one = arrivals(8 * GIB);
    let go = () => {};
    ready = new Promise(resolve => {
      go = resolve;
    });
    const places = Promise.all(['a', 'b', 'c', 'd', 'e'].map(guest => one.receive(orderOf(guest))));
    await soon(() => expect(started).toEqual(['a', 'b']));
    // All of them are promised their memory meanwhile.
    await soon(() => expect(one.all).toHaveLength(5));
    expect(started).toEqual(['a', 'b']);
    go();
    expect((await places).every(place => 'address' in place)).toBe(true);
    expect(started.toSorted()).toEqual(['a', 'b', 'c', 'd', 'e']);
  });

  test('starts one machine for an order that is asked twice, and none for one of before', async () => {
    const one = arrivals();
    const order = orderOf('web');
    const [first, again] = await Promise.all([one.receive(order), one.receive(order)]);
    expect(again).toEqual(first);
    expect(started).toEqual(['web']);
    claims = new Claims(bucket, 'agent after a restart');
    expect(await arrivals().receive(order)).toEqual({ refusal: 'it was carried out before' });
    expect(started).toEqual(['web']);
  });

  test('takes no guest of a name that it has: two domains with one name on two hosts stay two', async () => {
    places.add('web');
    expect(await arrivals().receive(orderOf('web'))).toEqual({ refusal: 'a web is here already' });
    expect(started).toEqual([]);
  });

  test('keeps the memory until the guest runs, or its place ends', async () => {
    const one = arrivals();
    await one.receive(orderOf('a'));
    await one.receive(orderOf('b'));
    one.settle(new Set(['a']));
    expect(one.all.map(({ guest }) => guest)).toEqual(['b']);
    end('b');
    await soon(() => expect(one.all).toEqual([]));
    expect(one.leftOf('a')).toEqual([{ host: 'host1', agoMs: 0 }]);
  });

  test('ends the place of a guest that did not leave', async () => {
    const one = arrivals();
    await one.receive(orderOf('web'));
    await one.release(orderOf('web'));
    expect([ended, one.all]).toEqual([['web'], []]);
  });
});
