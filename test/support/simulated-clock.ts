import { vi } from 'vitest';

/**
 * The clocks of the process, which go on only where a test says so: what is measured by them is the same on a machine that
 * is busy. Undone by vi.restoreAllMocks.
 */
export function simulatedClock() {
  let nowMs = performance.now();
  vi.spyOn(performance, 'now').mockImplementation(() => nowMs);
  vi.spyOn(process, 'hrtime').mockImplementation((() => [
    Math.floor(nowMs / 1000),
    Math.round((nowMs % 1000) * 1e6),
  ]) as unknown as typeof process.hrtime);
  return {
    get nowMs(): number {
      return nowMs;
    },
    pass: (ms: number): void => {
      nowMs += ms;
    },
  };
}
