/**
 * Times how a guest follows a change of target: from the change to the guest's own completion, and from there
 * until the host has its memory.
 */

import type { TargetProgress } from '../control/contract.ts';
import { monotonicMs } from '../sys/poll.ts';

export class TargetTimer {
  readonly #isThere: (actual: number, target: number) => boolean;
  #target = 0;
  #startedMs: number | null = null;
  #reachedMs: number | null = null;
  #drainedMs: number | null = null;

  /** `isThere` says whether a balloon counts as at a target (judgement.ts), in the unit of both. */
  constructor(isThere: (actual: number, target: number) => boolean) {
    this.#isThere = isThere;
  }

  /** The target changed to `target` at `startedMs`; the guest's balloon holds `actual` now. */
  set(target: number, actual: number, startedMs = monotonicMs()): void {
    this.#target = target;
    this.#startedMs = startedMs;
    this.#reachedMs = null;
    this.#drainedMs = null;
    this.actual(actual);
  }

  /** The guest's balloon holds `actual`. Whether that is the target, for the first time since it was set. */
  actual(actual: number): boolean {
    if (this.#startedMs === null || this.#reachedMs !== null) return false;
    if (!this.#isThere(actual, this.#target)) return false;
    this.#reachedMs = monotonicMs();
    return true;
  }

  /** Nothing is pending; the last discard ended at `lastMs`. */
  drained(lastMs: number): void {
    if (this.#reachedMs === null || this.#drainedMs !== null) return;
    this.#drainedMs = Math.max(this.#reachedMs, lastMs);
  }

  /** The guest is gone. */
  forget(): void {
    this.#startedMs = null;
  }

  get progress(): TargetProgress | null {
    const started = this.#startedMs;
    if (started === null) return null;
    return {
      reachedMs: this.#reachedMs === null ? null : this.#reachedMs - started,
      drainedMs: this.#drainedMs === null ? null : this.#drainedMs - started,
    };
  }
}
