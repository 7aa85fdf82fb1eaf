/** The guest's only source of time, so that a simulation decides when it passes. */
export interface GuestClock {
  /** Milliseconds since some start; never goes back. */
  now(): number;
}

/** Time that passes only when told to. */
export class ManualClock implements GuestClock {
  #now = 0;

  now(): number {
    return this.#now;
  }

  advance(ms: number): void {
    this.#now += ms;
  }
}
