/** Whole agents in this process on a bus that is played: strangers' messages, names that are taken, a guest that moves. */
import { afterEach, describe, expect, test } from 'vitest';
import { Agent } from '../../src/fleet/agent.ts';
import type { AgentOptions } from '../../src/fleet/agent-options.ts';
import { Attempts } from '../../src/fleet/attempts.ts';
import { AuditReplay } from '../../src/fleet/audit.ts';
import { FleetClient } from '../../src/fleet/client.ts';
import { FleetUnreachableError } from '../../src/fleet/errors.ts';
import { Faults } from '../../src/fleet/faults.ts';
import { readMessage, writeMessage } from '../../src/fleet/messages.ts';
import { monotonicMs } from '../../src/sys/poll.ts';
import { FakeNats } from './fake-bus.ts';
import { FakeMachines, moved } from './fake-machines.ts';
import { GIB, orderOf, reportOf } from './samples.ts';
import { soon } from './soon.ts';

const PERIOD_MS = 40;
const sleep = (ms: number) => new Promise<void>(resolve => setTimeout(resolve, ms));

const agents: Agent[] = [];
const said: string[] = [];

/** A host whose guests go to the host that they are sent to. */
function join(
  nats: FakeNats,
  host: string,
  world: Map<string, FakeMachines>,
  more: Partial<AgentOptions> = {},
): Agent {
  const machines = new FakeMachines();
  world.set(host, machines);
  machines.onMigrate = (guest, to) => {
    machines.guests.delete(guest);
    world.get(to.replace('tcp:', ''))?.add(guest, `${to}-2`);
    return moved(to);
  };
  const agent = new Agent({
    ...{ fleet: 'test', host, periodMs: PERIOD_MS, memoryBytes: 8 * GIB, reserveBytes: 0 },
    linkBytesPerSecond: 1e9,
    placement: { settleMs: 0, patienceMs: 0, staleMs: 60_000, pickUpMs: 60_000 },
    staleMs: 60_000,
    machines: machines.machines,
    startReceiver: async () => ({ address: `tcp:${host}`, ended: new Promise(() => {}), end: () => {} }),
    openBus: async () => nats.bus(),
    now: monotonicMs,
    wallClock: Date.now,
    sleep,
    log: (_, message) => said.push(`${host}: ${message}`),
    ...more,
  });
  agents.push(agent);
  agent.start();
  return agent;
}

afterEach(async () => {
  await Promise.all(agents.splice(0).map(agent => agent.close()));
  said.length = 0;
});

