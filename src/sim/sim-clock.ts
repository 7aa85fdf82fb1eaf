/** Time that passes only when nothing else can happen, so that a simulated hour takes as long as what happens in it. */
import type { Clock } from '../migration/machine.ts';
import { AerostatError } from '../sys/error.ts';

interface Sleeper {
  readonly dueMs: number;
  readonly order: number;
  readonly wake: () => void;
}

/** Lets every promise go on as far as it can. */
const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

export class SimClock implements Clock {
  readonly #sleepers = new Set<Sleeper>();
  #nowMs = 0;
  #order = 0;

  nowMs(): number {
    return this.#nowMs;
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      if (signal?.aborted) {
        resolve();
        return;
      }
      const wake = () => {
        this.#sleepers.delete(sleeper);
        signal?.removeEventListener('abort', wake);
        resolve();
      };
      const sleeper = { dueMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, wake };
      this.#sleepers.add(sleeper);
      signal?.addEventListener('abort', wake);
    });
  }

  /** Calls `act` after some time. */
  later(delayMs: number, act: () => void): void {
    this.sleep(delayMs).then(act);
  }

  /**
   * Lets time pass until `promise` settles, and settles like it.
   * @throws AerostatError AEROSTAT_SIM_STUCK when it waits for what can never happen
   */
  async run<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const watched = promise.finally(() => {
      settled = true;
    });
    watched.catch(() => {});
    for (;;) {
      await settle();
      if (settled) return watched;
      const next = this.#earliest();
      if (next === undefined) {
        throw new AerostatError(
          'AEROSTAT_SIM_STUCK',
          'the simulation waits for what nothing will bring about',
        );
      }
      this.#nowMs = next.dueMs;
      next.wake();
    }
  }

  #earliest(): Sleeper | undefined {
    let first: Sleeper | undefined;
    for (const sleeper of this.#sleepers) {
      const earlier =
        first === undefined ||
        sleeper.dueMs < first.dueMs ||
        (sleeper.dueMs === first.dueMs && sleeper.order < first.order);
      if (earlier) first = sleeper;
    }
    return first;
  }
}
