/**
 * What a stop takes beside its pages, by the last few times that it was rehearsed or tried. What can be called off is judged by
 * the best of them, for it may go like that again, and what cannot by the worst.
 */

interface Stopped {
  /** From asking the guest to stop until it runs elsewhere. */
  readonly fixedMs: number;
  /** The part of it that cannot be called off: from `go` until it runs. */
  readonly runMs: number;
}

/** A host that was busy once is not held to it for ever. */
const KEPT = 3;
/** Where a destination does not tell what going on takes: as long as it took on two slow cores. */
export const RUN_MS_UNTOLD = 20;

export class StopEstimate {
  readonly #last: Stopped[] = [];

  note(stopped: Stopped): void {
    this.#last.push(stopped);
    if (this.#last.length > KEPT) this.#last.shift();
  }

  /** Undefined while nothing is known. */
  get fixedMs(): number | undefined {
    return this.#last.length === 0 ? undefined : Math.min(...this.#last.map(({ fixedMs }) => fixedMs));
  }

  get runMs(): number {
    return this.#last.length === 0 ? RUN_MS_UNTOLD : Math.max(...this.#last.map(({ runMs }) => runMs));
  }
}
