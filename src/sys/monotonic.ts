/** The clock by which threads of one process compare moments. */

/** A clock as an argument, so that a simulation can have time of its own. */
export interface MonotonicClock {
  /** Milliseconds since some moment; it never goes back. */
  nowMs(): number;
  /** Writes the same to `into[at]`: a number that is returned may be a new object each time. */
  write(into: Float64Array, at: number): void;
}

/** Monotonic milliseconds, on a clock that all threads of the process share (performance.now() is not). */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e3 + nanoseconds / 1e6;
}

/** {@link monotonicMs}'s clock. */
export const processClock: MonotonicClock = {
  nowMs: monotonicMs,
  write(into, at) {
    const [seconds, nanoseconds] = process.hrtime();
    into[at] = seconds * 1e3 + nanoseconds / 1e6;
  },
};
