/** The clock by which threads of one process compare moments. */

/** Monotonic milliseconds, on a clock that all threads of the process share (performance.now() is not). */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e3 + nanoseconds / 1e6;
}
