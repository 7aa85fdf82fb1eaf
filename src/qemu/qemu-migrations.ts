/**
 * Migrations of QEMU's guests, in the shape of ours: QEMU moves its guest itself, over a connection of its own, and is
 * asked how far it is. A migration that another client of the monitor began is told of as well.
 */

import type { GuestEvent } from '../control/contract.ts';
import { GuestStateError, MigrationOrderError } from '../control/errors.ts';
import type {
  MigrationAnswer,
  MigrationOrder,
  MigrationReport,
  MigrationState,
  MigrationStatus,
} from '../control/migrations.ts';
import type { GuestHandlers, MigrationOperation } from '../control/operations.ts';
import type {
  QemuMigrationOptions,
  QemuMigrationProgress,
  QemuMigrationRecord,
  QemuMigrationSummary,
} from '../peers/qemu/migration.ts';
import { defined } from '../sys/defined.ts';
import { GuestMoves } from './guest-moves.ts';

/** What migrations need of the guests behind monitors. */
interface QemuMover {
  /** @throws UnknownGuestError for a name that no guest has; so do the others */
  expect(name: string): void;
  /** Begins and watches one. @throws QemuMigrationError when the guest stays */
  moveAway(name: string, options: QemuMigrationOptions): Promise<QemuMigrationSummary>;
  /** The newest that QEMU knows of, also one that another client began. */
  lastMove(name: string): Promise<QemuMigrationRecord | null>;
  cancelMove(name: string): Promise<void>;
  emit(event: GuestEvent): void;
}

/** QEMU would also run programs (`exec:`) and write files; a client of the API may only steer guests. */
const REMOTE_DESTINATION = /^tcp:/;

/** What QEMU does in its own way, or not at all. */
const OURS_ALONE = [
  'roundsMax',
  'autoConverge',
  'channel',
  'compress',
  'postcopyAfterRound',
  'recover',
  'persist',
] as const;

export class QemuMigrations implements GuestHandlers<MigrationOperation> {
  readonly #mover: QemuMover;
  readonly #anyDestination: boolean;
  readonly #moves: GuestMoves;

  /** `anyDestination`: also to what only the user of this machine may name (`unix:`, `exec:`, `fd:`). */
  constructor(mover: QemuMover, anyDestination: boolean) {
    this.#mover = mover;
    this.#anyDestination = anyDestination;
    this.#moves = new GuestMoves(event => mover.emit(event));
  }

  async migration(name: string): Promise<MigrationAnswer> {
    const own = this.#moves.of(name);
    const migration = own ?? foreignMove(await this.#mover.lastMove(name));
    return { migration, obstacle: obstacleOf(name, own), dirtyBytesPerSecond: null };
  }

  async migrate(name: string, order: MigrationOrder): Promise<MigrationStatus> {
    this.#mover.expect(name);
    const obstacle = obstacleOf(name, this.#moves.of(name));
    if (obstacle !== null) throw new GuestStateError(obstacle);
    if (this.#moves.isUnderWay(name)) throw new GuestStateError(`${name} is moving already`);
    const { to, bandwidthBytesPerSecond, downtimeMsMax, connections } = order;
    if (to.startsWith('file:')) {
      throw new MigrationOrderError(
        `${name} is QEMU's, which would stop it; take its snapshots with QEMU (snapshot-save, or virsh save)`,
      );
    }
    if (!this.#anyDestination && !REMOTE_DESTINATION.test(to)) {
      throw new MigrationOrderError(`${to} is no destination; write tcp:HOST:PORT`);
    }
    const refused = OURS_ALONE.find(option => order[option] !== undefined);
    if (refused !== undefined) throw new MigrationOrderError(`QEMU moves ${name}, and takes no ${refused}`);
    return this.#moves.begin(name, to, async ({ signal, update }) => {
      const summary = await this.#mover.moveAway(name, {
        uri: to,
        signal,
        onProgress: progress => update(qemuMigrationState(progress)),
        ...defined({ bandwidthBytesPerSecond, downtimeMsMax, connections }),
      });
      return qemuMigrationReport(summary);
    });
  }

  /** Resolves when QEMU has given it up, or it was over before. */
  async cancelMigration(name: string): Promise<MigrationAnswer> {
    if (!(await this.#moves.cancel(name))) {
      const { migration } = await this.migration(name);
      if (migration === null || migration.report !== null || migration.error !== null) {
        throw new GuestStateError(`${name} is not being moved`);
      }
      await this.#mover.cancelMove(name);
    }
    return this.migration(name);
  }
}

/** A guest that another client of the monitor sent away may have been resumed since: only QEMU knows. */
const obstacleOf = (name: string, own: MigrationStatus | undefined): string | null =>
  own?.report == null ? null : `${name} does not run here any more`;

/** A migration that another client of the monitor began; its destination is not known here. */
function foreignMove(record: QemuMigrationRecord | null): MigrationStatus | null {
  if (record === null) return null;
  const { progress, summary, failure } = record;
  const report = summary === null ? null : qemuMigrationReport(summary);
  const error = failure === null ? null : { code: failure.code, message: failure.message };
  return { to: null, state: qemuMigrationState(progress), report, error };
}

const qemuMigrationState = (progress: QemuMigrationProgress): MigrationState => ({
  status: progress.status,
  elapsedMs: progress.elapsedMs,
  round: progress.rounds,
  totalBytes: progress.totalBytes,
  sentBytes: progress.transferredBytes,
  remainingBytes: progress.remainingBytes,
  bytesPerSecond: progress.bytesPerSecond,
  expectedDowntimeMs: progress.expectedDowntimeMs,
  guestShare: null,
});

const qemuMigrationReport = (summary: QemuMigrationSummary): MigrationReport => ({
  totalMs: summary.totalMs,
  downtimeMs: summary.downtimeMs,
  rounds: summary.rounds,
  bytes: summary.transferredBytes,
  pages: summary.sentPages,
  zeroPages: summary.zeroPages,
  resentPages: null,
  freePages: null,
  balloonPages: null,
  unbackedPages: null,
  hintRaces: null,
});
