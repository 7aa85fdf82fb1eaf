/**
 * What an agent does over and over, where NATS may not answer: an attempt that fails is told of, and the next one of its
 * kind is made later and later, so that a thousand hosts do not ask a store that chooses its leader four times a period.
 */
import { BackOff } from './back-off.ts';
import type { Doing, Faults } from './faults.ts';

interface AttemptsOptions {
  readonly faults: Faults;
  readonly minMs: number;
  readonly maxMs: number;
  /** A clock that is never set. */
  readonly now: () => number;
  readonly sleep: (ms: number) => Promise<void>;
}

interface Rest {
  readonly pause: BackOff;
  untilMs: number;
}

export class Attempts {
  readonly #options: AttemptsOptions;
  readonly #rests = new Map<Doing, Rest>();
  #isOver = false;

  constructor(options: AttemptsOptions) {
    this.#options = options;
  }

  /** Makes an attempt, unless one of its kind failed just now. Never rejects. */
  async once(doing: Doing, action: () => Promise<void>): Promise<void> {
    if (this.isResting(doing)) return;
    try {
      await action();
      this.succeeded(doing);
    } catch (error) {
      this.failed(doing, error);
    }
  }

  /** Makes attempts until one succeeds, or {@link end} is called. Never rejects. */
  async until(doing: Doing, action: () => Promise<void>): Promise<void> {
    const { minMs, maxMs, sleep } = this.#options;
    const pause = new BackOff(minMs, maxMs);
    while (!this.#isOver) {
      try {
        await action();
        return this.succeeded(doing);
      } catch (error) {
        this.failed(doing, error);
        await sleep(pause.next());
      }
    }
  }

  isResting(doing: Doing): boolean {
    const rest = this.#rests.get(doing);
    return rest !== undefined && this.#options.now() < rest.untilMs;
  }

  succeeded(doing: Doing): void {
    this.#rests.delete(doing);
    this.#options.faults.end(doing);
  }

  failed(doing: Doing, error: unknown): void {
    if (this.#isOver) return;
    const { minMs, maxMs, now, faults } = this.#options;
    const rest = this.#rests.get(doing) ?? { pause: new BackOff(minMs, maxMs), untilMs: 0 };
    rest.untilMs = now() + rest.pause.next();
    this.#rests.set(doing, rest);
    faults.begin(doing, error instanceof Error ? error.message : String(error));
  }

  /** What stood in the way may be gone: nothing rests any longer. */
  wake(): void {
    this.#rests.clear();
  }

  end(): void {
    this.#isOver = true;
  }
}
