/**
 * Liang Li's page bitmaps (v3, October 2016): a header, then one bit a page from `startPfn` on, in out-bufs of
 * 32 KiB. Densest where free pages are neighbours but not contiguous; a far-away page costs the whole gap.
 */
import { PAGE_SHIFT, type PageSink, PFN_LIMIT } from '../../memory/page.ts';
import { maskOf } from '../../memory/page-bitmap.ts';
import type { PageRanges } from '../../memory/page-ranges.ts';
import { assert } from '../../sys/error.ts';
import { readU64, struct, writeU64 } from '../../sys/struct.ts';
import { type PageList, PageListError } from '../page-list.ts';
import {
  type DecodePace,
  decoding,
  type EncodeCursor,
  type EncodeLimits,
  type PageListFormat,
  pagesPerShift,
} from '../page-list-format.ts';

export const BITMAP_HEADER = struct('page_bitmap_header', 32, {
  /** Command, flag and request id answer a request (request-messages.ts); 0 on inflate and deflate. */
  command: ['u16', 0],
  pageShift: ['u16', 2],
  flag: ['u16', 4],
  requestId: ['u64', 8],
  startPfn: ['u64', 16],
  /** Bytes over all bitmap buffers. */
  bitmapBytes: ['u64', 24],
});

const { offset: AT, size: HEADER_BYTES } = BITMAP_HEADER;
const BITMAPS_MAX = 32;
const BITMAP_BUFFER_BYTES = 32_768;
/** Bitmaps grow by the 64-bit words of the guests that sent them. */
const BITMAP_UNIT_BYTES = 8;
const WORD_BITS = 32;

/**
 * The widest gap between two runs of one list. Zeros up to a whole buffer are cheaper than another round trip
 * to the device; beyond that a list of its own is.
 */
const GAP_PAGES_MAX = BITMAP_BUFFER_BYTES * 8;

interface Window {
  readonly low: number;
  readonly high: number;
  readonly runs: number;
}

/** How many runs from the cursor on fit one bitmap of `capacity` pages, and the page frames that it spans. */
function windowOf(ranges: PageRanges, cursor: EncodeCursor, capacity: number): Window {
  let low = cursor.pfn(ranges);
  let high = low + Math.min(cursor.left(ranges), capacity);
  let run = cursor.run + 1;
  for (; run < ranges.length; run++) {
    const start = ranges.start(run);
    const end = start + ranges.count(run);
    if (start > high + GAP_PAGES_MAX || end < low - GAP_PAGES_MAX) break;
    if (Math.max(end, high) - Math.min(start, low) > capacity) {
      if (start < low || start >= low + capacity) break;
      // Only its end keeps this run out: it is cut where the bitmap ends.
      return { low, high: low + capacity, runs: run + 1 - cursor.run };
    }
    low = Math.min(low, start);
    high = Math.max(high, end);
  }
  return { low, high, runs: run - cursor.run };
}

const NO_WINDOW: Window = { low: 0, high: 0, runs: 0 };

const LIMITS: EncodeLimits = { bytesMax: HEADER_BYTES + BITMAPS_MAX * BITMAP_BUFFER_BYTES, extentsMax: 0 };

export const pageBitmap: PageListFormat = {
  name: 'page-bitmap',
  growsWith: 'span',
  limits: LIMITS,

  encode(ranges: PageRanges, cursor: EncodeCursor, list: PageList, limits: EncodeLimits = LIMITS): number {
    const unitsMax = Math.floor((limits.bytesMax - HEADER_BYTES) / BITMAP_UNIT_BYTES);
    assert(unitsMax > 0, `a page bitmap of ${limits.bytesMax} bytes`);
    const capacity = unitsMax * BITMAP_UNIT_BYTES * 8;
    const { low, high, runs } = cursor.done(ranges) ? NO_WINDOW : windowOf(ranges, cursor, capacity);
    const bitmapBytes = Math.ceil((high - low) / (8 * BITMAP_UNIT_BYTES)) * BITMAP_UNIT_BYTES;

    const { start } = list;
    const bitmapAt = start + HEADER_BYTES;
    list.reserve(bitmapAt + bitmapBytes);
    list.length = bitmapAt + bitmapBytes;
    list.bytes.fill(0, start, list.length);
    list.view.setUint16(start + AT.pageShift, PAGE_SHIFT, true);
    writeU64(list.view, start + AT.startPfn, low);
    writeU64(list.view, start + AT.bitmapBytes, bitmapBytes);
    let pages = 0;
    for (let left = runs; left > 0; left--) {
      const from = cursor.pfn(ranges) - low;
      const count = Math.min(cursor.left(ranges), high - low - from);
      setBits(list.u32, bitmapAt / 4, from, from + count);
      cursor.advance(ranges, count);
      pages += count;
    }
    list.cutCount = 0;
    for (let at = bitmapAt; at < list.length; at += BITMAP_BUFFER_BYTES) list.cutAt(at);
    return pages;
  },

  ...decoding(
    list => {
      namedBits(list);
    },
    (list, sink, pace) => {
      const { start, view, u32 } = list;
      const bits = namedBits(list);
      const header = (start + HEADER_BYTES) / 4;
      const unit = pagesPerShift(view.getUint16(start + AT.pageShift, true));
      return emitRuns(u32, header, bits, readU64(view, start + AT.startPfn), unit, list, sink, pace);
    },
  ),
};

