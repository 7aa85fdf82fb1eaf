/**
 * Scatter-gather (v18 to v21, 2017 and 2018): no list at all. Each in-buf is a run of pages: the buffer is the
 * memory. Free page hints and reports of the standard have the same shape.
 */
import { gpaOf, PAGE_SIZE, type PageSink, pfnOf } from '../../memory/page.ts';
import type { PageRanges } from '../../memory/page-ranges.ts';
import { assert } from '../../sys/error.ts';
import { type PageList, PageListError } from '../page-list.ts';
import {
  checkRun,
  type DecodePace,
  decoding,
  type EncodeCursor,
  type EncodeLimits,
  type PageListFormat,
  validateThenEmit,
} from '../page-list-format.ts';
import { pfnArray } from './pfn-array.ts';

/** A descriptor's length has 32 bits (VIRTIO 1.4, 2.7.5), so the longest run of whole pages is 4 GiB - 4 KiB. */
export const EXTENT_BYTES_MAX = 2 ** 32 - PAGE_SIZE;

// One buffer a run, as the drivers add hints and sg inflations; a report has up to 32 in one chain.
const LIMITS: EncodeLimits = { bytesMax: 0, extentsMax: 1 };

/** Runs of pages as in-bufs and nothing else: free page hints and reports. */
export const extents: PageListFormat = {
  name: 'extents',
  growsWith: 'runs',
  limits: LIMITS,

  encode(ranges: PageRanges, cursor: EncodeCursor, list: PageList, limits: EncodeLimits = LIMITS): number {
    assert(limits.extentsMax >= 1, 'a scatter-gather list without extents');
    list.length = list.start;
    list.cutCount = 0;
    list.extentCount = 0;
    let pages = 0;
    while (list.extentCount < limits.extentsMax && !cursor.done(ranges)) {
      const pfn = cursor.pfn(ranges);
      const count = Math.min(cursor.left(ranges), EXTENT_BYTES_MAX / PAGE_SIZE);
      checkRun(pfn, count);
      list.addExtent(gpaOf(pfn), count * PAGE_SIZE);
      cursor.advance(ranges, count);
      pages += count;
    }
    return pages;
  },

  ...validateThenEmit((list: PageList, sink: PageSink, pace: DecodePace) => {
    if (list.listBytes > 0) throw new PageListError('direction', 'out-bufs beside runs of pages');
    const { extentAddresses, extentLengths, extentCount } = list;
    for (let index = list.at; index < extentCount; index++) {
      if (pace.over) {
        list.at = index;
        return false;
      }
      const address = extentAddresses[index];
      const length = extentLengths[index];
      if (length > EXTENT_BYTES_MAX) {
        throw new PageListError(
          'range',
          `a run of ${length} bytes; a descriptor can say ${EXTENT_BYTES_MAX}`,
        );
      }
      if (address % PAGE_SIZE !== 0 || length % PAGE_SIZE !== 0) {
        throw new PageListError(
          'alignment',
          `${length} bytes at 0x${address.toString(16)} are not whole pages`,
        );
      }
      checkRun(pfnOf(address), length / PAGE_SIZE);
      sink.add(pfnOf(address), length / PAGE_SIZE);
    }
    list.at = extentCount;
    return true;
  }),
};

const shapeOf = (list: PageList): PageListFormat => (list.extentCount === 0 ? pfnArray : extents);

/** Inflate and deflate buffers of the profile: extents, but a guest may go on sending page frame numbers. */
export const sg: PageListFormat = {
  ...extents,
  name: 'sg',
  ...decoding(
    list => shapeOf(list).check(list),
    (list, sink, pace) => shapeOf(list).decodeSome(list, sink, pace),
  ),
};
