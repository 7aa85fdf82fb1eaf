/** Those who wait until something is so: each is let go as soon as it is, or told that it will not be. */
import { deferred } from '../sys/deferred.ts';

interface Waiter {
  readonly isMet: () => boolean;
  /** Settles when it is met, or given up. */
  readonly over: Promise<void>;
  readonly resolve: () => void;
  readonly giveUp: (reason: Error) => void;
}

export class Waiters {
  readonly #waiting = new Set<Waiter>();

  get empty(): boolean {
    return this.#waiting.size === 0;
  }

  until(isMet: () => boolean): Waiter {
    const { promise: over, resolve, reject } = deferred();
    const waiter: Waiter = {
      isMet,
      over,
      resolve,
      giveUp: reason => {
        this.#waiting.delete(waiter);
        reject(reason);
      },
    };
    this.#waiting.add(waiter);
    return waiter;
  }

  /** Something changed: lets those go whose wait is over. */
  look(): void {
    for (const waiter of this.#waiting) {
      if (!waiter.isMet()) continue;
      this.#waiting.delete(waiter);
      waiter.resolve();
    }
  }

  /** What they wait for will not be. */
  dismiss(reason: Error): void {
    for (const waiter of this.#waiting) waiter.giveUp(reason);
  }
}
