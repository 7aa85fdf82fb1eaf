/** A list that is decoded in parts, cut wherever a turn may end, names what it names when it is decoded at once. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addressOrOrder } from '../../../src/balloon/formats/address-or-order.ts';
import { pageBitmap } from '../../../src/balloon/formats/page-bitmap.ts';
import { pageChunks } from '../../../src/balloon/formats/page-chunks.ts';
import { pageHeads, pageOrder } from '../../../src/balloon/formats/page-order.ts';
import { pageRange } from '../../../src/balloon/formats/page-range.ts';
import { pfnArray } from '../../../src/balloon/formats/pfn-array.ts';
import { extents, sg } from '../../../src/balloon/formats/sg.ts';
import { PageList } from '../../../src/balloon/page-list.ts';
import { EncodeCursor, type PageListFormat } from '../../../src/balloon/page-list-format.ts';
import { PageRanges } from '../../../src/memory/page-ranges.ts';

const FORMATS: readonly PageListFormat[] = [
  addressOrOrder,
  extents,
  pageBitmap,
  pageChunks,
  pageOrder,
  pageHeads,
  pageRange,
  pfnArray,
  sg,
];
const runs = fc.array(fc.tuple(fc.nat(2000), fc.integer({ min: 1, max: 100 })), {
  minLength: 1,
  maxLength: 40,
});

/** A list of as many of these runs as fit. */
function listOf(format: PageListFormat, pages: readonly (readonly [number, number])[]): PageList {
  const ranges = new PageRanges();
  for (const [pfn, count] of pages) ranges.append(pfn, count);
  const list = new PageList();
  // As long as a list may be, so that several in-bufs are in one, too.
  const limits = { ...format.limits, extentsMax: format.limits.extentsMax * 64 };
  format.encode(ranges, new EncodeCursor(), list, limits);
  return list;
}

describe.each(FORMATS.map(format => [format.name, format] as const))('%s', (_, format) => {
  test('a list that is taken in parts', () => {
    fc.assert(
      fc.property(runs, fc.infiniteStream(fc.nat(5)), (pages, turns) => {
        const list = listOf(format, pages);
        const atOnce: [number, number][] = [];
        format.decode(list, { add: (pfn, count) => atOnce.push([pfn, count]) });

        list.at = 0;
        format.check(list);
        const inParts: [number, number][] = [];
        let left = 0;
        const pace = {
          get over() {
            return left <= 0;
          },
        };
        const sink = {
          add: (pfn: number, count: number) => {
            inParts.push([pfn, count]);
            left--;
          },
        };
        let calls = 0;
        do {
          left = 1 + (turns.next().value as number);
          calls++;
        } while (!format.decodeSome(list, sink, pace));
        expect(inParts).toEqual(atOnce);
        expect(calls).toBeLessThanOrEqual(inParts.length + 1);
        // One that is done stays so.
        expect(format.decodeSome(list, sink, pace)).toBe(true);
        expect(inParts).toHaveLength(atOnce.length);
      }),
    );
  });
});
