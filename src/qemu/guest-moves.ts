/**
 * The newest migration of every guest that was begun here, in the shape of ours, whichever hypervisor moves it: how far it is,
 * how it ended, and what is told of it on the way. How it is moved is the hypervisor's.
 */
import type { GuestEvent } from '../control/contract.ts';
import { GuestStateError } from '../control/errors.ts';
import type { MigrationReport, MigrationState, MigrationStatus } from '../control/migrations.ts';
import { wireError } from '../sys/error.ts';

/** What the one has who carries a migration out. */
export interface MoveUnderWay {
  /** Aborted when it is to be given up. */
  readonly signal: AbortSignal;
  update(state: MigrationState): void;
}

interface Move {
  readonly cancel: AbortController;
  status: MigrationStatus;
  /** Settles when it is over, however it ends. */
  over: Promise<void>;
}

/** Words of hypervisors for a migration that is over. */
const ENDS: readonly string[] = ['completed', 'failed', 'cancelled'];
/** Of guests that came and went, the newest are remembered. */
const MOVES_MAX = 1000;

export const BEGINNING: MigrationState = {
  status: 'setup',
  elapsedMs: 0,
  round: null,
  totalBytes: null,
  sentBytes: null,
  remainingBytes: null,
  bytesPerSecond: null,
  expectedDowntimeMs: null,
  guestShare: null,
};

export class GuestMoves {
  readonly #emit: (event: GuestEvent) => void;
  readonly #moves = new Map<string, Move>();

  constructor(emit: (event: GuestEvent) => void) {
    this.#emit = emit;
  }

  /** Undefined where none was begun here. */
  of(name: string): MigrationStatus | undefined {
    return this.#moves.get(name)?.status;
  }

  isUnderWay(name: string): boolean {
    return this.#underWay(name) !== undefined;
  }

  /**
   * `carry` moves the guest, and answers how that went.
   * @throws GuestStateError when it is moving already
   */
  begin(name: string, to: string, carry: (move: MoveUnderWay) => Promise<MigrationReport>): MigrationStatus {
    if (this.isUnderWay(name)) throw new GuestStateError(`${name} is moving already`);
    const status = { to, state: BEGINNING, report: null, error: null };
    const move: Move = { cancel: new AbortController(), status, over: Promise.resolve() };
    // The newest are the last ones.
    this.#moves.delete(name);
    this.#moves.set(name, move);
    this.#forget();
    move.over = this.#follow(name, move, carry);
    return move.status;
  }

  /** Settles when it is over. False where none is under way. */
  async cancel(name: string): Promise<boolean> {
    const move = this.#underWay(name);
    if (move === undefined) return false;
    move.cancel.abort();
    await move.over;
    return true;
  }

  #underWay(name: string): Move | undefined {
    const move = this.#moves.get(name);
    return move?.status.report === null && move.status.error === null ? move : undefined;
  }

  #forget(): void {
    for (const name of this.#moves.keys()) {
      if (this.#moves.size <= MOVES_MAX) return;
      if (!this.isUnderWay(name)) this.#moves.delete(name);
    }
  }

  async #follow(
    name: string,
    move: Move,
    carry: (move: MoveUnderWay) => Promise<MigrationReport>,
  ): Promise<void> {
    try {
      const update = (state: MigrationState) => this.#become(name, move, { ...move.status, state });
      const report = await carry({ signal: move.cancel.signal, update });
      this.#become(name, move, { ...move.status, report });
    } catch (error) {
      const status = move.cancel.signal.aborted ? 'cancelled' : 'failed';
      const state = { ...move.status.state, status };
      this.#become(name, move, { ...move.status, state, error: wireError(error) });
    }
  }

  #become(name: string, move: Move, status: MigrationStatus): void {
    const before = move.status;
    move.status = status;
    const { to, state, report, error } = status;
    const over = report !== null || error !== null;
    // Hypervisors are asked many times a second, and how it ended is said when that is known.
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
