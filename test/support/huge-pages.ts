/**
 * Huge pages of the host for tests of hugetlb memory. The pool is empty on most machines; a test that runs as root
 * raises it by what it needs and puts it back, any other is skipped and says why.
 */
import { readFileSync, writeFileSync } from 'node:fs';

export const HUGE_PAGE_SIZE = 2 ** 21;

const POOL = `/sys/kernel/mm/hugepages/hugepages-${HUGE_PAGE_SIZE / 1024}kB`;

const read = (name: string): number => Number(readFileSync(`${POOL}/${name}`, 'latin1'));

export interface HugePages {
  /** Why there are none; undefined when there are as many as were asked for. */
  readonly missing: string | undefined;
  /** Puts the pool back to its size. */
  release(): void;
}

/** Sees to it that `count` huge pages of 2 MiB are free. */
export function reserveHugePages(count: number): HugePages {
  let before = 0;
  const release = (): void => writeFileSync(`${POOL}/nr_hugepages`, String(before));
  const none = (missing: string): HugePages => {
    console.warn(`Skipped: tests of huge pages. ${missing}`);
    return { missing, release: () => {} };
  };
  try {
    before = read('nr_hugepages');
    const free = read('free_hugepages');
    if (free >= count) return { missing: undefined, release: () => {} };
    writeFileSync(`${POOL}/nr_hugepages`, String(before + count - free));
    if (read('free_hugepages') >= count) return { missing: undefined, release };
    release();
    return none(`The host found no ${count} free huge pages.`);
  } catch (error) {
    return none(`The pool of the host cannot be raised: ${(error as Error).message}`);
  }
}
