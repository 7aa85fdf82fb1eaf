/** The processor time of the calling thread: what an input costs, however much else the machine has to do. */
import { check, optionalFunction } from '../../src/sys/libc.ts';
import { Arena } from '../../src/sys/mapping.ts';

/** clock_gettime(2). */
const CLOCK_THREAD_CPUTIME_ID = 3;

const gettime = optionalFunction('int clock_gettime(int clock, intptr_t time)');
const scratch = new Arena(16);

/** Milliseconds so far; those of the wall where the C library does not tell. */
export function threadCpuMs(): number {
  if (gettime === undefined) return performance.now();
  check('clock_gettime', gettime(CLOCK_THREAD_CPUTIME_ID, scratch.address));
  const seconds = Number(scratch.view.getBigInt64(0, true));
  return seconds * 1e3 + Number(scratch.view.getBigInt64(8, true)) / 1e6;
}
