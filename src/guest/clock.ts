/** The guest's only source of time, so that a simulation decides when it passes. */
export interface Clock {
  /** Milliseconds since some start; never goes back. */
  now(): number;
}

/** Time that passes only when told to. */
export class ManualClock implements Clock {
  #now = 0;

  now(): number {
    return this.#now;
  }

  advance(ms: number): void {
    this.#now += ms;
  }
}
