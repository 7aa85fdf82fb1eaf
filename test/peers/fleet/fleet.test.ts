/**
 * A fleet as it is: three agents, a cluster of three servers of NATS with three copies, and embedded guests, on one
 * machine. Leaders, servers and agents are killed and stopped under it; no guest is lost, runs twice, or changes.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, onTestFailed, test } from 'vitest';
import { busTo } from '../../../src/cli/fleet-options.ts';
import type { Bus } from '../../../src/fleet/bus.ts';
import { readMessage, writeMessage } from '../../../src/fleet/messages.ts';
import type { AgentStatus } from '../../../src/fleet/status.ts';
import { missingPrograms } from '../../../src/peers/programs.ts';
import { build } from '../../cli/built.ts';
import { run } from '../../cli/terminal.ts';
import { orderOf } from '../../fleet/samples.ts';
import { describePeer } from '../../support/peers.ts';
import { Hosts } from './hosts.ts';
import { NatsServers } from './nats-servers.ts';

const MIB = 1024 ** 2;
const USED = 24 * MIB;
const SETTINGS = ['period = "500ms"', 'replicas = 3', 'settle = "2s"', 'cool-down = "0"'];
const NAMES = ['a', 'b', 'c'] as const;
type Name = (typeof NAMES)[number];

/** It takes a minute and a half on two busy processors: servers of NATS take seconds each to choose their leaders. */
const isWhole = process.env.AEROSTAT_EXTENT === 'whole';

