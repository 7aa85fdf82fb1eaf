/**
 * How soon the next front-end is let in at a guest's socket. A connection costs its guest's thread about a millisecond, most
 * of it the kernel's, and a front-end that comes and goes without end would have all of that thread's time that is the
 * guest's. A front-end that stays pays nothing, nor does one that crashes and is started again a few times.
 */

/** A connection that lasted this long was one of a guest that ran. So long without any, and the former ones are forgotten. */
const SHORT_MS = 1000;
/** Short ones in a row that are taken for a guest that is started again, or for programs that look whether it is there. */
const SHORT_FREE = 8;
/** Between two connections at most: fifty a second, and nothing that a person would notice. */
const PAUSE_MS_MAX = 20;

export class ConnectionPace {
  #beganMs = Number.NEGATIVE_INFINITY;
  #endedMs = Number.NEGATIVE_INFINITY;
  /** Short connections in a row. */
  #short = 0;

  began(nowMs: number): void {
    if (nowMs - this.#endedMs >= SHORT_MS) this.#short = 0;
    this.#beganMs = nowMs;
  }

  /** The connection is over. Returns for how long none is let in from now on. */
  ended(nowMs: number): number {
    this.#endedMs = nowMs;
    this.#short = nowMs - this.#beganMs < SHORT_MS ? this.#short + 1 : 0;
    if (this.#short <= SHORT_FREE) return 0;
    return Math.min(PAUSE_MS_MAX, 2 ** (this.#short - SHORT_FREE - 1));
  }
}
