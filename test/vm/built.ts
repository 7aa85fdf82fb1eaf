/**
 * The machine and the migration as they are installed: their threads run what was compiled, so the rest of a test that
 * uses them does as well.
 */
import { pathToFileURL } from 'node:url';
import { build, program } from '../cli/built.ts';

build();

const from = <T>(path: string): Promise<T> => import(new URL(`../dist/${path}`, pathToFileURL(program)).href);

export const { Vm } = await from<typeof import('../../src/vm/vm.ts')>('vm/vm.js');
export const { vmControl } = await from<typeof import('../../src/vm/vm-control.ts')>('vm/vm-control.js');
export const { IncomingVm } = await from<typeof import('../../src/vm/incoming-vm.ts')>('vm/incoming-vm.js');
export const { OutgoingMigration } =
  await from<typeof import('../../src/vm/outgoing-migration.ts')>('vm/outgoing-migration.js');
export const { MigrationSource } =
  await from<typeof import('../../src/migration/source.ts')>('migration/source.js');
export const { MigrationDestination } =
  await from<typeof import('../../src/migration/destination.ts')>('migration/destination.js');
export const { DestinationLink } = await from<typeof import('../../src/migration/destination-link.ts')>(
  'migration/destination-link.js',
);
export const { SourceLink } =
  await from<typeof import('../../src/migration/source-link.ts')>('migration/source-link.js');
export const { PageSender } =
  await from<typeof import('../../src/migration/page-sender.ts')>('migration/page-sender.js');
export const { TokenBucket } =
  await from<typeof import('../../src/migration/token-bucket.ts')>('migration/token-bucket.js');
export const { Convergence } =
  await from<typeof import('../../src/migration/convergence.ts')>('migration/convergence.js');
export const { Guest } = await from<typeof import('../../src/guest/guest.ts')>('guest/guest.js');
export const { VmThreads } = await from<typeof import('../../src/vm/vm-threads.ts')>('vm/vm-threads.js');
export const { createSharedMemory } = await from<typeof import('../../src/vhost-user/shared-memory.ts')>(
  'vhost-user/shared-memory.js',
);
export const { OpenSnapshot, restoreSnapshot } =
  await from<typeof import('../../src/snapshot/restore.ts')>('snapshot/restore.js');
