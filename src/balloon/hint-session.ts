/**
 * Free page hint sessions (VIRTIO 1.4, 5.5.6.5) as two pure state machines: {@link HintSession}, the host's side,
 * decides which hints count; {@link HintResponder}, the guest's, decides what to send next. Buffers, rings and
 * bitmaps are elsewhere. Both keep their state in one plain immutable object, so that an explorer can save
 * and restore it at every step.
 *
 * A hint says that a page held nothing of value at some moment after its session was announced. A migration
 * may then skip the page, because whatever is written to it afterwards is in the write log and comes with the next
 * sync. This holds only while these rules do; each is marked where the code obeys it:
 *
 *  S1  A hint counts only under the id of the session that runs: ids are issued after a sync, so a hint from
 *      before the sync, arriving late, carries an older id.
 *  S2  An id is never issued again, so no late buffer can pass for one of a later session.
 *  S3  Once the host said STOP or DONE, nothing counts until the guest has answered a new id.
 *  S4  What the configuration shows is the session's own id for as long as it runs: a guest that reads it for
 *      another reason (a new target) must not take the session for stopped.
 *
 * Two more are the migration's: a hint clears the page in the migration's own bitmap, never in the write log;
 * and the last round syncs after its last hint. And one is the device's: hinted pages are skipped, never freed,
 * for the guest may go on using them.
 */
import { AerostatError, assert } from '../sys/error.ts';

/** Command id: no session is wished for, or, from the guest, the session's last buffer. */
export const HINT_STOP = 0;
/** Command id: the host needs the hinted pages no longer; the guest takes its blocks back. */
export const HINT_DONE = 1;
/** The first id that {@link HintSession} issues. A guest accepts any above HINT_DONE. */
export const HINT_ID_MIN = 0x8000_0000;
const HINT_ID_MAX = 0xffff_ffff;
/** Size of the out-buf that carries a command id, le32. */
export const HINT_COMMAND_BYTES = 4;

/**
 * `idle`: none yet. `requested`: the id is in the configuration, the guest has not answered. `running`: it has,
 * and its hints count. `stopped`: by either side. `done`: the guest may have its blocks back.
 */
export type HintPhase = 'idle' | 'requested' | 'running' | 'stopped' | 'done';

interface HintSessionState {
  readonly phase: HintPhase;
  /** The newest session's id, HINT_STOP before the first. Ids only ever rise. */
  readonly id: number;
}

const NO_SESSION: HintSessionState = { phase: 'idle', id: HINT_STOP };

interface HintOptions {
  /** Profile `sg` has no DONE: its sessions end with STOP, and the guest keeps no blocks. */
  readonly hasDone: boolean;
}

interface HintSessionOptions extends HintOptions {
  /** The first id, {@link HINT_ID_MIN} unless said otherwise. */
  readonly idMin?: number;
}

/** The host's side. */
export class HintSession {
  readonly hasDone: boolean;
  readonly #idMin: number;
  #state: HintSessionState;

  constructor({ hasDone, idMin = HINT_ID_MIN }: HintSessionOptions, state: HintSessionState = NO_SESSION) {
    assert(idMin >= HINT_ID_MIN && idMin <= HINT_ID_MAX, `hint ids from ${idMin} on`);
    this.hasDone = hasDone;
    this.#idMin = idMin;
    this.#state = state;
  }

  get state(): HintSessionState {
    return this.#state;
  }

  get phase(): HintPhase {
    return this.#state.phase;
  }

  /** The newest session's id, or null when there was none. */
  get id(): number | null {
    return this.#state.id === HINT_STOP ? null : this.#state.id;
  }

  /** What the configuration space shows. */
  get commandId(): number {
    const { phase, id } = this.#state;
    if (phase === 'requested' || phase === 'running') return id; // S4
    return phase === 'done' && this.hasDone ? HINT_DONE : HINT_STOP;
  }

