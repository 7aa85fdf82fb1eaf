/**
 * Alexander Duyck's hinting entries (v1, June 2019): one 64-bit word a block, its page-aligned address with the
 * order, counted from 4 KiB pages, in the low 8 bits.
 */
import { PAGE_SHIFT, PAGE_SIZE, type PageSink } from '../../memory/page.ts';
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
import { alignedOrder, ENTRY_BYTES, putU64, upper52 } from './blocks.ts';

const ENTRIES_PER_BUFFER = 32;
const ORDER_MASK = 0xff;
const OFFSET_MASK = PAGE_SIZE - 1;

const LIMITS: EncodeLimits = { bytesMax: ENTRIES_PER_BUFFER * ENTRY_BYTES, extentsMax: 0 };

export const addressOrOrder: PageListFormat = {
  name: 'address-or-order',
  growsWith: 'runs',
  limits: LIMITS,

  encode(ranges: PageRanges, cursor: EncodeCursor, list: PageList, limits: EncodeLimits = LIMITS): number {
    assert(limits.bytesMax >= ENTRY_BYTES, `addresses and orders of ${limits.bytesMax} bytes`);
    list.reserve(list.start + limits.bytesMax);
    const last = list.start + limits.bytesMax - ENTRY_BYTES;
    let at = list.start;
    let pages = 0;
    for (; at <= last && !cursor.done(ranges); at += ENTRY_BYTES) {
      const pfn = cursor.pfn(ranges);
      checkRun(pfn, cursor.left(ranges));
      const order = alignedOrder(pfn, cursor.left(ranges));
      putU64(list, at, pfn * PAGE_SIZE + order);
      cursor.advance(ranges, 2 ** order);
      pages += 2 ** order;
    }
    list.length = at;
    list.cutCount = 0;
    return pages;
  },

  ...validateThenEmit((list: PageList, sink: PageSink, pace: DecodePace) => {
    const { u32, listBytes } = list;
    if (list.extentCount > 0) throw new PageListError('direction', 'in-bufs beside addresses and orders');
    if (listBytes % ENTRY_BYTES !== 0) {
      throw new PageListError('truncated', `an address ends after ${listBytes % ENTRY_BYTES} bytes`);
    }
    const end = list.length / 4;
    for (let at = list.at || list.start / 4; at < end; at += 2) {
      if (pace.over) {
        list.at = at;
        return false;
      }
      const within = u32[at] & OFFSET_MASK;
      if (within > ORDER_MASK) {
        throw new PageListError('alignment', `an address 0x${within.toString(16)} bytes into its page`);
      }
      const pfn = upper52(u32, at);
      const pages = pagesPerShift(PAGE_SHIFT + within);
      checkRun(pfn, pages);
      sink.add(pfn, pages);
    }
    list.at = end;
    return true;
  }),
};
