import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addressOrOrder } from '../../../src/balloon/formats/address-or-order.ts';
import { pageBitmap } from '../../../src/balloon/formats/page-bitmap.ts';
import { pageChunks } from '../../../src/balloon/formats/page-chunks.ts';
import { pageHeads, pageOrder } from '../../../src/balloon/formats/page-order.ts';
import { pageRange } from '../../../src/balloon/formats/page-range.ts';
import { pfnArray } from '../../../src/balloon/formats/pfn-array.ts';
import { extents, sg } from '../../../src/balloon/formats/sg.ts';
import { PageList, PageListError } from '../../../src/balloon/page-list.ts';
import {
  EncodeCursor,
  type EncodeLimits,
  type PageListFormat,
} from '../../../src/balloon/page-list-format.ts';
import { PFN_LIMIT } from '../../../src/memory/page.ts';
import { PageRanges } from '../../../src/memory/page-ranges.ts';

type Run = readonly [pfn: number, count: number];

/** The smallest lists that each format can make, so that few runs already need many lists. */
const SMALLEST: readonly (readonly [PageListFormat, EncodeLimits])[] = [
  [pfnArray, { bytesMax: 4, extentsMax: 0 }],
  [pageBitmap, { bytesMax: 40, extentsMax: 0 }],
  [pageOrder, { bytesMax: 24, extentsMax: 0 }],
  [pageHeads, { bytesMax: 24, extentsMax: 0 }],
  [pageRange, { bytesMax: 24, extentsMax: 0 }],
  [pageChunks, { bytesMax: 24, extentsMax: 0 }],
  [sg, { bytesMax: 0, extentsMax: 1 }],
  [extents, { bytesMax: 0, extentsMax: 32 }],
  [addressOrOrder, { bytesMax: 8, extentsMax: 0 }],
];

const FORMATS = SMALLEST.map(([format]) => format);

/** Encodes all of `runs`, decodes every list, and checks what the encoder says about itself on the way. */
function throughLists(
  format: PageListFormat,
  runs: readonly Run[],
  limits: EncodeLimits,
  start = 0,
): PageRanges {
  const ranges = PageRanges.of();
  for (const [pfn, count] of runs) ranges.append(pfn, count);
  const result = new PageRanges();
  const cursor = new EncodeCursor();
  const list = new PageList();
  let named = 0;
  while (!cursor.done(ranges)) {
    list.clear();
    list.beginAt(start);
    list.bytes.fill(0xa5);
    const pages = format.encode(ranges, cursor, list, limits);
    expect(pages).toBeGreaterThan(0);
    expect(list.listBytes).toBeLessThanOrEqual(limits.bytesMax);
    expect(list.extentCount).toBeLessThanOrEqual(limits.extentsMax);
    // Out-bufs begin behind the first byte and none is empty.
    const cuts = [...list.cuts.subarray(0, list.cutCount)];
    for (const [index, cut] of cuts.entries()) {
      expect(cut).toBeGreaterThan(index === 0 ? start : cuts[index - 1]);
      expect(cut).toBeLessThan(list.length);
    }
    named += pages;
    format.decode(list, result);
  }
  expect(named).toBe(ranges.pages);
  return result;
}

const asSet = (runs: readonly Run[]): Run[] =>
  PageRanges.of(...runs)
    .normalize()
    .toArray() as Run[];

const scattered = fc.array(fc.tuple(fc.nat(3000), fc.integer({ min: 1, max: 200 })), { maxLength: 60 });
const huge = fc.array(
  fc.tuple(fc.integer({ min: 0, max: 2 ** 32 - 2 ** 20 }), fc.integer({ min: 1, max: 10_000 })),
  { maxLength: 8 },
);

describe.each(SMALLEST.map(([format, limits]) => ({ name: format.name, format, limits })))(
  'the format $name',
  ({ format, limits }) => {
    test.each([
      ['one list where it fits', format.limits, 0],
      ['the smallest lists', limits, 0],
      ['lists behind a request message', limits, 8],
    ] as const)('gives back the pages that it was given, over %s', (_, limits, start) => {
      fc.assert(
        fc.property(fc.oneof(scattered, scattered.map(asSet)), runs => {
          expect(throughLists(format, runs, limits, start).normalize().toArray()).toEqual(asSet(runs));
        }),
        { numRuns: 60 },
      );
    });

    test('gives back pages that lie far apart', () => {
      fc.assert(
        fc.property(huge, runs => {
          expect(throughLists(format, runs, format.limits).normalize().toArray()).toEqual(asSet(runs));
        }),
        { numRuns: 40 },
      );
    });

    test('has a valid list for no pages at all', () => {
      const list = new PageList();
      expect(format.encode(new PageRanges(), new EncodeCursor(), list)).toBe(0);
      const result = new PageRanges();
      format.decode(list, result);
      expect(result.pages).toBe(0);
    });
  },
);

describe('arbitrary bytes', () => {
  const page = { base: fc.nat(2 ** 20), odd: fc.integer({ min: 1, max: 4095 }) };
  const list = fc.record({
    bytes: fc.oneof(
      fc.uint8Array({ maxLength: 256 }),
      // Mostly zeros: the smallest headers, which is where most of what is valid lies.
      fc.array(fc.oneof(fc.constant(0), fc.constant(0), fc.constant(12), fc.nat(255)), { maxLength: 128 }),
    ),
    extents: fc.array(
      fc.tuple(
        fc.oneof(
          page.base.map(pfn => pfn * 4096),
          page.odd,
        ),
        fc.oneof(page.odd, fc.nat(2 ** 32)),
      ),
      { maxLength: 3 },
    ),
    start: fc.constantFrom(0, 8),
  });

  test.each(FORMATS)('give $name pages that can exist, or an error that names the reason', format => {
    fc.assert(
      fc.property(list, ({ bytes, extents, start }) => {
        const list = new PageList();
        list.length = bytes.length;
        list.bytes.set(bytes);
        list.beginAt(start);
        for (const [address, length] of extents) list.addExtent(address, length);
        let calls = 0;
        const sink = {
          add(pfn: number, count: number) {
            calls++;
            expect(Number.isInteger(pfn) && pfn >= 0 && Number.isInteger(count) && count >= 1).toBe(true);
            expect(pfn + count).toBeLessThanOrEqual(PFN_LIMIT);
          },
        };
        try {
          format.decode(list, sink);
        } catch (error) {
          expect(error).toBeInstanceOf(PageListError);
          expect((error as PageListError).code).toBe('AEROSTAT_PAGE_LIST');
          // All of a list is checked before any of it is taken over.
          expect(calls).toBe(0);
        }
        expect(calls).toBeLessThanOrEqual(bytes.length * 8 + extents.length);
      }),
      { numRuns: 1000 },
    );
  });
});
