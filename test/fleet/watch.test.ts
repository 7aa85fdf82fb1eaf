/** A fleet as the page sees it: what is stored of it, judged as placement judges it, and old when it is old. */
import { expect, test } from 'vitest';
import { type AuditEvent, type Report, VERSION, writeMessage } from '../../src/fleet/messages.ts';
import { FleetWatch } from '../../src/fleet/watch.ts';
import { FakeNats } from './fake-bus.ts';
import { GIB, orderOf, reportOf } from './samples.ts';

/** A fleet whose clock and reports are the test's. */
class WatchedFleet {
  readonly nats = new FakeNats();
  nowMs = 1_000_000;
  readonly watch = new FleetWatch({
    fleet: 'default',
    openBus: async () => this.nats.bus(),
    placement: { staleMs: 5000 },
    now: () => this.nowMs,
    // What can go on at once does so before the time is over.
    sleep: async ms => {
      await new Promise(setImmediate);
      this.nowMs += ms;
    },
  });

  report(host: string, more: Partial<Report> = {}, names: readonly string[] = []): Promise<number> {
    const report = { ...reportOf(host, { names }), ...more };
    return this.nats.buckets.hosts.put(host, writeMessage('report', report));
  }

  lead(host: string): Promise<number> {
    const record = { version: VERSION, host, incarnation: `agent-${host}`, epoch: 7 } as const;
    return this.nats.buckets.leader.put('leader', writeMessage('leader', record));
  }

  drain(...draining: string[]): Promise<number> {
    const wishes = { version: VERSION, draining, moves: [], ended: [] } as const;
    return this.nats.buckets.wishes.put(
      'wishes',
      writeMessage('wishes', { ...wishes, moves: [], ended: [] }),
    );
  }

  record(event: AuditEvent, id: string): Promise<void> {
    return this.nats.bus().record(writeMessage('audit', event), id);
  }

  /** After what was asked before is old enough to be asked again. */
  picture(host?: string) {
    this.nowMs += 1000;
    return this.watch.picture(host === undefined ? {} : { host });
  }
}

const statesOf = (picture: Awaited<ReturnType<FleetWatch['picture']>>) =>
  Object.fromEntries(picture.hosts.map(({ name, state }) => [name, state]));

test('hosts are as placement judges them, and a report that was only found stored is of unknown age', async () => {
  const fleet = new WatchedFleet();
  await fleet.lead('host1');
  await fleet.drain('host3', 'host4');
  const all = ['host1', 'host2', 'host3', 'host4', 'host5'];
  const big = reportOf('host2', { names: ['big'] }).guests.map(guest => ({
    ...guest,
    ...{ sizeBytes: 16 * GIB, needBytes: 9 * GIB, residentBytes: 8 * GIB },
  }));
  for (const host of all) await fleet.report(host);
  expect(new Set(Object.values(statesOf(await fleet.picture())))).toEqual(new Set(['unseen']));
  await fleet.report('host1', {}, ['web']);
  await fleet.report('host2', { guests: big });
  await fleet.report('host3', {}, ['db']);
  await fleet.report('host4');
  await fleet.report('host5');
  const picture = await fleet.picture();
  expect(statesOf(picture)).toEqual({
    host1: 'steady',
    host2: 'short',
    host3: 'draining',
    host4: 'empty',
    host5: 'steady',
  });
  expect(picture).toMatchObject({ state: 'known', leader: 'host1', epoch: 7, trouble: null });
  expect(picture.hosts[0]).toMatchObject({ leads: true, guestCount: 1, residentBytes: GIB / 2 });
  expect(picture.hosts[1]).toMatchObject({ leads: false, needBytes: 9 * GIB, shortBytes: GIB });
  fleet.nowMs += 6000;
  for (const host of all.slice(0, 4)) await fleet.report(host);
  const later = await fleet.picture();
  expect(later.hosts[4]).toMatchObject({ name: 'host5', state: 'silent' });
  expect(later.hosts[4].ageMs).toBeGreaterThan(6000);
});

test('a guest on its way is told with the reason of its order, and decisions newest first', async () => {
  const fleet = new WatchedFleet();
  const order = orderOf('web');
  const claim = { version: VERSION, order, host: 'host1', by: 'agent-host1', result: 'begun' } as const;
  await fleet.nats.buckets.orders.put(`${order.id}.from`, writeMessage('claim', { ...claim, why: null }));
  await fleet.picture();
  const departure = { order: order.id, guest: 'web', to: 'host2', status: 'copying' };
  await fleet.report('host1', {
    departures: [
      { ...departure, sentBytes: 5, remainingBytes: 7 },
      { ...departure, order: 'lost', guest: 'db', sentBytes: null, remainingBytes: null },
    ],
  });
  await fleet.record({ version: VERSION, epoch: 1, event: 'leads', host: 'host1' }, 'a');
  const decision = { version: VERSION, epoch: 1, event: 'decision', orders: [], input: null } as const;
  await fleet.record({ ...decision, orders: [], reasons: ['Guests are moved.'] }, 'b');
  const { moves, events } = await fleet.picture();
  expect(moves).toEqual([
    expect.objectContaining({ guest: 'web', from: 'host1', to: 'host2', sentBytes: 5, remainingBytes: 7 }),
    expect.objectContaining({ guest: 'db', why: null, sentBytes: null }),
  ]);
  expect(moves[0].why).toMatch(/^web moves from host1 to host2, as host1 is drained/);
  expect(events.map(({ words }) => words)).toEqual([
    'decided: 0 orders. Guests are moved.',
    'host1 leads (epoch 1)',
  ]);
  await fleet.record({ version: VERSION, epoch: 2, event: 'leads', host: 'host2' }, 'c');
  expect((await fleet.picture()).events.map(({ sequence }) => sequence)).toEqual([3, 2, 1]);
});

test('a fleet that does not answer is shown as it was, and as old', async () => {
  const fleet = new WatchedFleet();
  await fleet.picture();
  await fleet.report('host1', {}, ['web']);
  expect((await fleet.picture()).state).toBe('known');
  const becomes = async (state: string) => {
    for (let looks = 0; looks < 100; looks++) {
      const picture = await fleet.picture();
      if (picture.state === state) return picture;
    }
    throw new Error(`it never became ${state}`);
  };
  fleet.nats.buckets.leader.silent = true;
  const silent = await becomes('silent');
  expect(silent.trouble).toMatch(/answer in time/);
  expect(silent.seenAgoMs).toBeGreaterThan(1000);
  expect(silent.hosts.map(({ name }) => name)).toEqual(['host1']);
  fleet.nats.buckets.leader.silent = false;
  expect((await becomes('known')).trouble).toBeNull();
});

test('of more guests than a page can have every second, those of the host that is asked for are told', async () => {
  const fleet = new WatchedFleet();
  await fleet.picture();
  const names = (host: string) => Array.from({ length: 300 }, (_, at) => `${host}-guest${at}`);
  for (const host of ['host1', 'host2']) await fleet.report(host, {}, names(host));
  const told = (picture: Awaited<ReturnType<FleetWatch['picture']>>) =>
    picture.hosts.map(({ guests }) => guests?.length ?? null);
  expect(told(await fleet.picture())).toEqual([null, null]);
  expect(told(await fleet.picture('host2'))).toEqual([null, 300]);
});
