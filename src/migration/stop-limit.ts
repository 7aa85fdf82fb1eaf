/**
 * The limit of a stop under way. Until the guest is let go, a stop that takes too long is called off: nothing is lost by it,
 * for the source has everything. The time ends early by as much as what cannot be called off any more is expected to take.
 */
import { MigrationError } from './errors.ts';
import type { Clock } from './machine.ts';

/** A stop would take longer than it may. The guest is to go on where it is. */
export class StopOverrun extends MigrationError {
  constructor() {
    super('the guest would have stood still for longer than it may');
  }
}

export class StopLimit {
  readonly #clock: Clock;
  readonly #endMs: number;
  readonly #over = new AbortController();
  readonly #ended = new AbortController();

  /** Of a stop that has to be through with what can be called off at `endMs`. */
  constructor(clock: Clock, endMs: number) {
    this.#clock = clock;
    this.#endMs = endMs;
    void this.#watch();
  }

  /** Aborted, with {@link StopOverrun}, when the time is over. */
  get signal(): AbortSignal {
    return this.#over.signal;
  }

  /** @throws StopOverrun when the time is over, though no timer may have had its turn yet */
  check(): void {
    if (this.#clock.nowMs() > this.#endMs) this.#overrun();
    this.#over.signal.throwIfAborted();
  }

  /** Settles as `act` does, or rejects when the time is over; `act` goes on then. */
  async within<T>(act: Promise<T>): Promise<T> {
    act.catch(() => {});
    this.check();
    const { signal } = this;
    let stop = () => {};
    const over = new Promise<never>((_, reject) => {
      stop = () => reject(signal.reason);
      signal.addEventListener('abort', stop);
    });
    try {
      return await Promise.race([act, over]);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  /** Idempotent. */
  end(): void {
    this.#ended.abort();
  }

  async #watch(): Promise<void> {
    await this.#clock.sleep(Math.max(0, this.#endMs - this.#clock.nowMs()), this.#ended.signal);
    if (!this.#ended.signal.aborted) this.#overrun();
  }

  #overrun(): void {
    if (!this.#over.signal.aborted) this.#over.abort(new StopOverrun());
  }
}
