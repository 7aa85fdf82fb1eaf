/** Migrations of QEMU's guests in the shape of ours: begun, watched, called back, and refused. */
import { expect, test } from 'vitest';
import type { GuestEvent } from '../../src/control/contract.ts';
import { GuestStateError, UnknownGuestError } from '../../src/control/errors.ts';
import type { MigrationOrder } from '../../src/control/migrations.ts';
import { QemuControl } from '../../src/qemu/qemu-control.ts';
import { FakeMonitor } from '../peers/qemu/fake-monitor.ts';
import { FakeQemu } from '../peers/qemu/fake-qemu.ts';
import { cleanUp, until } from '../peers/qemu/peer.ts';

const TO = 'tcp:127.0.0.1:4444';
const MIB = 2 ** 20;

const finally_ = cleanUp();

const ram = (remaining: number) => ({
  total: 64 * MIB,
  transferred: 64 * MIB - remaining,
  remaining,
  normal: 100,
  duplicate: 7,
  'page-size': 4096,
  mbps: 8,
  'dirty-sync-count': 1,
});

async function world(...migrations: unknown[]) {
  const qemu = new FakeQemu();
  qemu.migrations = migrations;
  const commands: string[] = [];
  const monitor = await FakeMonitor.start({
    respond: (request, from) => {
      commands.push(request.command);
      qemu.answer(request, from);
    },
  });
  finally_(() => monitor.close());
  const control = new QemuControl([{ name: 'vm', qmpPath: monitor.path, reconnectMs: 10 }]);
  finally_(() => control.close());
  const events: GuestEvent[] = [];
  control.subscribe(event => events.push(event));
  const moves = {
    status: async (name: string) => (await control.migration(name)).migration,
    obstacle: async (name: string) => (await control.migration(name)).obstacle,
    start: (name: string, order: MigrationOrder) => control.migrate(name, order),
    cancel: (name: string) => control.cancelMigration(name),
  };
  return { qemu, commands, events, moves };
}

test('a guest is moved, and tells how far it is and how it went', async () => {
  const { qemu, events, moves } = await world();
  expect(await moves.status('vm')).toBeNull();
  expect(await moves.obstacle('vm')).toBeNull();
  qemu.migrations = [{ status: 'active', 'total-time': 5, ram: ram(32 * MIB) }];
  expect(await moves.start('vm', { to: TO, bandwidthBytesPerSecond: MIB })).toMatchObject({
    to: TO,
    state: { status: 'setup' },
  });
  await until(async () => (await moves.status('vm'))?.state.status === 'active');
  expect(await moves.status('vm')).toMatchObject({
    state: { remainingBytes: 32 * MIB, bytesPerSecond: 1_000_000, guestShare: null },
    report: null,
    error: null,
  });
  qemu.migrations = [{ status: 'completed', 'total-time': 90, downtime: 12, ram: ram(0) }];
  await until(async () => (await moves.status('vm'))?.report !== null);
  expect((await moves.status('vm'))?.report).toMatchObject({ totalMs: 90, downtimeMs: 12, freePages: null });
  const told = events.filter(({ type }) => type === 'migration').map(({ detail }) => detail.status);
  expect(told).toEqual(['active', 'done']);
  expect(await moves.obstacle('vm')).toMatch(/not run here any more/);
  await expect(moves.start('vm', { to: TO })).rejects.toBeInstanceOf(GuestStateError);
});

test('a guest that stays says why, and can be sent again', async () => {
  const { qemu, moves, events } = await world();
  const failed = { status: 'failed', 'error-desc': 'no host is there' };
  qemu.migrations = [failed];
  await moves.start('vm', { to: TO });
  await until(async () => (await moves.status('vm'))?.error !== null);
  expect(await moves.status('vm')).toMatchObject({
    state: { status: 'failed' },
    report: null,
    error: { message: expect.stringMatching(/no host is there/) },
  });
  expect(events.at(-1)).toMatchObject({ detail: { status: 'failed' } });
  expect(await moves.obstacle('vm')).toBeNull();
  qemu.migrations = [{ status: 'active', ram: ram(MIB) }];
  expect((await moves.start('vm', { to: TO })).error).toBeNull();
});

test('a guest is called back', async () => {
  const { qemu, commands, moves } = await world();
  await expect(moves.cancel('vm')).rejects.toBeInstanceOf(GuestStateError);
  qemu.migrations = [{ status: 'active', ram: ram(MIB) }];
  await moves.start('vm', { to: TO });
  await expect(moves.start('vm', { to: TO })).rejects.toThrow(/moving already/);
  await until(async () => (await moves.status('vm'))?.state.status === 'active');
  const cancelled = moves.cancel('vm');
  await until(() => commands.includes('migrate_cancel'));
  qemu.migrations = [{ status: 'cancelled' }];
  // Resolves when QEMU has given it up, so that a command that ends then leaves nothing under way.
  expect((await cancelled).migration?.state.status).toBe('cancelled');
  await until(async () => (await moves.status('vm'))?.error !== null);
  expect((await moves.status('vm'))?.state.status).toBe('cancelled');
});

test.each([
  [{ to: 'exec:rm -rf /' }, /no destination/],
  [{ to: 'file:/etc/passwd' }, /take its snapshots with QEMU/],
  [{ to: TO, channel: 'hint' }, /takes no channel/],
  [{ to: TO, compress: true }, /takes no compress/],
])('QEMU is not told %j', async (order, why) => {
  const { commands, moves } = await world();
  await expect(moves.start('vm', order)).rejects.toMatchObject({
    code: 'AEROSTAT_MIGRATION_ORDER',
    message: expect.stringMatching(why),
  });
  expect(commands.filter(command => command.startsWith('migrate'))).toEqual([]);
});

test('a migration that another client began is told of, with no destination, and can be called back', async () => {
  const { qemu, commands, moves } = await world({ status: 'active', 'total-time': 5, ram: ram(32 * MIB) });
  expect(await moves.status('vm')).toMatchObject({
    to: null,
    state: { status: 'active', remainingBytes: 32 * MIB },
    report: null,
    error: null,
  });
  await moves.cancel('vm');
  expect(commands).toContain('migrate_cancel');
  qemu.migrations = [{ status: 'completed', 'total-time': 90, downtime: 12, ram: ram(0) }];
  expect(await moves.status('vm')).toMatchObject({ to: null, report: { totalMs: 90 } });
});

test('a guest that arrived here by a migration runs here', async () => {
  const { moves } = await world({ status: 'completed' });
  expect(await moves.status('vm')).toBeNull();
  expect(await moves.obstacle('vm')).toBeNull();
});

test('an unknown guest is not moved', async () => {
  const { moves } = await world();
  await expect(moves.obstacle('other')).rejects.toBeInstanceOf(UnknownGuestError);
  await expect(moves.start('other', { to: TO })).rejects.toBeInstanceOf(UnknownGuestError);
  await expect(moves.status('other')).rejects.toBeInstanceOf(UnknownGuestError);
  await expect(moves.cancel('other')).rejects.toBeInstanceOf(UnknownGuestError);
});
