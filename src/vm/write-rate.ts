/**
 * How fast a guest writes to its memory: pages of the write log that were written between two looks. It has no timer, so
 * that it costs nothing while nothing asks, and it touches no guest's thread. The log is the migration's while there is one.
 */
import { PAGE_SIZE } from '../memory/page.ts';
import type { SoftwareDirtyLog } from '../migration/dirty-log.ts';

/** Sooner, a burst of a moment would count for the whole second. */
const WINDOW_MS_MIN = 500;
/** Later, what was written again and again has counted once for too long. */
const WINDOW_MS_MAX = 30_000;
/** Pages that a look goes through: a millisecond's work. Of more memory, it goes through stretches spread over all of it. */
const LOOKED_AT_MAX = 2 ** 20;
/** Pages, 4 MiB: whole words of the log, and many samples of a large memory. */
const STRETCH = 1024;

export class WriteRate {
  readonly #log: Pick<SoftwareDirtyLog, 'slots' | 'forget'>;
  readonly #now: () => number;
  /** One stretch of so many is looked at. */
  readonly #every: number;
  /** Which one of them; another one in each window. */
  #phase = 0;
  #sinceMs: number | undefined;
  #bytesPerSecond: number | null = null;

  /** `now`: milliseconds of a clock that is never set. */
  constructor(log: Pick<SoftwareDirtyLog, 'slots' | 'forget'>, now: () => number) {
    this.#log = log;
    this.#now = now;
    this.#every = Math.ceil(log.slots / LOOKED_AT_MAX);
  }

  /**
   * Bytes that were written to since the last look, a second: a page counts once in a window, as it does in a round of a
   * migration. Null where there was no look lately. What was logged is forgotten: no migration may be under way.
   */
  look(): number | null {
    const nowMs = this.#now();
    const windowMs = this.#sinceMs === undefined ? Number.POSITIVE_INFINITY : nowMs - this.#sinceMs;
    if (windowMs < WINDOW_MS_MIN) return this.#bytesPerSecond;
    const { written, seen } = this.#take(this.#phase);
    this.#bytesPerSecond =
      windowMs > WINDOW_MS_MAX || seen === 0
        ? null
        : Math.round((((written * PAGE_SIZE) / windowMs) * 1000 * this.#log.slots) / seen);
    if (this.#every > 1) {
      this.#phase = (this.#phase + 1) % this.#every;
      this.#take(this.#phase);
    }
    this.#sinceMs = nowMs;
    return this.#bytesPerSecond;
  }

  /** Another reader has the log from now on; the next look begins anew. */
  forget(): void {
    this.#sinceMs = undefined;
    this.#bytesPerSecond = null;
  }

  #take(phase: number): { readonly written: number; readonly seen: number } {
    const { slots } = this.#log;
    let written = 0;
    let seen = 0;
    for (let start = phase * STRETCH; start < slots; start += this.#every * STRETCH) {
      const count = Math.min(STRETCH, slots - start);
      written += this.#log.forget(start, count);
      seen += count;
    }
    return { written, seen };
  }
}
