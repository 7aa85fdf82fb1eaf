/**
 * Keeps a hostile guest from filling the log: each kind of message is let through once an interval, with the
 * number of those that were not.
 */

/** A person reading the log sees what is wrong from one line; the counters say how often. */
const INTERVAL_MS = 10_000;
/** Kinds that are remembered; they come from our own code, so this is never reached unless it grows. */
const KINDS_MAX = 256;

export class LogLimiter {
  readonly #now: () => number;
  readonly #kinds = new Map<string, { lastMs: number; suppressed: number }>();

  constructor(now: () => number) {
    this.#now = now;
  }

  /** How many messages of `kind` were suppressed before this one, or undefined: suppress this one, too. */
  admit(kind: string): number | undefined {
    const now = this.#now();
    const known = this.#kinds.get(kind);
    if (known !== undefined && now - known.lastMs < INTERVAL_MS) {
      known.suppressed++;
      return undefined;
    }
    if (this.#kinds.size >= KINDS_MAX) this.#kinds.clear();
    this.#kinds.set(kind, { lastMs: now, suppressed: 0 });
    return known?.suppressed ?? 0;
  }
}
