/**
 * Huge pages of the host for tests of hugetlb memory. The pool is empty on most machines; a test that runs as root
 * raises it by what it needs and puts it back, any other is skipped and says why. One test file at a time has them:
 * memory whose pool shrinks under it ends the process that touches it.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const HUGE_PAGE_SIZE = 2 ** 21;

const POOL = `/sys/kernel/mm/hugepages/hugepages-${HUGE_PAGE_SIZE / 1024}kB`;
const LOCK = join(tmpdir(), 'aerostat-huge-pages.lock');
const RETRY_MS = 20;

const read = (name: string): number => Number(readFileSync(`${POOL}/${name}`, 'latin1'));

export interface HugePages {
  /** Why there are none; undefined when there are as many as were asked for. */
  readonly missing: string | undefined;
  /** Puts the pool back to its size, and lets the next test file have it. */
  release(): void;
}

/** Huge pages that are free: a daemon lets go of a guest's memory some time after the guest has left. */
export const freeHugePages = (): number => read('free_hugepages');

/** Sees to it that `count` huge pages of 2 MiB are free. */
export function reserveHugePages(count: number): HugePages {
  lock();
  let before: number | undefined;
  const release = (): void => {
    if (before !== undefined) writeFileSync(`${POOL}/nr_hugepages`, String(before));
    before = undefined;
    rmSync(LOCK, { force: true });
  };
  const none = (missing: string): HugePages => {
    release();
    console.warn(`Skipped: tests of huge pages. ${missing}`);
    return { missing, release: () => {} };
  };
  try {
    const free = read('free_hugepages');
    if (free < count) {
      const size = read('nr_hugepages');
      writeFileSync(`${POOL}/nr_hugepages`, String(size + count - free));
      before = size;
    }
    if (read('free_hugepages') >= count) return { missing: undefined, release };
    return none(`The host found no ${count} free huge pages.`);
  } catch (error) {
    return none(`The pool of the host cannot be raised: ${(error as Error).message}`);
  }
}

function lock(): void {
  for (;;) {
    try {
      writeFileSync(LOCK, String(process.pid), { flag: 'wx' });
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    if (isLeftOver()) rmSync(LOCK, { force: true });
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
  }
}

/** Whether the process that made the lock is gone, and will not take it away. */
function isLeftOver(): boolean {
  try {
    const owner = readFileSync(LOCK, 'latin1');
    return owner !== '' && !existsSync(`/proc/${owner}`);
  } catch {
    return false;
  }
}
