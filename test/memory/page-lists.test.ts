/** Lists of runs and sets of pages, against plain sets. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PageRanges } from '../../src/memory/page-ranges.ts';
import { PageSet } from '../../src/memory/page-set.ts';

const GIB_PAGES = 2 ** 18;

const runs = (origin: number) =>
  fc.array(
    fc.tuple(
      fc.nat(400).map(at => origin + at),
      fc.integer({ min: 1, max: 80 }),
    ),
    { maxLength: 30 },
  );

const pagesOf = (list: readonly (readonly [number, number])[]): number[] =>
  list.flatMap(([pfn, count]) => Array.from({ length: count }, (_, index) => pfn + index));

describe('a list of runs', () => {
  test('joins a run to the one before it where they touch, on either side', () => {
    expect(PageRanges.of([10, 2], [12, 3]).toArray()).toEqual([[10, 5]]);
    expect(PageRanges.of([10, 2], [8, 2]).toArray()).toEqual([[8, 4]]);
    expect(PageRanges.of([10, 2], [13, 1]).toArray()).toEqual([
      [10, 2],
      [13, 1],
    ]);
  });

  test('keeps runs apart that are appended', () => {
    const ranges = new PageRanges();
    ranges.append(1, 1);
    ranges.append(2, 1);
    expect([ranges.length, ranges.pages]).toEqual([2, 2]);
    expect([ranges.start(1), ranges.count(1)]).toEqual([2, 1]);
  });

  test('names the pages that were added', () => {
    fc.assert(
      fc.property(runs(0), list => {
        const ranges = new PageRanges();
        for (const [pfn, count] of list) ranges.add(pfn, count);
        const sorted = (pages: number[]) => pages.sort((a, b) => a - b);
        expect(sorted(pagesOf(ranges.toArray()))).toEqual(sorted(pagesOf(list)));
        expect(ranges.pages).toBe(pagesOf(list).length);
        const visited: (readonly [number, number])[] = [];
        ranges.forEach((pfn, count) => {
          visited.push([pfn, count]);
        });
        expect(visited).toEqual(ranges.toArray());
        ranges.clear();
        expect([ranges.length, ranges.pages]).toEqual([0, 0]);
      }),
    );
  });

  test('is sorted, maximal and without doubles once it is normal', () => {
    fc.assert(
      fc.property(runs(0), list => {
        const ranges = PageRanges.of(...list).normalize();
        const expected = [...new Set(pagesOf(list))].sort((a, b) => a - b);
        const normal = ranges.toArray();
        expect(pagesOf(normal)).toEqual(expected);
        expect(ranges.pages).toBe(expected.length);
        normal.slice(1).forEach(([pfn], index) => {
          expect(pfn).toBeGreaterThan(normal[index][0] + normal[index][1]);
        });
      }),
    );
  });
});

test('a list of runs grows as it must', () => {
  const ranges = new PageRanges();
  for (let run = 0; run < 5000; run++) ranges.add(run * 3, 2);
  expect([ranges.length, ranges.pages]).toEqual([5000, 10_000]);
  expect([ranges.start(4999), ranges.count(4999)]).toEqual([14_997, 2]);
});

describe('a set of pages', () => {
  test('is a set, also across the bitmaps that it is made of', () => {
    const limit = GIB_PAGES + 300;
    const step = fc.record({ add: fc.boolean(), list: runs(GIB_PAGES - 200) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 10 }), steps => {
        const set = new PageSet(limit);
        const model = new Set<number>();
        for (const { add, list } of steps) {
          for (const [pfn, count] of list) {
            if (add) set.add(pfn, count);
            else set.delete(pfn, count);
          }
          for (const pfn of pagesOf(list)) {
            if (add && pfn < limit) model.add(pfn);
            else model.delete(pfn);
          }
        }
        expect(set.pages).toBe(model.size);
        const visited: [number, number][] = [];
        set.forEachRun((pfn, count) => visited.push([pfn, count]));
        expect(pagesOf(visited)).toEqual([...model].sort((a, b) => a - b));
        for (let pfn = GIB_PAGES - 210; pfn < GIB_PAGES + 310; pfn++)
          expect(set.has(pfn)).toBe(model.has(pfn));
      }),
    );
  });

  test('takes no page from its limit on, and forgets all when it is cleared', () => {
    const set = new PageSet(100);
    set.add(90, 2 ** 40);
    expect(set.pages).toBe(10);
    set.delete(95, 2 ** 40);
    expect(set.pages).toBe(5);
    set.clear();
    expect(set.pages).toBe(0);
    expect(set.has(90)).toBe(false);
    set.delete(0, 50);
    expect(set.pages).toBe(0);
  });

  test('visits runs in rising order of pages, whatever order they came in', () => {
    const set = new PageSet(2 ** 41);
    const far = [7 * GIB_PAGES, 2 ** 40, 3, GIB_PAGES];
    for (const pfn of far) set.add(pfn, 1);
    expect([...set.chunks.keys()].sort((a, b) => a - b)).toEqual([0, 1, 7, 2 ** 22]);
    const visited: number[] = [];
    set.forEachRun(pfn => visited.push(pfn));
    expect(visited).toEqual([...far].sort((a, b) => a - b));
  });
});

test('a set keeps whole gigabytes as such, each set its own, until a page of one is taken out', () => {
  const GIB_PAGES = 2 ** 18;
  const [set, other] = [new PageSet(2 ** 32), new PageSet(2 ** 32)];
  const residentBefore = process.memoryUsage.rss();
  // 12 TiB: 384 MiB of bits.
  set.add(0, 12 * 1024 * GIB_PAGES);
  set.add(3, 5);
  expect(set.pages).toBe(12 * 1024 * GIB_PAGES);
  expect(process.memoryUsage.rss() - residentBefore).toBeLessThan(64 * 2 ** 20);
  other.add(GIB_PAGES, GIB_PAGES);
  set.delete(GIB_PAGES + 7, 1);
  set.add(5 * GIB_PAGES, GIB_PAGES);
  expect(set.pages).toBe(12 * 1024 * GIB_PAGES - 1);
  expect([set.has(GIB_PAGES + 7), set.has(GIB_PAGES + 8), other.has(GIB_PAGES + 7)]).toEqual([
    false,
    true,
    true,
  ]);
  set.add(GIB_PAGES, GIB_PAGES);
  expect(set.pages).toBe(12 * 1024 * GIB_PAGES);
  set.delete(0, 12 * 1024 * GIB_PAGES);
  expect([set.pages, other.pages]).toEqual([0, GIB_PAGES]);
});
