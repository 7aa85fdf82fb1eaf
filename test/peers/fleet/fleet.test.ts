/**
 * Three agents, a cluster of three servers of NATS, and embedded guests. What follows the first two tests kills and stops
 * leaders, servers and agents; no guest is lost, runs twice, or changes.
 */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test, vi } from 'vitest';
import { readMessage, writeMessage } from '../../../src/fleet/messages.ts';
import { missingPrograms } from '../../../src/peers/programs.ts';
import { orderOf } from '../../fleet/samples.ts';
import { describePeer } from '../../support/peers.ts';
import { NAMES, type Name, RealFleet, USED } from './real-fleet.ts';

/** It takes some minutes on two busy processors: servers of NATS take seconds each time to choose their leaders. */
const isWhole = process.env.AEROSTAT_EXTENT === 'whole';

describePeer('a fleet on NATS', missingPrograms('nats-server'), () => {
  // What a test waits for has bounds of its own, in real-fleet.ts.
  vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });
  let fleet: RealFleet;

  beforeAll(async () => {
    fleet = await RealFleet.start();
  });

  afterAll(() => fleet?.close());

  beforeEach(() => onTestFailed(() => console.error(fleet.log)));

  const otherThan = (...hosts: readonly Name[]): Name => NAMES.find(name => !hosts.includes(name)) as Name;

  const move = async (guest: string, to: Name) => {
    await fleet.isGone(guest, to);
    const said = await fleet.command('move', guest, to);
    expect([said.code, said.err]).toEqual([0, expect.any(String)]);
    expect(await fleet.placesOf(guest)).toEqual([to]);
  };

  /** Begins a move, and waits until its source says that it is under way. */
  async function moving(guest: string, to: Name): Promise<{ source: Name; over: Promise<unknown> }> {
    await fleet.isGone(guest, to);
    await fleet.orders();
    const source = await fleet.placeOf(guest);
    const over = fleet.command('move', guest, to);
    await fleet.until('its departure', async () => (await fleet.status(source)).departures.length);
    return { source, over };
  }

  /** All that was ordered has ended, and leads to where the guest is. */
  const auditAgrees = (guest: string, place: Name) =>
    fleet.until('an audit that agrees', async () => {
      const { orders, guests } = JSON.parse((await fleet.command('audit', '--replay', '--json')).out);
      return !Object.values(orders).includes(null) && guests[guest] === place;
    });

  const given = async () => (await fleet.statuses()).map(status => status?.ordersGiven);

  test('drain empties a host: its guests run elsewhere', async () => {
    const leader = await fleet.orders();
    const drained = otherThan(leader);
    for (const guest of ['g1', 'g2']) await fleet.guest(drained, guest);
    await fleet.until('both guests', async () => (await fleet.status(drained)).guests === 2);
    const said = await fleet.command('drain', drained);
    expect([said.code, said.err]).toEqual([0, expect.any(String)]);
    for (const guest of ['g1', 'g2']) expect(await fleet.placeOf(guest)).not.toBe(drained);
    expect((await fleet.status(drained)).guests).toBe(0);
    expect((await fleet.command('undrain', drained)).code).toBe(0);
  });

  test('what strangers with credentials send is refused, counted and said: of 8 MiB, of a newer version, nonsense', async () => {
    const host = await fleet.leader();
    const counted = async () => (await fleet.status(host)).messagesRefused;
    const before = await counted();
    const large = JSON.stringify({ version: 1, epoch: 1, ask: 'move', more: 'x'.repeat(8 * 1024 * 1024) });
    const newer = JSON.stringify({ version: 2, ask: 'dance' });
    const messages = [
      [large, 'bytes'],
      [newer, 'version'],
      ['nonsense', 'JSON'],
    ] as const;
    for (const [message, why] of messages) {
      const answer = readMessage('hostAnswer', await fleet.bus.ask(`host.${host}`, message, 10_000));
      expect(answer).toMatchObject({ value: { refusal: expect.stringContaining(why) } });
    }
    // The report of a host that there is not, and one that the bucket itself does not take.
    await fleet.bus.buckets.hosts.put('stranger', newer);
    await expect(fleet.bus.buckets.hosts.put('stranger', large)).rejects.toThrow(/exceeds|maximum/);
    await fleet.until('all of them counted', async () => {
      const now = await counted();
      const more = (['too-large', 'newer', 'nonsense'] as const).map(kind => now[kind] - before[kind]);
      return more[0] >= 1 && more[1] >= 2 && more[2] >= 1;
    });
    expect((await fleet.status(host)).hosts.map(seen => seen.host)).toEqual([...NAMES]);
    await fleet.leader();
    await fleet.bus.buckets.hosts.delete('stranger');
  });

  describe.runIf(isWhole)('that is killed and parted', () => {
    beforeEach(() => fleet.restore());

    test('goes on with a drain whose leader was killed with -9 meanwhile, under the next one', async () => {
      const leader = await fleet.orders();
      const drained = otherThan(leader);
      const spare = otherThan(leader, drained);
      // Nothing is to come to the leader that will be killed.
      expect((await fleet.command('drain', leader)).code).toBe(0);
      if ((await fleet.placeOf('g1')) !== drained) await move('g1', drained);
      await fleet.isGone('g1', spare);
      expect((await fleet.command('drain', drained, '--no-wait')).code).toBe(0);
      await fleet.until('a guest on its way', async () => (await fleet.status(drained)).departures.length);
      await fleet.hosts.kill(leader);
      // It is there only after the leader that was told of the drain has died.
      await fleet.guest(drained, 'g3');
      expect(await fleet.leader([drained, spare])).not.toBe(leader);
      const said = await fleet.command('drain', drained);
      expect([said.code, said.err]).toEqual([0, expect.any(String)]);
      for (const guest of ['g1', 'g3']) expect(await fleet.placeOf(guest)).toBe(spare);
    });

    test.each([0, 1, 2])('goes on and moves guests while server %i of NATS is dead', async at => {
      await fleet.servers.kill(at);
      await fleet.orders();
      await move('g1', otherThan(await fleet.placeOf('g1')));
    });

    test('goes on and moves guests while a server of NATS is stopped, and when it is back', async () => {
      const { server } = (await fleet.status('a')).nats;
      const at = Math.max(0, fleet.servers.urls.indexOf(`nats://${server}`));
      fleet.servers.stop(at);
      await fleet.orders();
      await move('g1', otherThan(await fleet.placeOf('g1')));
      fleet.servers.goOn(at);
      await fleet.servers.caughtUp();
      await fleet.orders();
      await move('g1', otherThan(await fleet.placeOf('g1')));
    });

    test('orders nothing while its servers answer late, and goes on when they answer', async () => {
      await fleet.leader();
      const before = await given();
      const servers = [...fleet.servers.urls.keys()];
      for (const at of servers) fleet.servers.stop(at);
      await fleet.until('no leader', async () =>
        (await fleet.statuses()).every(status => status !== null && status.role === 'alone'),
      );
      // Now they answer all that was asked meanwhile.
      for (const at of servers) fleet.servers.goOn(at);
      await fleet.servers.caughtUp();
      await fleet.leader();
      expect(await given()).toEqual(before);
    });

    test('has no leader without a majority of its servers, orders nothing, says so, and goes on with one', async () => {
      const before = await given();
      await Promise.all([fleet.servers.kill(0), fleet.servers.kill(1)]);
      await fleet.until('no leader, and why', async () =>
        (await fleet.statuses()).every(
          status => status !== null && status.role === 'alone' && status.nats.error !== null,
        ),
      );
      fleet.servers.startAll();
      await fleet.servers.caughtUp();
      await fleet.leader();
      expect(await given()).toEqual(before);
    });

    test('carries out no order that came to a host while it was stopped: it was taken back', async () => {
      const leader = await fleet.orders();
      if ((await fleet.placeOf('g2')) === leader) await move('g2', otherThan(leader));
      const source = await fleet.placeOf('g2');
      const to = otherThan(source);
      await fleet.isGone('g2', to);
      const before = (await fleet.status(source)).ordersRefused;
      await fleet.orders();
      fleet.hosts.signal(source, 'SIGSTOP');
      expect((await fleet.command('move', 'g2', to)).code).not.toBe(0);
      fleet.hosts.signal(source, 'SIGCONT');
      await fleet.until('it refuses', async () => (await fleet.status(source)).ordersRefused > before);
      await fleet.leader();
      expect(await fleet.placesOf('g2')).toEqual([source]);
      expect((await fleet.status(source)).departures).toEqual([]);
    });

    test('runs a guest once whose source was stopped in the middle of its move and comes back with its old view', async () => {
      const leader = await fleet.orders();
      if ((await fleet.placeOf('g2')) === leader) await move('g2', otherThan(leader));
      const { source, over } = await moving('g2', leader);
      fleet.hosts.signal(source, 'SIGSTOP');
      await fleet.leader(NAMES.filter(name => name !== source));
      fleet.hosts.signal(source, 'SIGCONT');
      await over;
      await fleet.until('no departure', async () => (await fleet.status(source)).departures.length === 0);
      await fleet.orders();
      await auditAgrees('g2', await fleet.placeOf('g2'));
    });

    test('refuses what a leader orders that was stopped and comes back: it follows the next one', async () => {
      const leader = await fleet.leader();
      const { epoch } = await fleet.status(leader);
      fleet.hosts.signal(leader, 'SIGSTOP');
      const [source, to] = NAMES.filter(host => host !== leader);
      const next = await fleet.leader([source, to]);
      fleet.hosts.signal(leader, 'SIGCONT');
      await fleet.until('it follows', async () => {
        const { role, leader: followed } = await fleet.status(leader);
        return role === 'follower' && followed === next;
      });
      const order = orderOf('g1', { id: randomUUID(), from: source, to });
      const question = { version: 1, epoch, ask: 'move', order } as const;
      const answer = readMessage(
        'hostAnswer',
        await fleet.bus.ask(`host.${source}`, writeMessage('hostQuestion', question), 10_000),
      );
      expect(answer).toMatchObject({ value: { refusal: expect.stringContaining('old leader') } });
    });

    test('is led by the larger part where an agent and a server of NATS are stopped at once, and moves nothing', async () => {
      const leader = await fleet.leader();
      const guests = ['g1', 'g2'];
      const at = await Promise.all(guests.map(guest => fleet.placeOf(guest)));
      fleet.hosts.signal(leader, 'SIGSTOP');
      fleet.servers.stop(1);
      await fleet.leader(NAMES.filter(host => host !== leader));
      fleet.servers.goOn(1);
      fleet.hosts.signal(leader, 'SIGCONT');
      await fleet.servers.caughtUp();
      await fleet.leader();
      expect(await Promise.all(guests.map(guest => fleet.placeOf(guest)))).toEqual(at);
    });

    test('has an agent that was killed with -9 in the middle of a move, and started anew, end that move', async () => {
      const leader = await fleet.orders();
      if ((await fleet.placeOf('g1')) === leader) await move('g1', otherThan(leader));
      const { source, over } = await moving('g1', leader);
      await fleet.hosts.kill(source);
      fleet.hosts.join(source);
      await over;
      await fleet.orders();
      await auditAgrees('g1', await fleet.placeOf('g1'));
    });
  });

  test('the audit stream replays to the state that the fleet is in', async () => {
    if (isWhole) await fleet.restore();
    const said = await fleet.command('audit', '--replay', '--json');
    expect([said.code, said.err]).toEqual([0, expect.any(String)]);
    const state = JSON.parse(said.out);
    expect(state.differences).toEqual([]);
    expect(state.decisions).toMatchObject({ other: 0, withoutInput: 0 });
    expect(state.decisions.same).toBeGreaterThan(0);
    expect(Object.keys(state.guests)).toEqual(expect.arrayContaining(['g1', 'g2']));
    for (const [guest, host] of Object.entries(state.guests))
      expect(await fleet.placesOf(guest)).toEqual([host]);
  });

  test('what the guests wrote is what they read after all their moves', async () => {
    const checked = await Promise.all(
      ['g1', 'g2'].map(async guest => fleet.hosts.verify(await fleet.placeOf(guest), guest)),
    );
    for (const bytes of checked) expect(bytes).toBeGreaterThanOrEqual(USED);
  });
});
