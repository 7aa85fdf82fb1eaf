/**
 * The oldest list, and still the standard's: an array of 32-bit page frame numbers in any order (VIRTIO 1.4,
 * 5.5.6). Four bytes a page whatever its neighbours are; an inflation of 7 GiB takes 1.8 million of them, which
 * makes this decoder the hot one.
 */
import type { PageSink } from '../../memory/page.ts';
import type { PageRanges } from '../../memory/page-ranges.ts';
import { assert } from '../../sys/error.ts';
import { type PageList, PageListError } from '../page-list.ts';
import {
  type DecodePace,
  decoding,
  type EncodeCursor,
  type EncodeLimits,
  type PageListFormat,
} from '../page-list-format.ts';

const PFN_BYTES = 4;
/** Linux fills VIRTIO_BALLOON_ARRAY_PFNS_MAX = 256 numbers and waits. A habit of the driver, not of the protocol. */
const PFNS_PER_BUFFER = 256;
/** Page frames that 32 bits can name: guests of up to 16 TiB. */
const PFN_NAMEABLE_LIMIT = 2 ** 32;

const LIMITS: EncodeLimits = { bytesMax: PFNS_PER_BUFFER * PFN_BYTES, extentsMax: 0 };

export const pfnArray: PageListFormat = {
  name: 'pfn-array',
  growsWith: 'pages',
  limits: LIMITS,

  encode(ranges: PageRanges, cursor: EncodeCursor, list: PageList, limits: EncodeLimits = LIMITS): number {
    assert(limits.bytesMax >= PFN_BYTES, `a page frame array of ${limits.bytesMax} bytes`);
    list.reserve(list.start + limits.bytesMax);
    const { u32 } = list;
    const first = list.start / PFN_BYTES;
    const end = first + Math.floor(limits.bytesMax / PFN_BYTES);
    let at = first;
    while (at < end && !cursor.done(ranges)) {
      const pfn = cursor.pfn(ranges);
      const count = Math.min(end - at, cursor.left(ranges));
      if (pfn + count > PFN_NAMEABLE_LIMIT) {
        throw new PageListError('range', `page frame ${pfn + count - 1} does not fit 32 bits`);
      }
      for (let page = pfn; page < pfn + count; page++) u32[at++] = page;
      cursor.advance(ranges, count);
    }
    list.length = at * PFN_BYTES;
    list.cutCount = 0;
    return at - first;
  },

  ...decoding(check, decodeSome),
};

/** The length is all that can be wrong: every 32-bit number names a page. */
function check(list: PageList): void {
  if (list.listBytes % PFN_BYTES !== 0) {
    throw new PageListError(
      'truncated',
      `a page frame number ends after ${list.listBytes % PFN_BYTES} bytes`,
    );
  }
  if (list.extentCount > 0) throw new PageListError('direction', 'in-bufs beside page frame numbers');
}

function decodeSome(list: PageList, sink: PageSink, pace: DecodePace): boolean {
  const { u32 } = list;
  const end = list.length / PFN_BYTES;
  let at = list.at || list.start / PFN_BYTES;
  if (at === end) return true;
  // Allocators hand out neighbours in rising or in falling order: a run grows at either end.
  let low = u32[at++];
  let high = low + 1;
  for (; at < end; at++) {
    const pfn = u32[at];
    if (pfn === high) {
      high++;
    } else if (pfn + 1 === low) {
      low = pfn;
    } else {
      sink.add(low, high - low);
      if (pace.over) {
        list.at = at;
        return false;
      }
      low = pfn;
      high = pfn + 1;
    }
  }
  sink.add(low, high - low);
  list.at = end;
  return true;
}