/**
 * Bits of the bitmap up to the last that is set.
 * @throws PageListError
 */
function namedBits(list: PageList): number {
  const { start, view, listBytes } = list;
  if (list.extentCount > 0) throw new PageListError('direction', 'in-bufs beside a page bitmap');
  if (listBytes < HEADER_BYTES) throw new PageListError('truncated', `a bitmap header of ${listBytes} bytes`);
  const unit = pagesPerShift(view.getUint16(start + AT.pageShift, true));
  const startPfn = readU64(view, start + AT.startPfn);
  const bitmapBytes = readU64(view, start + AT.bitmapBytes);
  const present = listBytes - HEADER_BYTES;
  if (bitmapBytes !== present) {
    throw new PageListError(
      bitmapBytes > present ? 'truncated' : 'surplus',
      `${present} bytes of bitmap where the header says ${bitmapBytes}${
        present === 0 && bitmapBytes < BITMAP_BUFFER_BYTES
          ? '; the posted driver (v3, 10/2016) is known to send its header alone where its pages lie within 1 GiB'
          : ''
      }`,
    );
  }
  const words = (start + HEADER_BYTES) / 4;
  const bits = trimmedBits(list, words, bitmapBytes * 8);
  // Trailing zeros name nothing, so only the last page that is named has to exist.
  if (bits > 0 && !(startPfn + bits * unit <= PFN_LIMIT)) {
    throw new PageListError('range', `${bits} pages of ${unit} frames at page frame ${startPfn}`);
  }
  return bits;
}

function setBits(u32: Uint32Array, words: number, from: number, to: number): void {
  const last = (to - 1) >>> 5;
  for (let word = from >>> 5; word <= last; word++) u32[words + word] |= maskOf(word, from, to);
}

/** Index after the last set bit among the first `bits`. */
function trimmedBits(list: PageList, words: number, bits: number): number {
  if (bits % WORD_BITS !== 0) {
    // Bytes of an earlier list may follow in the last word; they are ours to clear.
    list.bytes.fill(0, list.length, words * 4 + Math.ceil(bits / WORD_BITS) * 4);
  }
  const { u32 } = list;
  let word = Math.ceil(bits / WORD_BITS) - 1;
  while (word >= 0 && u32[words + word] === 0) word--;
  return word < 0 ? 0 : word * WORD_BITS + WORD_BITS - Math.clz32(u32[words + word]);
}

/** Emits the maximal runs of set bits from bit `list.at` on and below `bits`, the last of which is set. */
function emitRuns(
  u32: Uint32Array,
  words: number,
  bits: number,
  startPfn: number,
  unit: number,
  list: PageList,
  sink: PageSink,
  pace: DecodePace,
): boolean {
  let open = -1;
  const from = list.at;
  for (let base = from - (from % WORD_BITS); base < bits; base += WORD_BITS) {
    // Bits that differ from the state we are in: words that go on as before cost one comparison.
    let differing = u32[words + (base >>> 5)] ^ (open < 0 ? 0 : -1);
    if (base < from) differing &= -1 << (from % WORD_BITS);
    while (differing !== 0) {
      const bit = 31 - Math.clz32(differing & -differing);
      if (open < 0) {
        open = base + bit;
      } else {
        sink.add(startPfn + open * unit, (base + bit - open) * unit);
        open = -1;
        if (pace.over) {
          list.at = base + bit;
          return false;
        }
      }
      differing = ~differing & (-1 << bit);
    }
  }
  if (open >= 0) sink.add(startPfn + open * unit, (bits - open) * unit);
  list.at = bits;
  return true;
}
