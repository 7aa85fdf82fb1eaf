/**
 * Page orders (v5, November 2016): after the response header one 64-bit head a block of the buddy allocator, or
 * a head and a 64-bit bitmap for single pages that lie close together.
 */
import { PAGE_SHIFT, type PageSink } from '../../memory/page.ts';
import type { PageRanges } from '../../memory/page-ranges.ts';
import { assert } from '../../sys/error.ts';
import { type PageList, PageListError } from '../page-list.ts';
import {
  checkRun,
  type DecodePace,
  type EncodeCursor,
  type EncodeLimits,
  type PageListFormat,
  pagesPerShift,
  validateThenEmit,
} from '../page-list-format.ts';
import { alignedOrder, blocksIn, ENTRY_BYTES } from './blocks.ts';
import { checkResponse, finishResponse, RESPONSE_HEADER_BYTES } from './response-header.ts';

// A head, least significant bit first: 52 bits of page frame, 6 of page shift, 6 of the length of the bitmap.
const PFN_HIGH_BITS = 20;
const SHIFT_MASK = 0x3f;
const BITMAP_BYTES_AT = 26;

const BITMAP_BYTES = 8;
const BITMAP_PAGES = 64;
const DATA_BYTES_MAX = 32_768;

function putHead(list: PageList, at: number, pfn: number, shift: number, bitmapBytes: number): void {
  list.u32[at / 4] = pfn % 2 ** 32;
  list.u32[at / 4 + 1] =
    Math.floor(pfn / 2 ** 32) | (shift << PFN_HIGH_BITS) | (bitmapBytes << BITMAP_BYTES_AT);
}

/**
 * How many runs from the cursor on go into one bitmap of 64 pages, or 0 where plain heads are no longer: a
 * bitmap costs two entries.
 */
function runsInBitmap(ranges: PageRanges, cursor: EncodeCursor): number {
  const low = cursor.pfn(ranges);
  if (cursor.left(ranges) > BITMAP_PAGES) return 0;
  let heads = blocksIn(low, cursor.left(ranges), BITMAP_PAGES);
  let run = cursor.run + 1;
  for (; run < ranges.length; run++) {
    const start = ranges.start(run);
    const count = ranges.count(run);
    if (start < low || start + count > low + BITMAP_PAGES) break;
    heads += blocksIn(start, count, BITMAP_PAGES);
  }
  return heads * ENTRY_BYTES > ENTRY_BYTES + BITMAP_BYTES ? run - cursor.run : 0;
}

const LIMITS: EncodeLimits = { bytesMax: RESPONSE_HEADER_BYTES + DATA_BYTES_MAX, extentsMax: 0 };

const KNOWN_BUG =
  '; the posted driver (v5, 11/2016) is known to leave there what an earlier list had, where plain heads should be';

function encodeOrders(
  ranges: PageRanges,
  cursor: EncodeCursor,
  list: PageList,
  limits: EncodeLimits,
  hasBitmaps: boolean,
): number {
  assert(
    limits.bytesMax >= RESPONSE_HEADER_BYTES + ENTRY_BYTES + BITMAP_BYTES,
    `page orders of ${limits.bytesMax} bytes`,
  );
  list.reserve(list.start + limits.bytesMax);
  const end = list.start + limits.bytesMax;
  let at = list.start + RESPONSE_HEADER_BYTES;
  let pages = 0;
  while (!cursor.done(ranges) && at + ENTRY_BYTES <= end) {
    const pfn = cursor.pfn(ranges);
    checkRun(pfn, cursor.left(ranges));
    const runs = hasBitmaps ? runsInBitmap(ranges, cursor) : 0;
    if (runs === 0) {
      const order = alignedOrder(pfn, cursor.left(ranges));
      putHead(list, at, pfn, PAGE_SHIFT + order, 0);
      at += ENTRY_BYTES;
      cursor.advance(ranges, 2 ** order);
      pages += 2 ** order;
      continue;
    }
    if (at + ENTRY_BYTES + BITMAP_BYTES > end) break;
    putHead(list, at, pfn, PAGE_SHIFT, BITMAP_BYTES);
    at += ENTRY_BYTES;
    const word = at / 4;
    list.u32[word] = 0;
    list.u32[word + 1] = 0;
    for (let left = runs; left > 0; left--) {
      const from = cursor.pfn(ranges) - pfn;
      const count = cursor.left(ranges);
      for (let bit = from; bit < from + count; bit++) list.u32[word + (bit >>> 5)] |= 1 << (bit & 31);
      cursor.advance(ranges, count);
      pages += count;
    }
    at += BITMAP_BYTES;
  }
  finishResponse(list, at);
  return pages;
}

function scanOrders(list: PageList, sink: PageSink, pace: DecodePace, hasBitmaps: boolean): boolean {
  checkResponse(list);
  const { u32 } = list;
  const end = list.length / 4;
  for (let at = list.at || (list.start + RESPONSE_HEADER_BYTES) / 4; at < end; at += 2) {
    if (pace.over) {
      list.at = at;
      return false;
    }
    const high = u32[at + 1];
    const pfn = (high % 2 ** PFN_HIGH_BITS) * 2 ** 32 + u32[at];
    const pages = pagesPerShift((high >>> PFN_HIGH_BITS) & SHIFT_MASK);
    const bitmapBytes = high >>> BITMAP_BYTES_AT;
    if (bitmapBytes === 0) {
      checkRun(pfn, pages);
      sink.add(pfn, pages);
      continue;
    }
    if (!hasBitmaps) {
      throw new PageListError('bitmap-length', `a bitmap of ${bitmapBytes} bytes in an answer${KNOWN_BUG}`);
    }
    if (bitmapBytes !== BITMAP_BYTES) {
      throw new PageListError(
        'bitmap-length',
        `a bitmap of ${bitmapBytes} bytes behind a head; 8 is possible`,
      );
    }
    at += 2;
    if (at === end) throw new PageListError('truncated', 'the bitmap of the last head is missing');
    scanBitmap(u32, at, pfn, pages, sink);
  }
  list.at = end;
  return true;
}

const orders = (name: string, hasBitmaps: boolean): PageListFormat => ({
  name,
  growsWith: 'runs',
  limits: LIMITS,
  encode: (ranges, cursor, list, limits = LIMITS) => encodeOrders(ranges, cursor, list, limits, hasBitmaps),
  ...validateThenEmit((list, sink, pace) => scanOrders(list, sink, pace, hasBitmaps)),
});

export const pageOrder = orders('page-order', true);

/**
 * Of unused pages: heads alone, as v5's driver writes them. It does not set the bits of the bitmap's length, which are then
 * those of a list that lay there before: the next head would be read as a bitmap, and pages that are in use be skipped.
 */
export const pageHeads = orders('page-heads', false);

function scanBitmap(u32: Uint32Array, at: number, pfn: number, pages: number, sink: PageSink): void {
  let open = -1;
  for (let bit = 0; bit <= BITMAP_PAGES; bit++) {
    const isSet = bit < BITMAP_PAGES && (u32[at + (bit >>> 5)] & (1 << (bit & 31))) !== 0;
    if (isSet === open >= 0) continue;
    if (isSet) {
      open = bit;
    } else {
      checkRun(pfn + open * pages, (bit - open) * pages);
      sink.add(pfn + open * pages, (bit - open) * pages);
      open = -1;
    }
  }
}
