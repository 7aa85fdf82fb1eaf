/**
 * One thread's loop over poll(2): descriptors with handlers, and timers. The data plane blocks here, so an
 * idle loop costs nothing. Node's own event loop is visited between turns (see {@link Reactor.run}) so that
 * messages, finalizers and exit keep working.
 */
import { assert } from './error.ts';
import { createEventFd, type OwnedFd, ring, silence } from './fd.ts';
import { check, errno, libc } from './libc.ts';
import { Arena } from './mapping.ts';
import { monotonicMs } from './monotonic.ts';
import { struct } from './struct.ts';

export { monotonicMs };

const POLLIN = 0x1;
const POLLOUT = 0x4;
const POLLERR = 0x8;
const POLLHUP = 0x10;
const POLLNVAL = 0x20;
const EINTR = 4;

const POLLFD = struct('pollfd', 8, { fd: ['u32', 0], events: ['u16', 4], revents: ['u16', 6] });

/** Descriptors that one loop serves at most: far above what 100 guests use, small enough to preallocate. */
const POLL_DESCRIPTORS_MAX = 4096;

/** poll's timeout is a C int; a wait that is cut short only costs a turn. */
const POLL_TIMEOUT_MS_MAX = 2 ** 31 - 1;

export interface Readiness {
  readonly readable: boolean;
  readonly writable: boolean;
  /** The other end is closed or broken; nothing will ever come again once all is read. */
  readonly hungUp: boolean;
}

export interface Watch {
  /** Wake also when the descriptor can be written to. */
  wantWrite: boolean;
  stop(): void;
}

/** The watches of one reactor, and whether poll's table still shows them. */
class WatchTable {
  readonly members = new Set<Watched>();
  stale = true;
}

class Watched implements Watch {
  readonly fd: OwnedFd;
  readonly onReady: (readiness: Readiness) => void;
  readonly #table: WatchTable;
  #wantWrite = false;

  constructor(fd: OwnedFd, onReady: (readiness: Readiness) => void, table: WatchTable) {
    this.fd = fd;
    this.onReady = onReady;
    this.#table = table;
    table.members.add(this);
    table.stale = true;
  }

  get watched(): boolean {
    return this.fd.open && this.#table.members.has(this);
  }

  get wantWrite(): boolean {
    return this.#wantWrite;
  }

  set wantWrite(want: boolean) {
    if (this.#wantWrite === want) return;
    this.#wantWrite = want;
    this.#table.stale = true;
  }

  stop(): void {
    this.#table.members.delete(this);
    this.#table.stale = true;
  }
}

export interface Timer {
  cancel(): void;
}

interface PendingTimer {
  readonly dueMs: number;
  readonly run: () => void;
}

export class Reactor {
  readonly #arena = new Arena(POLL_DESCRIPTORS_MAX * POLLFD.size);
  readonly #table = new WatchTable();
  /** The watches in the order of poll's table. */
  #polled: readonly Watched[] = [];
  readonly #timers = new Set<PendingTimer>();
  readonly #wake: OwnedFd;
  /** Other threads may know the descriptor that ends a wait. */
  #wakeShared: boolean;
  #stopped = false;
  #wakes = 0;
  /** The next turn of {@link run}, while there is nothing to wait for. */
  #parked: (() => void) | undefined;

  /** `wake` is an eventfd that any thread may ring to end a wait; the reactor owns it. */
  constructor(wake?: OwnedFd) {
    this.#wake = wake ?? createEventFd();
    this.#wakeShared = wake !== undefined;
  }

  /** How often a wait was ended by a ring of {@link wakeFd}. */
  get wakes(): number {
    return this.#wakes;
  }

  get wakeFd(): OwnedFd {
    this.#wakeShared = true;
    return this.#wake;
  }

