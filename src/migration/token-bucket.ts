/**
 * A limit on bytes per second that lets short bursts pass, and makes up for time in which a sender could not send. It
 * knows no clock: the time is an argument.
 */

/** A burst: what a network card would still have queued. */
const BURST_MS = 5;
/**
 * A sender that wakes late, because the host is busy, sends the faster afterwards, up to what it missed in so long. Without
 * this a busy host's migrations stay far below their limit: each wait of a fraction of a millisecond may take ten.
 */
const LATE_MS_MAX = 100;

export class TokenBucket {
  readonly #bytesPerMs: number;
  #bytes: number;
  #atMs: number | undefined;

  /** `bytesPerSecond` may be Infinity. */
  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1e3;
    this.#bytes = this.#bytesPerMs * BURST_MS;
  }

  /** A sender begins to send. Time in which there was nothing to send is not made up for. */
  begin(nowMs: number): void {
    if (this.#unlimited) return;
    this.#pass(nowMs, BURST_MS);
  }

  /**
   * Takes `bytes` at the time `nowMs`, and returns for how many milliseconds to wait before the next are taken. A
   * single taking may be larger than a burst; the ones after it wait the longer.
   */
  spend(bytes: number, nowMs: number): number {
    if (this.#unlimited) return 0;
    this.#pass(nowMs, LATE_MS_MAX);
    this.#bytes -= bytes;
    return this.#bytes >= 0 ? 0 : -this.#bytes / this.#bytesPerMs;
  }

  get #unlimited(): boolean {
    return this.#bytesPerMs === Number.POSITIVE_INFINITY;
  }

  /** Leaves no more than `msMax` have room for. */
  #pass(nowMs: number, msMax: number): void {
    const passedMs = Math.max(0, nowMs - (this.#atMs ?? nowMs));
    this.#atMs = nowMs;
    this.#bytes = Math.min(this.#bytesPerMs * msMax, this.#bytes + passedMs * this.#bytesPerMs);
  }
}
