/**
 * Page chunks (Wei Wang v10, May 2017): a count, then base and size of each run, two 64-bit words in which the low
 * 12 bits are reserved: a reader ignores them, a writer leaves them 0.
 */
import { PAGE_SIZE, type PageSink } from '../../memory/page.ts';
import type { PageRanges } from '../../memory/page-ranges.ts';
import { assert } from '../../sys/error.ts';
import { struct } from '../../sys/struct.ts';
import { type PageList, PageListError } from '../page-list.ts';
import {
  checkRun,
  type DecodePace,
  type EncodeCursor,
  type EncodeLimits,
  type PageListFormat,
  validateThenEmit,
} from '../page-list-format.ts';
import { putU64, u64At, upper52 } from './blocks.ts';

const HEADER = struct('page_chunk_header', 8, { chunkCount: ['u64', 0] });
const CHUNK = struct('page_chunk', 16, { base: ['u64', 0], size: ['u64', 8] });

/** What fits eight pages with the header. */
const CHUNKS_PER_BUFFER = 2047;

const LIMITS: EncodeLimits = { bytesMax: HEADER.size + CHUNKS_PER_BUFFER * CHUNK.size, extentsMax: 0 };

export const pageChunks: PageListFormat = {
  name: 'page-chunks',
  growsWith: 'runs',
  limits: LIMITS,

  encode(ranges: PageRanges, cursor: EncodeCursor, list: PageList, limits: EncodeLimits = LIMITS): number {
    assert(limits.bytesMax >= HEADER.size + CHUNK.size, `page chunks of ${limits.bytesMax} bytes`);
    list.reserve(list.start + limits.bytesMax);
    const first = list.start + HEADER.size;
    const last = list.start + limits.bytesMax - CHUNK.size;
    let at = first;
    let pages = 0;
    for (; at <= last && !cursor.done(ranges); at += CHUNK.size) {
      const pfn = cursor.pfn(ranges);
      const count = cursor.left(ranges);
      checkRun(pfn, count);
      putU64(list, at + CHUNK.offset.base, pfn * PAGE_SIZE);
      putU64(list, at + CHUNK.offset.size, count * PAGE_SIZE);
      cursor.advance(ranges, count);
      pages += count;
    }
    putU64(list, list.start + HEADER.offset.chunkCount, (at - first) / CHUNK.size);
    list.length = at;
    list.cutCount = 0;
    return pages;
  },

  ...validateThenEmit((list: PageList, sink: PageSink, pace: DecodePace) => {
    const { u32, start, listBytes } = list;
    if (list.extentCount > 0) throw new PageListError('direction', 'in-bufs beside page chunks');
    if (listBytes < HEADER.size) throw new PageListError('truncated', `a chunk header of ${listBytes} bytes`);
    const announced = u64At(u32, (start + HEADER.offset.chunkCount) / 4);
    const present = (listBytes - HEADER.size) / CHUNK.size;
    if (announced !== present) {
      throw new PageListError(
        announced > present ? 'truncated' : 'surplus',
        `${present} page chunks where the header says ${announced}`,
      );
    }
    for (let at = list.at || start + HEADER.size; at < list.length; at += CHUNK.size) {
      if (pace.over) {
        list.at = at;
        return false;
      }
      const pfn = upper52(u32, (at + CHUNK.offset.base) / 4);
      const count = upper52(u32, (at + CHUNK.offset.size) / 4);
      checkRun(pfn, count);
      sink.add(pfn, count);
    }
    list.at = list.length;
    return true;
  }),
};
