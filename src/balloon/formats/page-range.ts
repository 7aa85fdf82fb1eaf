/**
 * Page ranges (v6, December 2016): after the response header one 64-bit entry a run, 52 bits of page frame and
 * 12 of length. Length 0 says that the next entry is the length.
 */
import type { PageSink } from '../../memory/page.ts';
import type { PageRanges } from '../../memory/page-ranges.ts';
import { assert } from '../../sys/error.ts';
import { type PageList, PageListError } from '../page-list.ts';
import {
  checkRun,
  type DecodePace,
  type EncodeCursor,
  type EncodeLimits,
  type PageListFormat,
  validateThenEmit,
} from '../page-list-format.ts';
import { ENTRY_BYTES, putU64, u64At, upper52 } from './blocks.ts';
import { checkResponse, finishResponse, RESPONSE_HEADER_BYTES } from './response-header.ts';

/**
 * The first length that does not fit the entry. The original driver tested for more than 4096 and so shifted a
 * 13th bit into the page frame at exactly 4096; the long form begins here instead.
 */
const LONG_FORM_PAGES = 4096;
const DATA_BYTES_MAX = 32_768;

/**
 * What the original driver makes of a run of exactly 4096 pages, which nothing tells from a long form: the page frame turns
 * odd, and the next range is read as the length. Pages of a guest that runs are in there, so what looks like it is refused:
 * from an odd page frame on, at least as many pages as the number of the first range above 4096 says. Our own writer makes
 * no such range.
 */
const SPOILT_PAGES = 4096 * LONG_FORM_PAGES;
const KNOWN_BUG =
  '; the posted driver (v6, 12/2016) is known to spoil ranges of exactly 4096 pages like this';

const LIMITS: EncodeLimits = { bytesMax: RESPONSE_HEADER_BYTES + DATA_BYTES_MAX, extentsMax: 0 };

const isSpoilt = (pfn: number, count: number): boolean => count >= SPOILT_PAGES && pfn % 2 === 1;

export const pageRange: PageListFormat = {
  name: 'page-range',
  growsWith: 'runs',
  limits: LIMITS,

  encode(ranges: PageRanges, cursor: EncodeCursor, list: PageList, limits: EncodeLimits = LIMITS): number {
    assert(
      limits.bytesMax >= RESPONSE_HEADER_BYTES + 2 * ENTRY_BYTES,
      `page ranges of ${limits.bytesMax} bytes`,
    );
    list.reserve(list.start + limits.bytesMax);
    const end = list.start + limits.bytesMax;
    let at = list.start + RESPONSE_HEADER_BYTES;
    let pages = 0;
    while (!cursor.done(ranges)) {
      const pfn = cursor.pfn(ranges);
      // An odd page frame and a length that could be a range: the first page goes alone.
      const count = isSpoilt(pfn, cursor.left(ranges)) ? 1 : cursor.left(ranges);
      checkRun(pfn, count);
      const isLong = count >= LONG_FORM_PAGES;
      if (at + (isLong ? 2 : 1) * ENTRY_BYTES > end) break;
      putU64(list, at, pfn * LONG_FORM_PAGES + (isLong ? 0 : count));
      at += ENTRY_BYTES;
      if (isLong) {
        putU64(list, at, count);
        at += ENTRY_BYTES;
      }
      cursor.advance(ranges, count);
      pages += count;
    }
    finishResponse(list, at);
    return pages;
  },

  ...validateThenEmit((list: PageList, sink: PageSink, pace: DecodePace) => {
    checkResponse(list);
    const { u32 } = list;
    const end = list.length / 4;
    for (let at = list.at || (list.start + RESPONSE_HEADER_BYTES) / 4; at < end; at += 2) {
      if (pace.over) {
        list.at = at;
        return false;
      }
      const pfn = upper52(u32, at);
      let count = u32[at] % LONG_FORM_PAGES;
      if (count === 0) {
        at += 2;
        if (at === end) {
          throw new PageListError(
            'truncated',
            `the length of the last range is missing${pfn % 2 === 1 ? KNOWN_BUG : ''}`,
          );
        }
        count = u64At(u32, at);
        if (isSpoilt(pfn, count)) {
          throw new PageListError('range', `${count} pages at the odd page frame ${pfn}${KNOWN_BUG}`);
        }
      }
      checkRun(pfn, count);
      sink.add(pfn, count);
    }
    list.at = end;
    return true;
  }),
};
