/** A limit on bytes per second that lets short bursts pass. It knows no clock: the time is an argument. */

/** A burst: what a network card would still have queued. */
const BURST_MS = 5;

export class TokenBucket {
  readonly #bytesPerMs: number;
  readonly #burstBytes: number;
  #bytes: number;
  #atMs: number | undefined;

  /** `bytesPerSecond` may be Infinity. */
  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1e3;
    this.#burstBytes = this.#bytesPerMs * BURST_MS;
    this.#bytes = this.#burstBytes;
  }

  /**
   * Takes `bytes` at the time `nowMs`, and returns for how many milliseconds to wait before the next are taken. A
   * single taking may be larger than a burst; the ones after it wait the longer.
   */
  take(bytes: number, nowMs: number): number {
    if (this.#bytesPerMs === Number.POSITIVE_INFINITY) return 0;
    const passedMs = Math.max(0, nowMs - (this.#atMs ?? nowMs));
    this.#atMs = nowMs;
    this.#bytes = Math.min(this.#burstBytes, this.#bytes + passedMs * this.#bytesPerMs) - bytes;
    return this.#bytes >= 0 ? 0 : -this.#bytes / this.#bytesPerMs;
  }
}