describePeer('a fleet on NATS', missingPrograms('nats-server'), () => {
  if (!isWhole) {
    test.skip('is killed and parted (AEROSTAT_EXTENT=whole runs it)', () => {});
    return;
  }

  let servers: NatsServers;
  let bus: Bus;
  const hosts = new Hosts();

  const statuses = (): Promise<(AgentStatus | null)[]> => Promise.all(NAMES.map(host => hosts.status(host)));

  /** Waits until the agents that answer are so; a test waits for nothing else. */
  async function until<Found>(
    what: string,
    look: () => Promise<Found | null | undefined | false>,
  ): Promise<Found> {
    const deadline = Date.now() + 60_000;
    for (;;) {
      const found = await look().catch(() => undefined);
      if (found) return found;
      if (Date.now() > deadline) {
        throw new Error(`not seen: ${what}\n${JSON.stringify(await statuses(), null, 1)}\n${hosts.log}`);
      }
      await delay(50);
    }
  }

  /** One of `among` leads, and each of them says so. */
  const leaderOf = (among: readonly Name[] = NAMES): Promise<Name> =>
    until('a leader', async () => {
      const found = await Promise.all(among.map(host => hosts.status(host)));
      const leaders = found.filter(status => status?.role === 'leader');
      const [leader] = leaders;
      const agreed = found.every(status => status?.leader === leader?.host && status?.nats.error === null);
      return leaders.length === 1 && agreed ? (leader?.host as Name) : null;
    });

  /** Where the guest runs, by the machines themselves; more than one host would be a fault. */
  async function placesOf(guest: string): Promise<Name[]> {
    const found = await Promise.all(
      NAMES.map(async host => {
        const known = await hosts
          .control(host, guest)
          .guests()
          .catch(() => []);
        return known.some(({ connected }) => connected) ? [host] : [];
      }),
    );
    return found.flat();
  }

  const fleet = async (...words: string[]) => {
    const said = await run(['fleet', ...words, '--config', hosts.config]);
    return said;
  };

  beforeAll(async () => {
    build();
    servers = await NatsServers.start(hosts.directory, 3);
    hosts.configure(servers.urls, SETTINGS);
    for (const host of NAMES) hosts.join(host);
    await leaderOf();
    const place = {
      ...{ servers: servers.urls, fleet: 'default', credentials: {}, periodMs: 500, replicas: 3, text: {} },
    };
    bus = await busTo(place, 'test', false);
  }, 120_000);

  afterAll(async () => {
    await bus?.close();
    await hosts.close();
    await servers?.close();
  });

  let drained: Name;
  let spare: Name;

  test('drain empties a host; the leader killed with -9 meanwhile is followed, and the drain goes on', async () => {
    onTestFailed(() => console.error(hosts.log));
    const leader = await leaderOf();
    [drained, spare] = NAMES.filter(host => host !== leader) as [Name, Name];
    await hosts.guest(drained, 'g1', USED, ['--memory', '64M']);
    await until('the guest', async () => (await hosts.status(drained))?.guests === 1);
    // Nothing is to come to the leader that will be killed.
    expect((await fleet('drain', leader)).code).toBe(0);
    expect((await fleet('drain', drained, '--no-wait')).code).toBe(0);
    await until('a guest on its way', async () => (await hosts.status(drained))?.departures.length);
    await hosts.kill(leader);
    // It is there only after the leader that was told of the drain has died.
    await hosts.guest(drained, 'g2', USED, ['--memory', '64M']);
    const next = await leaderOf([drained, spare]);
    expect(next).not.toBe(leader);
    const said = await fleet('drain', drained);
    expect([said.code, said.err]).toEqual([0, expect.any(String)]);
    hosts.join(leader);
    await leaderOf();
    for (const guest of ['g1', 'g2']) {
      await until(`${guest} in one place`, async () => (await placesOf(guest)).length === 1);
      expect(await placesOf(guest)).not.toEqual([drained]);
    }
    for (const host of [drained, leader]) expect((await fleet('undrain', host)).code).toBe(0);
  });

  test('each server of NATS is killed in turn: the fleet hears of it, and moves guests all the same', async () => {
    onTestFailed(() => console.error(hosts.log));
    for (let at = 0; at < servers.count; at++) {
      await servers.kill(at);
      await leaderOf();
      if (at < servers.count - 1) {
        servers.startOne(at);
        await servers.healthy();
        // Its streams have caught up: the next one that dies leaves two of three.
        await until('JetStream for all', async () =>
          (await statuses()).every(status => status !== null && status.nats.error === null),
        );
        await leaderOf();
      }
    }
    const [from] = await placesOf('g1');
    const to = NAMES.find(host => host !== from) as Name;
    const said = await fleet('move', 'g1', to);
    expect([said.code, said.err]).toEqual([0, expect.any(String)]);
    expect(await placesOf('g1')).toEqual([to]);
    servers.startOne(servers.count - 1);
    await servers.healthy();
  });

  test('without a majority of its servers nothing leads and nothing is ordered, and it says so; with one it goes on', async () => {
    onTestFailed(() => console.error(hosts.log));
    await Promise.all([servers.kill(0), servers.kill(1)]);
    await until('no leader, and why', async () =>
      (await statuses()).every(
        status => status !== null && status.role === 'alone' && status.nats.error !== null,
      ),
    );
    const given = (await statuses()).map(status => status?.ordersGiven);
    servers.startOne(0);
    servers.startOne(1);
    await servers.healthy();
    await leaderOf();
    expect((await statuses()).map(status => status?.ordersGiven)).toEqual(given);
  });

  test('a source that was stopped carries out no order that came meanwhile: it was taken back', async () => {
    onTestFailed(() => console.error(hosts.log));
    const leader = await leaderOf();
    const [from] = await placesOf('g2');
    const guest = from === leader ? await strayFrom(leader) : 'g2';
    const [source] = await placesOf(guest);
    const to = NAMES.find(host => host !== source) as Name;
    const before = (await hosts.status(source))?.ordersRefused ?? 0;
    // A leader that has just begun orders nothing.
    await until('a leader that orders', async () => !(await fleet('plan')).out.includes('has just begun'));
    hosts.signal(source, 'SIGSTOP');
    const said = await fleet('move', guest, to);
    expect(said.code).not.toBe(0);
    hosts.signal(source, 'SIGCONT');
    await until(
      'the old order refused',
      async () => ((await hosts.status(source))?.ordersRefused ?? 0) > before,
    );
    await leaderOf();
    expect(await placesOf(guest)).toEqual([source]);
    expect((await hosts.status(source))?.departures).toEqual([]);
  });

  /** A guest that is not at `host`: one is moved away from it, if there is none. */
  async function strayFrom(host: Name): Promise<string> {
    for (const guest of ['g1', 'g2']) if ((await placesOf(guest))[0] !== host) return guest;
    const to = NAMES.find(other => other !== host) as Name;
    expect((await fleet('move', 'g1', to)).code).toBe(0);
    return 'g1';
  }

  test('a leader that was stopped and comes back leads no more, and orders under its old epoch are refused', async () => {
    onTestFailed(() => console.error(hosts.log));
    const leader = await leaderOf();
    const epoch = (await hosts.status(leader))?.epoch as number;
    hosts.signal(leader, 'SIGSTOP');
    const others = NAMES.filter(host => host !== leader);
    const next = await leaderOf(others);
    hosts.signal(leader, 'SIGCONT');
    await until('it follows', async () => (await hosts.status(leader))?.leader === next);
    expect((await hosts.status(leader))?.role).toBe('follower');
    const [source, to] = others;
    const order = orderOf('g1', { id: randomUUID(), from: source, to });
    const question = { version: 1, epoch, ask: 'move', order } as const;
    const answer = readMessage(
      'hostAnswer',
      await bus.ask(`host.${source}`, writeMessage('hostQuestion', question), 5000),
    );
    expect(answer).toMatchObject({ value: { refusal: expect.stringContaining('old leader') } });
  });

  test('the audit stream replays to the state that the fleet is in', async () => {
    const said = await fleet('audit', '--replay', '--json');
    expect(said.code).toBe(0);
    const state = JSON.parse(said.out);
    expect(state.differences).toEqual([]);
    expect(state.decisions).toMatchObject({ other: 0, withoutInput: 0 });
    expect(state.decisions.same).toBeGreaterThan(3);
    for (const [guest, host] of Object.entries(state.guests)) expect(await placesOf(guest)).toEqual([host]);
    expect(Object.keys(state.guests).sort()).toEqual(['g1', 'g2']);
  });

  test('what the guests wrote is what they read after all their moves', async () => {
    const checked = await Promise.all(
      ['g1', 'g2'].map(async guest => hosts.verify((await placesOf(guest))[0], guest)),
    );
    for (const bytes of checked) expect(bytes).toBeGreaterThanOrEqual(USED);
  });
});
