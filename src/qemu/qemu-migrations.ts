/**
 * Migrations of QEMU's guests, in the shape of ours: QEMU moves its guest itself, over a connection of its own, and is
 * asked how far it is. Only those that were begun here are told of.
 */

import type { GuestEvent } from '../control/contract.ts';
import { GuestStateError, MigrationOrderError } from '../control/errors.ts';
import type {
  MigrationOrder,
  MigrationReport,
  MigrationState,
  MigrationStatus,
  Migrations,
} from '../control/migrations.ts';
import type {
  QemuMigrationOptions,
  QemuMigrationProgress,
  QemuMigrationSummary,
} from '../peers/qemu/migration.ts';
import { AerostatError } from '../sys/error.ts';

/** What begins and watches one. @throws QemuMigrationError when the guest stays */
type Migrate = (name: string, options: QemuMigrationOptions) => Promise<QemuMigrationSummary>;

interface Move {
  readonly cancel: AbortController;
  status: MigrationStatus;
}

/** QEMU would also run programs (`exec:`) and write files; whoever may only steer guests is to do neither. */
const DESTINATION = /^tcp:/;

/** QEMU's words for a migration that is over. */
const ENDS: readonly string[] = ['completed', 'failed', 'cancelled'];

/** What QEMU does in its own way, or not at all. */
const OURS_ALONE = ['roundsMax', 'autoConverge', 'channel', 'compress'] as const;

export class QemuMigrations implements Migrations {
  readonly #migrate: Migrate;
  readonly #known: (name: string) => void;
  readonly #emit: (event: GuestEvent) => void;
  /** The newest of every guest. */
  readonly #moves = new Map<string, Move>();

  /** `known` throws UnknownGuestError for a name that is nobody's. */
  constructor(migrate: Migrate, known: (name: string) => void, emit: (event: GuestEvent) => void) {
    this.#migrate = migrate;
    this.#known = known;
    this.#emit = emit;
  }

  async obstacle(name: string): Promise<string | null> {
    this.#known(name);
    const report = this.#moves.get(name)?.status.report ?? null;
    return report === null ? null : `${name} does not run here any more`;
  }

  async start(name: string, order: MigrationOrder): Promise<MigrationStatus> {
    const obstacle = await this.obstacle(name);
    if (obstacle !== null) throw new GuestStateError(obstacle);
    if (this.#underWay(name) !== undefined) throw new GuestStateError(`${name} is moving already`);
    const { to, bandwidthBytesPerSecond, downtimeMsMax, connections } = order;
    if (!DESTINATION.test(to)) throw new MigrationOrderError(`${to} is no destination; write tcp:HOST:PORT`);
    const refused = OURS_ALONE.find(option => order[option] !== undefined);
    if (refused !== undefined) throw new MigrationOrderError(`QEMU moves ${name}, and takes no ${refused}`);
    const move: Move = { cancel: new AbortController(), status: beginningOf(to) };
    this.#moves.set(name, move);
    void this.#follow(name, move, {
      uri: to,
      signal: move.cancel.signal,
      onProgress: progress =>
        this.#become(name, move, { ...move.status, state: qemuMigrationState(progress) }),
      ...(bandwidthBytesPerSecond === undefined ? {} : { bandwidthBytesPerSecond }),
      ...(downtimeMsMax === undefined ? {} : { downtimeMsMax }),
      ...(connections === undefined ? {} : { connections }),
    });
    return move.status;
  }

  async status(name: string): Promise<MigrationStatus | null> {
    this.#known(name);
    return this.#moves.get(name)?.status ?? null;
  }

  async cancel(name: string): Promise<void> {
    this.#known(name);
    const move = this.#underWay(name);
    if (move === undefined) throw new GuestStateError(`${name} is not being moved`);
    move.cancel.abort();
  }

  #underWay(name: string): Move | undefined {
    const move = this.#moves.get(name);
    return move?.status.report === null && move.status.error === null ? move : undefined;
  }

  async #follow(name: string, move: Move, options: QemuMigrationOptions): Promise<void> {
    try {
      const summary = await this.#migrate(name, options);
      this.#become(name, move, { ...move.status, report: qemuMigrationReport(summary) });
    } catch (error) {
      const { code, message } =
        error instanceof AerostatError ? error : { code: 'AEROSTAT_INTERNAL', message: String(error) };
      const status = move.cancel.signal.aborted ? 'cancelled' : 'failed';
      this.#become(name, move, {
        ...move.status,
        state: { ...move.status.state, status },
        error: { code, message },
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
    this.#emit({
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

export const qemuMigrationState = (progress: QemuMigrationProgress): MigrationState => ({
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

export const qemuMigrationReport = (summary: QemuMigrationSummary): MigrationReport => ({
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
