/** What is known of the pages that the host holds of a file, as it is looked at block by block. */
import { afterAll, expect, test } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { Residency } from '../../src/hosting/residency.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { OwnedFd } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';

const BLOCK_PAGES = 4096;
/** More groups than one, and the last one not whole. */
const PAGES = 2500 * BLOCK_PAGES - 96;
const BLOCKS = Math.ceil(PAGES / BLOCK_PAGES);

let fd: OwnedFd | undefined;
afterAll(() => fd?.close());

test('what was not looked at yet is found and counted, whatever was looked at before, in whatever order', () => {
  fd = createMemfd({ name: 'residency', size: PAGES * PAGE_SIZE });
  const file = { fd, fileOffset: 0 };
  const seed = Number(process.env.AEROSTAT_SEED ?? 20_260_701);
  const random = new Random(seed);
  const residency = new Residency(PAGES);
  const seen = new Set<number>();
  const pagesOf = (block: number, start: number, end: number): number =>
    Math.min(end, (block + 1) * BLOCK_PAGES) - Math.max(start, block * BLOCK_PAGES);
  for (let round = 0; round < 60; round++) {
    // Now and then a whole stretch, so that groups become full.
    const first = random.below(BLOCKS);
    const looked = round % 10 === 9 ? random.below(1500) : 1;
    for (let block = first; block < Math.min(BLOCKS, first + looked); block++) {
      residency.look(block, file);
      seen.add(block);
    }
    const start = random.below(PAGES);
    const count = 1 + random.below(PAGES - start);
    let unseen = 0;
    let next: number | undefined;
    for (let block = Math.floor(start / BLOCK_PAGES); block * BLOCK_PAGES < start + count; block++) {
      if (seen.has(block)) continue;
      next ??= block;
      unseen += pagesOf(block, start, start + count);
    }
    expect(residency.unseenIn(start, count), `seed ${seed}`).toBe(unseen);
    expect(residency.nextUnseen(0, start, count)).toBe(next);
    expect(Number.isFinite(residency.oldestMs(start, count))).toBe(next === undefined);
  }
});

test('memory of terabytes is known to be unseen without going through it', () => {
  const time = (residency: Residency): number => {
    let least = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 20; round++) {
      const startedMs = performance.now();
      for (let time = 0; time < 20; time++) residency.unseenIn(0, residency.pageCount);
      least = Math.min(least, performance.now() - startedMs);
    }
    return least;
  };
  // 256 times as much; block by block it would take 256 times as long.
  const ratio = time(new Residency(2 ** 30)) / time(new Residency(2 ** 22));
  expect(ratio).toBeLessThan(100);
});
