/** How fast a guest writes to its memory: a word into each page, from the first to the last. */

import { WINDOW_BYTES } from '../../memory/backing.ts';
import type { MemoryRegion } from '../../memory/guest-memory.ts';
import { gpaOf, PAGE_SIZE } from '../../memory/page.ts';
import { monotonicMs } from '../../sys/poll.ts';

/** Runs of pages, none over a boundary of windows. */
export type Runs = readonly (readonly [pfn: number, count: number])[];

/** The first pass compiles the loop and faults pages in. */
const PASSES = 5;
const PAGE_WORDS = PAGE_SIZE / 4;

/** Nanoseconds for a page, in the fastest of some passes; NaN of no pages. */
export function writePassNs(region: MemoryRegion, runs: Runs): number {
  const pages = runs.reduce((sum, [, count]) => sum + count, 0);
  let bestMs = Number.POSITIVE_INFINITY;
  for (let pass = 1; pass <= PASSES; pass++) {
    const startedMs = monotonicMs();
    for (const [pfn, count] of runs) writeRun(region, pfn, count, pass);
    bestMs = Math.min(bestMs, monotonicMs() - startedMs);
  }
  return pages === 0 ? Number.NaN : (bestMs * 1e6) / pages;
}

function writeRun(region: MemoryRegion, pfn: number, count: number, value: number): void {
  const offset = gpaOf(pfn) - region.guestAddress;
  const { u32 } = region.windowAt(offset);
  let word = (offset % WINDOW_BYTES) >>> 2;
  for (let page = 0; page < count; page++, word += PAGE_WORDS) u32[word] = value;
}

/** The first `pages` of `runs`. */
export function firstPages(runs: Runs, pages: number): Runs {
  const first: [number, number][] = [];
  let left = pages;
  for (const [pfn, count] of runs) {
    if (left <= 0) break;
    first.push([pfn, Math.min(count, left)]);
    left -= count;
  }
  return first;
}
