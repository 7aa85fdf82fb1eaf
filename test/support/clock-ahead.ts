import { vi } from 'vitest';

/** The clock of the process, which goes on by itself, and further where a test says so. Undone by vi.restoreAllMocks. */
export function clockAhead() {
  let aheadMs = 0;
  const real = process.hrtime;
  vi.spyOn(process, 'hrtime').mockImplementation(((time?: [number, number]) => {
    const [seconds, nanoseconds] = real(time);
    return [seconds + Math.floor(aheadMs / 1000), nanoseconds];
  }) as typeof process.hrtime);
  return {
    pass: (ms: number) => {
      aheadMs += ms;
    },
  };
}