  /**
   * Begins a session, ending one that may be running, and returns its id; the caller tells the guest that the
   * configuration changed. In a migration this comes after the sync, never before (S1).
   * @throws AerostatError AEROSTAT_HINT_IDS after 2^31 sessions of one device
   */
  start(): number {
    const id = Math.max(this.#idMin, this.#state.id + 1);
    // S2. VIRTIO allows an id again once its STOP arrived, but a guest that missed a session sends none; at a
    // session a second the ids last for 68 years.
    if (id > HINT_ID_MAX)
      throw new AerostatError('AEROSTAT_HINT_IDS', 'all ids for hint sessions are used up');
    // What the guest may still send under an older id counts no more: only the new id makes the session run (S1).
    this.#state = { phase: 'requested', id };
    return id;
  }

  /** Hints are of no use for now. Returns whether the configuration changed. */
  stop(): boolean {
    const before = this.commandId;
    if (this.phase === 'requested' || this.phase === 'running') this.#enter('stopped'); // S3
    return this.commandId !== before;
  }

  /** The hinted pages are needed no more. Returns whether the configuration changed. */
  done(): boolean {
    const before = this.commandId;
    if (this.phase !== 'idle') this.#enter('done'); // S3
    return this.commandId !== before;
  }

  /** The guest sent a command id. Any number may come; only the id that is asked for makes the session run (S1). */
  onIdBuffer(id: number): void {
    if (id !== this.#state.id) {
      // STOP, or a guest that turned to another id without one: it has left the session for good.
      this.onStopBuffer();
    } else if (this.phase === 'requested') {
      this.#enter('running');
    }
  }

  /** The guest sent STOP. It may be late with that of an older session, so it ends only one that runs. */
  onStopBuffer(): void {
    if (this.phase === 'running') this.#enter('stopped');
  }

  /** The guest sent pages: whether they count (S1, S3). */
  onPages(): boolean {
    return this.phase === 'running';
  }

  /** The device was reset: its rings are empty and no session is left. Ids go on rising (S2). */
  reset(): void {
    this.#enter('idle');
  }

  #enter(phase: HintPhase): void {
    this.#state = { phase, id: this.#state.id };
  }
}

/** What a driver has to do next; {@link HintResponder.next}. */
type HintStep =
  /** Send the id that `begin` returns, in an out-buf. */
  | 'begin'
  /** Send a free block as an in-buf and keep it; call `hold`, or `exhaust` when there is none left. */
  | 'hint'
  /** Send HINT_STOP in an out-buf (a ring slot has to be kept for it) and call `end`. */
  | 'end'
  /** Give every block that is held back to the allocator and call `release`. */
  | 'release'
  | 'wait';

export interface HintResponderState {
  /** The command id that the configuration showed last. */
  readonly wished: number;
  /** The id whose stream is open: begun, and without its STOP. HINT_STOP when none is. */
  readonly active: number;
  /** The last id that was answered. */
  readonly last: number;
  /** There are no free blocks left to hint in this session. */
  readonly exhausted: boolean;
  /** Blocks are kept out of the allocator. */
  readonly holding: boolean;
}

const NO_STREAM: HintResponderState = {
  wished: HINT_STOP,
  active: HINT_STOP,
  last: HINT_STOP,
  exhausted: false,
  holding: false,
};

/** The guest's side. Clauses of VIRTIO 1.4, 5.5.6.5.1, are named by what they demand. */
export class HintResponder {
  readonly hasDone: boolean;
  #state: HintResponderState;

  constructor({ hasDone }: HintOptions, state: HintResponderState = NO_STREAM) {
    this.hasDone = hasDone;
    this.#state = state;
  }

  get state(): HintResponderState {
    return this.#state;
  }

  /** The configuration was read, for whatever reason. Returns what to do next. */
  onConfig(commandId: number): HintStep {
    this.#move({ wished: commandId });
    return this.next();
  }

  next(): HintStep {
    const { wished, active, last, exhausted, holding } = this.#state;
    if (active !== HINT_STOP) {
      // A stream is always closed by STOP: on STOP, on DONE, before another id, and when nothing is left.
      return wished === active && !exhausted ? 'hint' : 'end';
    }
    const over = this.hasDone ? wished === HINT_DONE : true;
    if (holding && over) return 'release';
    // An id is answered once, however often the configuration is read.
    return wished > HINT_DONE && wished !== last ? 'begin' : 'wait';
  }

  /** Opens the stream of the id that is wished for, and returns it. */
  begin(): number {
    assert(this.next() === 'begin', 'a hint session begun out of turn');
    const id = this.#state.wished;
    this.#move({ active: id, last: id, exhausted: false });
    return id;
  }

  /** A block was hinted and stays out of the allocator. */
  hold(): void {
    assert(this.#state.active !== HINT_STOP, 'a page hinted outside of a session');
    this.#move({ holding: true });
  }

  /** There is nothing left to hint. */
  exhaust(): void {
    this.#move({ exhausted: true });
  }

  /** STOP was sent. */
  end(): void {
    assert(this.#state.active !== HINT_STOP, 'a hint session ended that had not begun');
    this.#move({ active: HINT_STOP });
  }

  /**
   * All blocks are back in the allocator: because `next` said so, or earlier, for want of memory. A hint is no
   * promise, so that is allowed at any time and changes nothing of the session.
   */
  release(): void {
    this.#move({ holding: false });
  }

  /** The device was reset: every block goes back, and ids start anew. */
  reset(): void {
    this.#state = NO_STREAM;
  }

  #move(change: Partial<HintResponderState>): void {
    this.#state = { ...this.#state, ...change };
  }
}
