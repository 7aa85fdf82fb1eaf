/**
 * How a balloon gets on towards its target: whether it stands still far from it, and whether it swings, because the guest
 * gives pages and takes them back for want of memory (DEFLATE_ON_OOM), some thousand times a second. A balloon that swings
 * is shown no more than it can hold, and is tried again after a while. Counts pages; time is an argument. Does nothing
 * itself: target-steering.ts shows the driver what is found here.
 */

/** A balloon that came no nearer for so long is stuck. A Linux guest that found no page tries again after 0.2 s. */
export const STUCK_MS = 5000;

/** So many times within the window memory was taken back while more was asked for: a guest that is only busy does not. */
export const SWINGS_MAX = 32;
export const SWING_WINDOW_MS = 2000;

/** When a balloon that swung is tried again; each time that it swings again, it is left alone for twice as long. */
export const RETRY_MS_MIN = 10_000;
export const RETRY_MS_MAX = 600_000;

/** What the balloon is shown lies below the least that it held while it swung: by this, and by a share of the target. */
const MARGIN_PAGES = 256;
const MARGIN_SHARE = 1 / 64;

export class TargetWatch {
  readonly #isThere: (actual: number, target: number) => boolean;
  /** A driver is there that could follow. */
  #following = false;
  #target = 0;
  #actual = 0;
  /** The nearest that the balloon came since it last moved away, and when it did. */
  #nearest = 0;
  #nearerMs = 0;
  // Swinging.
  #rising = false;
  #turns = 0;
  #windowMs = Number.NEGATIVE_INFINITY;
  #low = 0;
  #swingsSinceMs: number | null = null;
  #retryMs = RETRY_MS_MIN;
  #retryAtMs: number | null = null;
  /** When it was tried again. */
  #triedMs = 0;
  /** What the driver may be shown at most. */
  limit = Number.POSITIVE_INFINITY;

  constructor(isThere: (actual: number, target: number) => boolean) {
    this.#isThere = isThere;
  }

  /**
   * The balloon is to hold `target` pages and holds `actual`, NaN where that is not known yet; a driver is there to follow.
   * Of a balloon of unknown size nothing is found before its guest has said what it holds.
   */
  aim(target: number, actual: number, nowMs: number): void {
    this.#following = true;
    this.#target = target;
    this.#actual = actual;
    this.#nearest = Math.abs(target - actual);
    this.#nearerMs = nowMs;
    this.#turns = 0;
    this.#windowMs = Number.NEGATIVE_INFINITY;
    this.#swingsSinceMs = null;
    this.#retryMs = RETRY_MS_MIN;
    this.#retryAtMs = null;
    this.limit = Number.POSITIVE_INFINITY;
  }

  /** There is no driver any more. */
  rest(): void {
    this.#following = false;
    this.limit = Number.POSITIVE_INFINITY;
    this.#retryAtMs = null;
    this.#swingsSinceMs = null;
  }

  /** The balloon holds `pages`. */
  actual(pages: number, nowMs: number): void {
    const before = this.#actual;
    this.#actual = pages;
    if (!this.#following) return;
    if (Number.isNaN(before)) {
      this.#nearest = Math.abs(this.#target - pages);
      this.#nearerMs = nowMs;
      return;
    }
    if (this.#isThere(pages, this.#target)) this.#swingsSinceMs = null;
    if (pages < before && pages < this.#target) this.#fell(pages, nowMs);
    this.#rising = pages > before || (this.#rising && pages === before);
    const distance = Math.abs(this.#target - pages);
    if (distance < this.#nearest) this.#nearerMs = nowMs;
    // Where it moved away it has that way to go again, which is progress; where it swings, it is none.
    if (distance < this.#nearest || this.#swingsSinceMs === null) this.#nearest = distance;
  }

  /** When {@link look} has something to find at the earliest; null for never. */
  get dueMs(): number | null {
    if (!this.#following) return null;
    if (this.#retryAtMs !== null) return this.#retryAtMs;
    return this.#mayBeStuck ? this.#nearerMs + STUCK_MS : null;
  }

  /** Time has passed: a balloon that swung may be tried again. */
  look(nowMs: number): void {
    if (this.#retryAtMs === null) {
      // It was tried, and does not swing any more.
      if (nowMs - this.#triedMs >= STUCK_MS) this.#swingsSinceMs = null;
    } else if (nowMs >= this.#retryAtMs) {
      this.#retryAtMs = null;
      this.limit = Number.POSITIVE_INFINITY;
      this.#turns = 0;
      this.#nearerMs = nowMs;
      this.#triedMs = nowMs;
    }
  }

  get swings(): boolean {
    return this.#swingsSinceMs !== null;
  }

  /** When a balloon that swings is tried again; null where it does not, or is being tried. */
  get retryAtMs(): number | null {
    return this.#retryAtMs;
  }

  /** Since when the balloon gets no nearer to its target; null when it is there, or on its way. */
  stuckSinceMs(nowMs: number): number | null {
    if (!this.#following || !this.#mayBeStuck) return null;
    if (this.#swingsSinceMs !== null) return this.#swingsSinceMs;
    return nowMs - this.#nearerMs >= STUCK_MS ? this.#nearerMs : null;
  }

  /** Known not to be at its target. */
  get #mayBeStuck(): boolean {
    return !Number.isNaN(this.#actual) && !this.#isThere(this.#actual, this.#target);
  }

  /** The guest took memory back below its target. */
  #fell(pages: number, nowMs: number): void {
    if (nowMs - this.#windowMs > SWING_WINDOW_MS) {
      this.#windowMs = nowMs;
      this.#turns = 0;
      this.#low = pages;
    }
    this.#low = Math.min(this.#low, pages);
    if (!this.#rising || ++this.#turns < SWINGS_MAX) return;
    const margin = Math.max(MARGIN_PAGES, Math.ceil(this.#target * MARGIN_SHARE));
    this.limit = Math.max(0, Math.min(this.limit, this.#low) - margin);
    this.#swingsSinceMs ??= this.#windowMs;
    this.#retryAtMs = nowMs + this.#retryMs;
    this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MS_MAX);
    this.#turns = 0;
  }
}
