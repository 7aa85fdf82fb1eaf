/**
 * Where a machine goes to: over a network, from which it does not come back, or into a file (`file:PATH`), while it runs
 * on here. What differs between the two is here; when what is sent is the migration's source's.
 */
import { randomBytes } from 'node:crypto';
import { isAbsolute } from 'node:path';
import { MigrationOrderError } from '../control/errors.ts';
import type { MigrationOrder } from '../control/migrations.ts';
import { MigrationCancelled } from '../migration/errors.ts';
import type { SourceOptions } from '../migration/source-shapes.ts';
import { SnapshotCancelled, SnapshotError } from '../snapshot/errors.ts';
import { FileConnector } from '../snapshot/file-connector.ts';
import { encodeHeader } from '../snapshot/header.ts';
import { SnapshotFile } from '../snapshot/snapshot-file.ts';
import { defined } from '../sys/defined.ts';
import { parseTransferAddress } from '../transfer/address.ts';
import { systemClock } from '../transfer/clock.ts';
import { TransferConnector } from '../transfer/connector.ts';
import type { TlsIdentity } from '../transfer/tls.ts';
import type { OutgoingMigration } from './outgoing-migration.ts';
import { StayingMachine } from './staying-machine.ts';
import type { Vm } from './vm.ts';

/** What a machine's process lets its clients do beside moving it. */
export interface MigrationPlace {
  /** What the machine shows to a destination. */
  readonly tls?: TlsIdentity | undefined;
  /** Clients may have it written into a file: they are this process's user, and no others. */
  readonly writesFiles?: boolean;
}

export interface MigrationRoute {
  /** What of a migration's source is the route's. */
  source(outgoing: OutgoingMigration): Pick<SourceOptions, 'id' | 'machine' | 'connector'>;
  /** Whether the guest runs elsewhere when it is through. */
  readonly leaves: boolean;
  /** How long the guest stood still, where it was not until the end. */
  readonly downtimeMs: number | undefined;
  /** Gives it up where the source cannot any more. Returns whether it will end. */
  cancel(): boolean;
  /** What an error of the source means on this route. */
  failure(error: Error): Error;
  /** Nothing is left of what did not get through. */
  close(): void;
}

const FILE = 'file:';
const ID_BYTES = 16;

/**
 * @throws TransferAddressError, MigrationOrderError; SnapshotError when no file can be written there
 */
export async function migrationRouteOf(
  vm: Vm,
  order: MigrationOrder,
  { tls, writesFiles = false }: MigrationPlace,
): Promise<MigrationRoute> {
  if (order.to.startsWith(FILE)) {
    if (writesFiles) return fileRoute(vm, order);
    throw new MigrationOrderError(
      'this machine writes files only for its own user, at a socket; start aerostat vm with --api PATH',
    );
  }
  const address = parseTransferAddress(order.to);
  const { bandwidthBytesPerSecond: bytesPerSecond } = order;
  const limited = bytesPerSecond === undefined ? {} : { bytesPerSecond };
  return {
    source: ({ ram, dirty, sent }) => ({
      id: randomBytes(ID_BYTES),
      machine: vm,
      connector: new TransferConnector({
        ...{ address, ram, dirty, sent, ...limited },
        ...defined({ tls }),
      }),
    }),
    leaves: true,
    downtimeMs: undefined,
    cancel: () => false,
    failure: error => error,
    close: () => {},
  };
}

async function fileRoute(
  vm: Vm,
  { to, connections = 1, bandwidthBytesPerSecond: bytesPerSecond, postcopyAfterRound }: MigrationOrder,
): Promise<MigrationRoute> {
  const path = to.slice(FILE.length);
  if (!isAbsolute(path) || path.includes('\0')) {
    throw new MigrationOrderError(`${to} names no file: write file: and an absolute path`);
  }
  if (postcopyAfterRound !== undefined) {
    throw new MigrationOrderError('a snapshot is all of a machine; leave --postcopy out');
  }
  if (connections !== 1) {
    throw new MigrationOrderError('a snapshot is one file, and takes no more than one connection');
  }
  const id = randomBytes(ID_BYTES);
  const file = await SnapshotFile.create(path, encodeHeader({ name: vm.name, createdMs: Date.now(), id }));
  let machine: StayingMachine | undefined;
  return {
    source({ ram, dirty, sent, source: { hints } }) {
      machine = new StayingMachine(vm, hints?.channel);
      const limited = bytesPerSecond === undefined ? {} : { bytesPerSecond };
      const connector = new FileConnector({ file, ram, dirty, sent, clock: systemClock, ...limited });
      return { id, machine, connector };
    },
    leaves: false,
    get downtimeMs() {
      return machine?.downtimeMs;
    },
    cancel: () => file.abandon(),
    failure: snapshotFailure,
    close: () => void file.abandon(),
  };
}

function snapshotFailure(error: Error): Error {
  const { cause } = error;
  if (error instanceof MigrationCancelled) return new SnapshotCancelled();
  for (const reason of [error, cause]) {
    if (reason instanceof SnapshotError || reason instanceof SnapshotCancelled) return reason;
  }
  return new SnapshotError(cause instanceof Error ? cause.message : error.message, { cause: error });
}