describe('hosts of a fleet', () => {
  test('drain one of them: its guest runs elsewhere, once, and the audit replays to that', async () => {
    const nats = new FakeNats();
    const world = new Map<string, FakeMachines>();
    // An hour off, which no decision goes by.
    const [one, other] = [
      join(nats, 'host1', world),
      join(nats, 'host2', world, { wallClock: () => Date.now() - 3_600_000 }),
    ];
    world.get('host1')?.add('web');
    const client = await FleetClient.over(nats.bus(), monotonicMs, sleep);
    await soon(() => expect(client.hosts.map(({ report }) => report.guests.length)).toEqual([1, 0]));
    await client.ask({ ask: 'drain', host: 'host1' });
    await soon(() => expect(client.hosts.map(({ report }) => report.guests.length)).toEqual([0, 1]));
    expect(world.get('host1')?.told).toEqual(['web tcp:host2']);
    await soon(() => {
      const replay = new AuditReplay();
      for (const recorded of nats.recorded) replay.take(recorded);
      expect(replay.state).toMatchObject({
        draining: ['host1'],
        decisions: { other: 0, withoutInput: 0 },
        refused: 0,
      });
      expect([...replay.state.guests]).toEqual([['web', 'host2']]);
      expect([...replay.state.orders.values()]).toEqual(['moved']);
    });
    expect([one.status().ordersTaken, other.status().ordersTaken]).toEqual([1, 1]);
    await client.close();
  });

  test('wait for a guest that has left one and is not reported by the other yet', async () => {
    const nats = new FakeNats();
    const world = new Map<string, FakeMachines>();
    for (const host of ['host1', 'host2']) join(nats, host, world);
    const source = world.get('host1') as FakeMachines;
    source.add('web');
    source.onMigrate = (guest, to) => {
      source.guests.delete(guest);
      void sleep(5 * PERIOD_MS).then(() => world.get('host2')?.add(guest, 'host2-2'));
      return moved(to);
    };
    const client = await FleetClient.over(nats.bus(), monotonicMs, sleep);
    await soon(() => expect(client.hosts.map(({ report }) => report.guests.length)).toEqual([1, 0]));
    const { id } = await client.ask({ ask: 'move', guest: 'web', from: 'host1', to: 'host2' });
    await soon(async () => expect(await client.endOf(id)).toEqual({ id, result: 'moved', why: null }));
    await client.close();
  });

  test('refuse what strangers send, count it, and go on', async () => {
    const nats = new FakeNats();
    const agent = join(nats, 'host1', new Map());
    await soon(() => expect(agent.status().role).toBe('leader'));
    const order = { version: 1, epoch: 1, ask: 'move', order: orderOf('web') };
    const messages = [
      '{"version":1}',
      JSON.stringify({ ...order, version: 2 }),
      JSON.stringify({ ...order, more: 'x'.repeat(8 * 1024 * 1024) }),
    ];
    for (const message of messages) {
      const answer = readMessage('hostAnswer', await nats.ask('host.host1', message));
      expect(answer).toMatchObject({ value: { refusal: expect.any(String), address: null } });
    }
    await expect(nats.ask('leader', messages[0])).rejects.toThrow('no agent listens');
    expect(agent.status().messagesRefused).toEqual({ nonsense: 2, newer: 1, 'too-large': 1 });
    expect(said.join('\n')).toContain('was refused');
    await soon(() => expect(agent.status().role).toBe('leader'));
  });

  test('refuse an order of an old leader, and one that goes by a report that they do not know', async () => {
    const nats = new FakeNats();
    const world = new Map<string, FakeMachines>();
    const agent = join(nats, 'host1', world);
    world.get('host1')?.add('web');
    await soon(() => expect(agent.status().role).toBe('leader'));
    const { epoch } = agent.status();
    const ask = async (of: number) => {
      const question = {
        version: 1,
        epoch: of,
        ask: 'move',
        order: orderOf('web', { fromRevision: 9e9 }),
      } as const;
      return readMessage('hostAnswer', await nats.ask('host.host1', writeMessage('hostQuestion', question)));
    };
    expect(await ask(epoch - 1)).toMatchObject({ value: { refusal: expect.stringContaining('old leader') } });
    expect(await ask(epoch)).toMatchObject({ value: { refusal: expect.stringContaining('does not know') } });
    expect(agent.status().ordersRefused).toBe(2);
    expect(world.get('host1')?.told).toEqual([]);
  });

  test('give way to an agent that has their name already', async () => {
    const nats = new FakeNats();
    join(nats, 'host1', new Map());
    await soon(async () => expect(await nats.buckets.hosts.get('host1')).not.toBeNull());
    const second = join(nats, 'host1', new Map());
    await expect(second.failed).rejects.toMatchObject({ code: 'AEROSTAT_FLEET_NAME' });
  });

  test('write over what a stranger put under their name', async () => {
    const nats = new FakeNats();
    const agent = join(nats, 'host1', new Map());
    await soon(() => expect(agent.status().role).toBe('leader'));
    await nats.buckets.hosts.put('host1', 'nonsense');
    await soon(async () => {
      const entry = await nats.buckets.hosts.get('host1');
      expect(entry !== null && 'value' in readMessage('report', entry.bytes)).toBe(true);
    });
  });

  test('order nothing while the store is silent, say why, and go on when it answers', async () => {
    const nats = new FakeNats();
    const agent = join(nats, 'host1', new Map());
    await soon(() => expect(agent.status().role).toBe('leader'));
    for (const bucket of Object.values(nats.buckets)) bucket.silent = true;
    await soon(() => {
      expect(agent.status().role).toBe('alone');
      expect(agent.status().nats.error).toContain('does not answer');
    });
    for (const bucket of Object.values(nats.buckets)) bucket.silent = false;
    await soon(() => {
      expect(agent.status().role).toBe('leader');
      expect(agent.status().nats.error).toBeNull();
    });
  });

  test('say why NATS does not let them in, and join when it does', async () => {
    const nats = new FakeNats();
    let isLetIn = false;
    const agent = join(nats, 'host1', new Map(), {
      openBus: async () => {
        if (!isLetIn) throw new FleetUnreachableError('no server lets this host in');
        return nats.bus();
      },
    });
    await soon(() =>
      expect(agent.status()).toMatchObject({
        role: 'alone',
        nats: { state: 'connecting', error: 'no server lets this host in' },
      }),
    );
    isLetIn = true;
    await soon(() => expect(agent.status()).toMatchObject({ role: 'leader', nats: { error: null } }));
    expect(said.filter(line => line.includes('lets this host in'))).toHaveLength(1);
  });

  test('do not join where their credentials let them hear nothing, and name the subject', async () => {
    const nats = new FakeNats();
    nats.denied = 'the credentials do not allow to subscribe to aerostat.test.host.host1';
    const agent = join(nats, 'host1', new Map());
    await soon(() => expect(agent.status().nats.error).toContain('aerostat.test.host.host1'));
    expect([agent.status().role, await nats.buckets.hosts.get('host1')]).toEqual(['alone', null]);
    nats.denied = null;
    await soon(() => expect(agent.status()).toMatchObject({ role: 'leader', nats: { error: null } }));
  });

  test('look around until they are answered where the store is silent when the connection is back, and all is well then', async () => {
    const nats = new FakeNats();
    const agent = join(nats, 'host1', new Map());
    await soon(() => expect(agent.status().role).toBe('leader'));
    let looks = 0;
    const { all } = nats.buckets.hosts;
    nats.buckets.hosts.all = async () => {
      looks++;
      if (looks < 4)
        throw new FleetUnreachableError('JetStream and all keys: it has no leader of its own now');
      return all.call(nats.buckets.hosts);
    };
    nats.become('disconnected');
    nats.become('connected');
    await soon(() => expect(agent.status().nats.error).toContain('has no leader of its own'));
    await soon(() => expect(agent.status().nats.error).toBeNull());
    expect(looks).toBe(4);
  });

  test('ask a store that is silent less and less often, and at once when the connection is back', async () => {
    const nats = new FakeNats();
    let nowMs = 1_000_000;
    const sleeping: (() => void)[] = [];
    const attempts = new Attempts({
      faults: new Faults(() => {}),
      minMs: 250,
      maxMs: 4000,
      now: () => nowMs,
      sleep: () => new Promise(resolve => sleeping.push(resolve)),
    });
    nats.buckets.leader.silent = true;
    let asked = 0;
    const look = () =>
      attempts.once('lead', async () => {
        asked++;
        await nats.buckets.leader.get('leader');
      });
    for (const endMs = nowMs + 20_000; nowMs < endMs; nowMs += 50) await look();
    // Every 50 ms it would be 400 questions; never resting, a hundred.
    expect(asked).toBeGreaterThan(4);
    expect(asked).toBeLessThan(20);
    const before = asked;
    await look();
    attempts.wake();
    await look();
    expect(asked).toBe(before + 1);
    nats.buckets.leader.silent = false;
    attempts.wake();
    for (let looks = 0; looks < 3; looks++) await look();
    expect(asked).toBe(before + 4);
  });

  test('are told apart where two have a guest of one name: neither is moved', async () => {
    const nats = new FakeNats();
    const world = new Map<string, FakeMachines>();
    const hosts = ['host1', 'host2', 'host3'].map(host => join(nats, host, world));
    world.get('host1')?.add('web', 'one');
    world.get('host2')?.add('web', 'other');
    const client = await FleetClient.over(nats.bus(), monotonicMs, sleep);
    await soon(() => expect(client.hosts.map(({ report }) => report.guests.length)).toEqual([1, 1, 0]));
    await expect(client.ask({ ask: 'move', guest: 'web', from: null, to: 'host3' })).rejects.toThrow(
      'host1 and host2 report a guest web each',
    );
    await client.ask({ ask: 'drain', host: 'host1' });
    await soon(async () =>
      expect((await client.ask({ ask: 'plan' })).reasons.join()).toContain('more than one host'),
    );
    expect(hosts.map(agent => agent.status().ordersGiven)).toEqual([0, 0, 0]);
    await client.close();
  });

  test('are not moved to on the word of a report that was only found', async () => {
    const nats = new FakeNats();
    await nats.buckets.hosts.put('host2', JSON.stringify(reportOf('host2')));
    const world = new Map<string, FakeMachines>();
    const agent = join(nats, 'host1', world);
    world.get('host1')?.add('web');
    const client = await FleetClient.over(nats.bus(), monotonicMs, sleep);
    await soon(() => expect(agent.status().guests).toBe(1));
    const { reasons, orders } = await client.ask({ ask: 'plan' });
    await client.ask({ ask: 'drain', host: 'host1' });
    expect(orders).toEqual([]);
    expect(reasons.join()).toMatch(/host2 has not reported|silent/);
    expect(agent.status().ordersGiven).toBe(0);
    await client.close();
  });
});
