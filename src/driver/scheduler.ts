/**
 * How the driver lets time pass: a clock, and a way of being called later. A thread's reactor is one, a simulation
 * has one that stands still until it is told to go on.
 */
import type { Timer } from '../sys/poll.ts';

export interface Scheduler {
  /** Milliseconds since some start; never goes back. */
  now(): number;
  /** Calls `run` once, no earlier than `delayMs` from now and never before `schedule` has returned. */
  schedule(delayMs: number, run: () => void): Timer;
}

/** What a reactor and the clock of its process make together. */
export const schedulerOf = (
  reactor: { schedule(delayMs: number, run: () => void): Timer },
  now: () => number,
): Scheduler => ({ now, schedule: (delayMs, run) => reactor.schedule(delayMs, run) });

interface Appointment {
  readonly dueMs: number;
  readonly run: () => void;
}

/** Time that passes only when told to. A guest kernel can have it for its clock. */
export class ManualScheduler implements Scheduler {
  readonly #appointments: Appointment[] = [];
  #now = 0;

  now(): number {
    return this.#now;
  }

  schedule(delayMs: number, run: () => void): Timer {
    const appointment: Appointment = { dueMs: this.now() + delayMs, run };
    this.#appointments.push(appointment);
    return { cancel: () => this.#remove(appointment) };
  }

  /** When the next call is due, or undefined when there is none. */
  get nextDueMs(): number | undefined {
    return this.#earliest()?.dueMs;
  }

  /** Makes the calls that are due, in order of their time; those that they add for now included. */
  runDue(): void {
    for (
      let next = this.#earliest();
      next !== undefined && next.dueMs <= this.now();
      next = this.#earliest()
    ) {
      this.#remove(next);
      next.run();
    }
  }

  /** Lets `ms` pass, and makes every call at its own time. */
  advance(ms: number): void {
    const end = this.now() + ms;
    this.runDue();
    for (let next = this.#earliest(); next !== undefined && next.dueMs <= end; next = this.#earliest()) {
      this.#now = Math.max(this.#now, next.dueMs);
      this.runDue();
    }
    this.#now = Math.max(this.#now, end);
  }

  #earliest(): Appointment | undefined {
    // The first of those that are due at the same time was made first.
    return this.#appointments.reduce<Appointment | undefined>(
      (best, one) => (best === undefined || one.dueMs < best.dueMs ? one : best),
      undefined,
    );
  }

  #remove(appointment: Appointment): void {
    const at = this.#appointments.indexOf(appointment);
    if (at >= 0) this.#appointments.splice(at, 1);
  }
}
