/** Orders of migrations that make no sense: refused as such, and not for the state that the machine is in. */
import { expect, test } from 'vitest';
import { problemOf } from '../../src/server/problem.ts';
import type { Vm } from '../../src/vm/vm.ts';
import { VmMigrations } from '../../src/vm/vm-migrations.ts';

const running = { name: 'vm', state: 'running', arrival: () => undefined } as Partial<Vm> as Vm;

test('a free page channel that does not exist is a bad request, and the answer names those that do', async () => {
  const migrations = new VmMigrations(running, {}, () => {});
  const refused = await migrations
    .migrate('vm', { to: 'tcp:host:1', channel: 'smoke' })
    .catch(error => error);
  expect(refused).toMatchObject({
    code: 'AEROSTAT_MIGRATION_ORDER',
    message: expect.stringContaining('hint'),
  });
  // Before, it was 409, which says that the same request may be right later.
  expect(problemOf(refused).status).toBe(400);
  // The machine was not taken for one that moves.
  await expect(migrations.migrate('vm', { to: 'nowhere' })).rejects.toMatchObject({
    code: 'AEROSTAT_TRANSFER_ADDRESS',
  });
});

test('a machine writes files for its own user alone, and only under a name that says where they are', async () => {
  const reachable = new VmMigrations(running, {}, () => {});
  await expect(reachable.migrate('vm', { to: 'file:/tmp/vm.aero' })).rejects.toMatchObject({
    code: 'AEROSTAT_MIGRATION_ORDER',
    message: expect.stringContaining('only for its own user'),
  });
  const own = new VmMigrations(running, { writesFiles: true }, () => {});
  for (const to of ['file:', 'file:vm.aero', 'file:/tmp/a\0b']) {
    await expect(own.migrate('vm', { to }), to).rejects.toThrow('an absolute path');
  }
  await expect(own.migrate('vm', { to: 'file:/tmp/vm.aero', connections: 2 })).rejects.toThrow('one file');
});