  /** Calls `onReady` whenever `fd` is ready, until the returned watch is stopped or `fd` is closed. */
  watch(fd: OwnedFd, onReady: (readiness: Readiness) => void): Watch {
    assert(this.#table.members.size < POLL_DESCRIPTORS_MAX - 1, 'too many descriptors in one loop');
    const watch = new Watched(fd, onReady, this.#table);
    this.#unpark();
    return watch;
  }

  /** Calls `run` once, no earlier than `delayMs` from now; timers that are due together run in order of time. */
  schedule(delayMs: number, run: () => void): Timer {
    const timer: PendingTimer = { dueMs: monotonicMs() + delayMs, run };
    this.#timers.add(timer);
    this.#unpark();
    return { cancel: () => this.#timers.delete(timer) };
  }

  stop(): void {
    this.#stopped = true;
    ring(this.#wake);
    this.#unpark();
  }

  /** Waits for at most `limitMs` (forever if undefined), then serves everything that is ready or due. */
  turn(limitMs?: number): void {
    if (this.#table.stale) this.#fillTable();
    const watched = this.#polled;
    const ready = libc.poll(this.#arena.address, watched.length + 1, this.#timeoutMs(limitMs));
    if (ready === -1 && errno() !== EINTR) check('poll', ready);
    if (ready > 0) {
      if (this.#revents(0) !== 0) {
        this.#wakes++;
        silence(this.#wake);
      }
      for (let index = 0; index < watched.length; index++) {
        const revents = this.#revents(index + 1);
        const watch = watched[index];
        // A handler that ran before may have stopped this watch, or closed its descriptor, whose number may by now
        // be another's.
        if (revents === 0 || !watch.watched) continue;
        watch.onReady({
          readable: (revents & POLLIN) !== 0,
          writable: (revents & POLLOUT) !== 0,
          hungUp: (revents & (POLLHUP | POLLERR | POLLNVAL)) !== 0,
        });
      }
    }
    this.#runDueTimers();
  }

  /**
   * Turns until {@link stop}; `afterTurn` runs after every one. Resolves when stopped. Between turns Node's own
   * loop has its turn, because promises, messages and finalizers need it; that costs under a microsecond. While no
   * descriptor is watched, no timer is set and no other thread can ring {@link wakeFd}, nothing could end a wait:
   * then the thread is left to Node until {@link watch}, {@link schedule} or {@link stop} is called.
   */
  run(afterTurn: () => void = () => {}): Promise<void> {
    return new Promise((resolve, reject) => {
      const turn = () => {
        if (!this.#canWait()) {
          this.#parked = turn;
          return;
        }
        try {
          this.turn();
          afterTurn();
        } catch (error) {
          reject(error);
          return;
        }
        if (this.#stopped) resolve();
        else setImmediate(turn);
      };
      // What the caller does next (it connects, say) comes before the first wait.
      setImmediate(turn);
    });
  }

  close(): void {
    this.#table.members.clear();
    this.#timers.clear();
    this.#wake.close();
    this.#arena.close();
  }

  /** Whether anything could end a wait, or has ended it already. */
  #canWait(): boolean {
    if (this.#stopped || this.#wakeShared || this.#timers.size > 0) return true;
    for (const watch of this.#table.members) if (watch.fd.open) return true;
    return false;
  }

  #unpark(): void {
    const turn = this.#parked;
    this.#parked = undefined;
    if (turn !== undefined) setImmediate(turn);
  }

  #fillTable(): void {
    const { view } = this.#arena;
    for (const watch of this.#table.members) if (!watch.fd.open) this.#table.members.delete(watch);
    this.#polled = [...this.#table.members];
    POLLFD.write(view, 0, { fd: this.#wake.number, events: POLLIN, revents: 0 });
    this.#polled.forEach((watch, index) => {
      const events = watch.wantWrite ? POLLIN | POLLOUT : POLLIN;
      POLLFD.write(view, (index + 1) * POLLFD.size, { fd: watch.fd.number, events, revents: 0 });
    });
    this.#table.stale = false;
  }

  #revents(index: number): number {
    return this.#arena.view.getUint16(index * POLLFD.size + POLLFD.offset.revents, true);
  }

  #timeoutMs(limitMs: number | undefined): number {
    let dueMs = limitMs === undefined ? Number.POSITIVE_INFINITY : monotonicMs() + limitMs;
    for (const timer of this.#timers) dueMs = Math.min(dueMs, timer.dueMs);
    if (dueMs === Number.POSITIVE_INFINITY) return -1;
    return Math.min(POLL_TIMEOUT_MS_MAX, Math.max(0, Math.ceil(dueMs - monotonicMs())));
  }

  #runDueTimers(): void {
    if (this.#timers.size === 0) return;
    const now = monotonicMs();
    const due = [...this.#timers].filter(timer => timer.dueMs <= now).sort((a, b) => a.dueMs - b.dueMs);
    // One that ran before may have cancelled another.
    for (const timer of due) if (this.#timers.delete(timer)) timer.run();
  }
}
