/**
 * One thread's loop over ppoll(2): descriptors with handlers, and timers. The data plane blocks here, so an
 * idle loop costs nothing. Node's own event loop is visited between turns (see {@link Reactor.run}) so that
 * messages, finalizers and exit keep working.
 */
import { isMainThread } from 'node:worker_threads';
import { assert } from './error.ts';
import { closedDescriptorCount, createEventFd, drainEvent, type OwnedFd, ring } from './fd.ts';
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

const TIMESPEC = struct('timespec', 16, { seconds: ['u64', 0], nanoseconds: ['u64', 8] });
/** A wait that is cut short only costs a turn. */
const TIMEOUT_SECONDS_MAX = 2 ** 31;
/** Behind the table. */
const TIMEOUT_AT = POLL_DESCRIPTORS_MAX * POLLFD.size;

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

/** Watches that are passed over together; whatever becomes of their descriptors meanwhile shows when that is over. */
export class WatchGroup {
  readonly #members = new Set<Watched>();
  #paused = false;

  get paused(): boolean {
    return this.#paused;
  }

  set paused(paused: boolean) {
    if (this.#paused === paused) return;
    this.#paused = paused;
    for (const watch of this.#members) watch.show();
  }

  add(watch: Watched): void {
    this.#members.add(watch);
  }

  remove(watch: Watched): void {
    this.#members.delete(watch);
  }
}

/** poll's table, in {@link Arena}: the wake-up descriptor first, then a slot for each watch. */
class WatchTable {
  readonly arena = new Arena(TIMEOUT_AT + TIMESPEC.size);
  /** By slot, from 1 on; a slot without a watch is free. */
  readonly watches: (Watched | undefined)[] = [undefined];
  /** Watches. */
  size = 0;
  readonly #free: number[] = [];
  #closedDescriptors = closedDescriptorCount();

  constructor(wake: OwnedFd) {
    this.#write(0, wake.number, POLLIN);
  }

  /** Returns the slot of the watch. */
  add(watch: Watched): number {
    const slot = this.#free.pop() ?? this.watches.length;
    this.watches[slot] = watch;
    this.size++;
    this.show(slot, watch);
    return slot;
  }

  /** A negative descriptor is passed over by poll. */
  show(slot: number, { fd, paused, wantWrite }: Watched): void {
    this.#write(slot, paused || !fd.open ? -1 : fd.number, wantWrite ? POLLIN | POLLOUT : POLLIN);
  }

  remove(slot: number): void {
    this.watches[slot] = undefined;
    this.size--;
    this.#write(slot, -1, 0);
    this.#free.push(slot);
  }

  /** Lets go of watches whose descriptors were closed: their numbers may be others' by now. */
  removeClosed(): void {
    const closed = closedDescriptorCount();
    if (closed === this.#closedDescriptors) return;
    this.#closedDescriptors = closed;
    for (const watch of this.watches) if (watch?.fd.open === false) watch.stop();
  }

  revents(slot: number): number {
    return this.arena.view.getUint16(slot * POLLFD.size + POLLFD.offset.revents, true);
  }

  #write(slot: number, fd: number, events: number): void {
    // In this turn the slot has seen nothing: the watch that had it before may have.
    POLLFD.write(this.arena.view, slot * POLLFD.size, { fd: fd >>> 0, events, revents: 0 });
  }
}

class Watched implements Watch {
  readonly fd: OwnedFd;
  readonly onReady: (readiness: Readiness) => void;
  readonly #table: WatchTable;
  readonly #group: WatchGroup | undefined;
  #slot: number;
  #wantWrite = false;

  constructor(
    fd: OwnedFd,
    onReady: (readiness: Readiness) => void,
    table: WatchTable,
    group: WatchGroup | undefined,
  ) {
    this.fd = fd;
    this.onReady = onReady;
    this.#table = table;
    this.#group = group;
    group?.add(this);
    this.#slot = table.add(this);
  }

  get wantWrite(): boolean {
    return this.#wantWrite;
  }

  set wantWrite(want: boolean) {
    if (this.#wantWrite === want) return;
    this.#wantWrite = want;
    this.show();
  }

  get paused(): boolean {
    return this.#group?.paused ?? false;
  }

  /** Has poll's table say what is wanted now. */
  show(): void {
    if (this.#slot > 0) this.#table.show(this.#slot, this);
  }

  stop(): void {
    if (this.#slot > 0) this.#table.remove(this.#slot);
    this.#slot = 0;
    this.#group?.remove(this);
  }
}

export interface Timer {
  cancel(): void;
}

interface PendingTimer {
  readonly dueMs: number;
  readonly run: () => void;
}

/** How long a signal may go unheard on the main thread: a person hardly notices, and neither does the processor. */
const SIGNAL_MS_MAX = 250;

export class Reactor {
  readonly #table: WatchTable;
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
    this.#table = new WatchTable(this.#wake);
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
  watch(fd: OwnedFd, onReady: (readiness: Readiness) => void, group?: WatchGroup): Watch {
    assert(this.#table.size < POLL_DESCRIPTORS_MAX - 1, 'too many descriptors in one loop');
    const watch = new Watched(fd, onReady, this.#table, group);
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

  /** Calls `run` once: when `fd`, where it is given, takes bytes again, and after `delayMs` at the latest. */
  waitForRoom(delayMs: number, run: () => void, fd?: OwnedFd): void {
    const timer = this.schedule(delayMs, () => {
      watch?.stop();
      run();
    });
    const watch =
      fd &&
      this.watch(fd, () => {
        watch?.stop();
        timer.cancel();
        run();
      });
    if (watch !== undefined) watch.wantWrite = true;
  }

  stop(): void {
    this.#stopped = true;
    ring(this.#wake);
    this.#unpark();
  }

  /** Waits for at most `limitMs` (forever if undefined), then serves everything that is ready or due. */
  turn(limitMs?: number): void {
    const table = this.#table;
    const { watches } = table;
    table.removeClosed();
    const ready = libc.ppoll(table.arena.address, watches.length, this.#timeout(limitMs), 0);
    if (ready === -1 && errno() !== EINTR) check('ppoll', ready);
    if (ready > 0) {
      if (table.revents(0) !== 0) {
        this.#wakes++;
        drainEvent(this.#wake);
      }
      for (let slot = 1; slot < watches.length; slot++) {
        const revents = table.revents(slot);
        const watch = watches[slot];
        // A handler that ran before may have closed the descriptor, whose number may by now be another's.
        if (revents === 0 || watch?.fd.open !== true) continue;
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
   *
   * Node hears of signals in its own loop, on the main thread. A signal that comes during ppoll(2) ends the wait; one that
   * comes in the moment before would be heard only after it, so there a wait has an end.
   */
  run(afterTurn: () => void = () => {}): Promise<void> {
    return new Promise((resolve, reject) => {
      const turn = () => {
        if (!this.#canWait()) {
          this.#parked = turn;
          return;
        }
        try {
          this.turn(isMainThread ? SIGNAL_MS_MAX : undefined);
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
    for (const watch of this.#table.watches) watch?.stop();
    this.#timers.clear();
    this.#wake.close();
    this.#table.arena.close();
  }

  /** Whether anything could end a wait, or has ended it already. */
  #canWait(): boolean {
    if (this.#stopped || this.#wakeShared || this.#timers.size > 0) return true;
    return this.#table.watches.some(watch => watch?.fd.open === true);
  }

  #unpark(): void {
    const turn = this.#parked;
    this.#parked = undefined;
    if (turn !== undefined) setImmediate(turn);
  }

  /** The address of what ppoll takes for a timeout; 0 for none. */
  #timeout(limitMs: number | undefined): number {
    let dueMs = limitMs === undefined ? Number.POSITIVE_INFINITY : monotonicMs() + limitMs;
    for (const timer of this.#timers) dueMs = Math.min(dueMs, timer.dueMs);
    if (dueMs === Number.POSITIVE_INFINITY) return 0;
    // In whole microseconds, upwards: who wakes too early waits again.
    const micros = Math.max(0, Math.ceil((dueMs - monotonicMs()) * 1e3));
    const seconds = Math.floor(micros / 1e6);
    TIMESPEC.write(this.#table.arena.view, TIMEOUT_AT, {
      seconds: Math.min(seconds, TIMEOUT_SECONDS_MAX),
      nanoseconds: (micros - seconds * 1e6) * 1e3,
    });
    return this.#table.arena.address + TIMEOUT_AT;
  }

  #runDueTimers(): void {
    if (this.#timers.size === 0) return;
    const now = monotonicMs();
    const due = [...this.#timers].filter(timer => timer.dueMs <= now).sort((a, b) => a.dueMs - b.dueMs);
    // One that ran before may have cancelled another.
    for (const timer of due) if (this.#timers.delete(timer)) timer.run();
  }
}
