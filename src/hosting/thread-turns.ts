/**
 * How the guests of one thread share it, by the time that serving each of them takes. A guest that had more than its share
 * while others were served rests, so that one that waits for each of its buffers finds the thread free as often as it would
 * be its turn. The costs of a guest are whatever is done because of it: its rings, its messages, its connections, and
 * questions about it. Here are neither clock nor descriptors; `GuestLoop` has them.
 */
import { WORK_PER_SHARED_TURN, WORK_PER_TURN } from '../device/turn.ts';

/** After so many turns of one guest in a row the others are taken to be at rest. */
const TURNS_ALONE = 64;

/**
 * A guest that was served within this time may come again any moment: one that waits for its buffer, touches 256 pages and
 * gives them, even on a processor that it shares. Others get no time set aside, and wait for one turn when they come.
 */
export const ACTIVE_MS = 5;

/** Time that is looked at together: to change between guests costs some microseconds, which this is a multiple of. */
export const SPAN_MS = 0.25;

/**
 * What of the thread is dealt out among guests that would each have all of it. The rest is what changing between them
 * costs, and goes to those that had less.
 */
export const DEALT_OUT = 0.8;

/**
 * What a message takes here counts so many times, since it sets off as much elsewhere, on processors that all share: its answer
 * wakes the front-end, discarding threads hear of memory, each descriptor is closed by a thread of its own, and the engine's
 * threads collect what was allocated. (Beside 500 regions that come and go: a quarter of a processor here, as much there.)
 */
export const MESSAGE_WEIGHT = 2;

/** No guest rests for longer, whatever it cost. */
export const REST_MS_MAX = 100;
/** What a guest had before that is forgotten. */
const MEMORY_MS = 10;

export class ThreadTurns {
  readonly #guests = new Set<GuestTurns>();
  #last: GuestTurns | undefined;
  #inRow = 0;

  /** Another guest is served by the thread. */
  join(): GuestTurns {
    const guest: GuestTurns = new GuestTurns({
      others: () => this.#guests,
      work: () => this.#work(guest),
      leave: () => this.#guests.delete(guest),
    });
    this.#guests.add(guest);
    return guest;
  }

  #work(guest: GuestTurns): number {
    if (guest !== this.#last) {
      // The first that is ever served is alone.
      this.#inRow = this.#last === undefined ? TURNS_ALONE : 0;
      this.#last = guest;
    }
    if (this.#inRow >= TURNS_ALONE) return WORK_PER_TURN;
    this.#inRow++;
    return WORK_PER_SHARED_TURN;
  }
}

interface Thread {
  /** All guests of the thread. */
  others(): ReadonlySet<GuestTurns>;
  work(): number;
  leave(): void;
}

/** One guest's part of it. Moments are milliseconds on one clock. */
export class GuestTurns {
  readonly #thread: Thread;
  /** The span that is looked at: when it began, and what of it the guest had. */
  #sinceMs = Number.NEGATIVE_INFINITY;
  #usedMs = 0;
  #servedMs = Number.NEGATIVE_INFINITY;
  #restsUntilMs = Number.NEGATIVE_INFINITY;

  constructor(thread: Thread) {
    this.#thread = thread;
  }

  /** No other guest is on the thread: there is nothing to share. */
  get alone(): boolean {
    return this.#thread.others().size === 1;
  }

  /** What a ring of the guest may cost that is served next, in the units of `TurnBudget`. */
  get work(): number {
    return this.#thread.work();
  }

  /**
   * The guest was served from one moment to the other, which counts `weight` times. Returns for how long it rests from then on:
   * then nothing of it is to be served.
   */
  served(fromMs: number, toMs: number, weight = 1): number {
    this.#servedMs = toMs;
    return this.cost(fromMs, toMs, weight);
  }

  /** The same for something that it did not ask for itself. */
  cost(fromMs: number, toMs: number, weight = 1): number {
    if (this.#usedMs === 0 || fromMs - this.#sinceMs > MEMORY_MS) this.#begin(fromMs);
    this.#usedMs += (toMs - fromMs) * weight;
    if (this.#usedMs < SPAN_MS || this.#restsUntilMs > toMs) return 0;
    let active = 0;
    let awake = 0;
    for (const guest of this.#thread.others()) {
      if (guest === this || !guest.#activeAt(fromMs)) continue;
      active++;
      if (guest.#restsUntilMs <= toMs) awake++;
    }
    // Others that rest would not use the time. It is remembered who had it.
    if (awake === 0) {
      if (active === 0) this.#usedMs = 0;
      return 0;
    }
    const share = DEALT_OUT / (active + 1);
    const restMs = Math.min(REST_MS_MAX, this.#usedMs / share - (toMs - this.#sinceMs));
    this.#usedMs = 0;
    if (restMs <= 0) return 0;
    this.#restsUntilMs = toMs + restMs;
    return restMs;
  }

  leave(): void {
    this.#thread.leave();
  }

  #begin(atMs: number): void {
    this.#sinceMs = atMs;
    this.#usedMs = 0;
  }

  #activeAt(ms: number): boolean {
    return this.#servedMs >= ms - ACTIVE_MS || this.#restsUntilMs >= ms;
  }
}
