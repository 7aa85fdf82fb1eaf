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
import { wireError } from '../sys/error.ts';

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

interface Move {
  readonly cancel: AbortController;
  status: MigrationStatus;
  /** Settles when it is over, however it ends. */
  over: Promise<void>;
}

/** QEMU would also run programs (`exec:`) and write files; a client of the API may only steer guests. */
const REMOTE_DESTINATION = /^tcp:/;

/** QEMU's words for a migration that is over. */
const ENDS: readonly string[] = ['completed', 'failed', 'cancelled'];

/** What QEMU does in its own way, or not at all. */
const OURS_ALONE = [
  'roundsMax',
  'autoConverge',
  'channel',
  'compress',
  'postcopyAfterRound',
  'recover',
] as const;

export class QemuMigrations implements GuestHandlers<MigrationOperation> {
  readonly #mover: QemuMover;
  readonly #anyDestination: boolean;
  /** The newest of every guest that was begun here. */
  readonly #moves = new Map<string, Move>();

  /** `anyDestination`: also to what only the user of this machine may name (`unix:`, `exec:`, `fd:`). */
  constructor(mover: QemuMover, anyDestination: boolean) {
    this.#mover = mover;
    this.#anyDestination = anyDestination;
  }

  async migration(name: string): Promise<MigrationAnswer> {
    const own = this.#moves.get(name)?.status;
    const migration = own ?? foreignMove(await this.#mover.lastMove(name));
    return { migration, obstacle: obstacleOf(name, own), dirtyBytesPerSecond: null };
  }

  async migrate(name: string, order: MigrationOrder): Promise<MigrationStatus> {
    this.#mover.expect(name);
    const obstacle = obstacleOf(name, this.#moves.get(name)?.status);
    if (obstacle !== null) throw new GuestStateError(obstacle);
    if (this.#underWay(name) !== undefined) throw new GuestStateError(`${name} is moving already`);
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
    const move: Move = { cancel: new AbortController(), status: beginningOf(to), over: Promise.resolve() };
    this.#moves.set(name, move);
    move.over = this.#follow(name, move, {
      uri: to,
      signal: move.cancel.signal,
      onProgress: progress =>
        this.#become(name, move, { ...move.status, state: qemuMigrationState(progress) }),
      ...defined({ bandwidthBytesPerSecond, downtimeMsMax, connections }),
    });
    return move.status;
  }

  /** Resolves when QEMU has given it up, or it was over before. */
  async cancelMigration(name: string): Promise<MigrationAnswer> {
    const move = this.#underWay(name);
    if (move !== undefined) {
      move.cancel.abort();
      await move.over;
    } else {
      const { migration } = await this.migration(name);
      if (migration === null || migration.report !== null || migration.error !== null) {
        throw new GuestStateError(`${name} is not being moved`);
      }
      await this.#mover.cancelMove(name);
    }
    return this.migration(name);
  }

  #underWay(name: string): Move | undefined {
    const move = this.#moves.get(name);
    return move?.status.report === null && move.status.error === null ? move : undefined;
  }

  async #follow(name: string, move: Move, options: QemuMigrationOptions): Promise<void> {
    try {
      const summary = await this.#mover.moveAway(name, options);
      this.#become(name, move, { ...move.status, report: qemuMigrationReport(summary) });
    } catch (error) {
      const status = move.cancel.signal.aborted ? 'cancelled' : 'failed';
      this.#become(name, move, {
        ...move.status,
        state: { ...move.status.state, status },
        error: wireError(error),
      });
    }
  }

  #become(name: string, move: Move, status: MigrationStatus): void {
    const before = move.status;
    move.status = status;
    const { to, state, report, error } = status;
    const over = report !== null || error !== null;
    // QEMU is asked many times a second, and how it ended is said when that is known.
    const same = state.status === before.state.status && state.round === before.state.round;
    if (!over && (same || ENDS.includes(state.status))) return;
    this.#mover.emit({
      guest: name,
      type: 'migration',
      timeMs: Date.now(),
      detail: {
        to,
        status: report === null ? state.status : 'done',
        round: state.round,
        remainingBytes: state.remainingBytes,
        ...(error === null ? {} : { message: error.message }),
      },
    });
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

const beginningOf = (to: string): MigrationStatus => ({
  to,
  state: {
    status: 'setup',
    elapsedMs: 0,
    round: null,
    totalBytes: null,
    sentBytes: null,
    remainingBytes: null,
    bytesPerSecond: null,
    expectedDowntimeMs: null,
    guestShare: null,
  },
  report: null,
  error: null,
});

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
