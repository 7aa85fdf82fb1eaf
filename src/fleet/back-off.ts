/** How long to wait before what failed is tried again: longer and longer, and not all hosts at the same moment. */
export class BackOff {
  readonly #minMs: number;
  readonly #maxMs: number;
  #ms: number;

  constructor(minMs: number, maxMs: number) {
    this.#minMs = minMs;
    this.#maxMs = maxMs;
    this.#ms = minMs;
  }

  next(): number {
    const ms = this.#ms * (0.5 + Math.random() / 2);
    this.#ms = Math.min(this.#maxMs, this.#ms * 2);
    return ms;
  }

  reset(): void {
    this.#ms = this.#minMs;
  }
}
