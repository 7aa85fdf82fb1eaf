/**
 * What a way of naming pages has to provide. Each lives in a file of its own under formats/, and profiles.ts
 * says which generation of the ABI uses which. Both directions work on a {@link PageList} and know nothing of
 * queues.
 */
import { PAGE_SHIFT, type PageSink, PFN_LIMIT } from '../memory/page.ts';
import type { PageRanges } from '../memory/page-ranges.ts';
import { type PageList, PageListError } from './page-list.ts';

/** How far the encoding of some runs has come. */
export class EncodeCursor {
  /** The run to go on with. */
  run = 0;
  /** Pages of that run that are encoded already. */
  page = 0;

  reset(): void {
    this.run = 0;
    this.page = 0;
  }

  done(ranges: PageRanges): boolean {
    return this.run >= ranges.length;
  }

  /** First page of the run that is not encoded yet. */
  pfn(ranges: PageRanges): number {
    return ranges.start(this.run) + this.page;
  }

  /** Pages of the run that are not encoded yet. */
  left(ranges: PageRanges): number {
    return ranges.count(this.run) - this.page;
  }

  /** `pages` more pages of the run are encoded. */
  advance(ranges: PageRanges, pages: number): void {
    this.page += pages;
    if (this.page < ranges.count(this.run)) return;
    this.run++;
    this.page = 0;
  }
}

/** How large one list may become. */
export interface EncodeLimits {
  /** Bytes of out-bufs, headers included, a request message before the list not. */
  readonly bytesMax: number;
  /** In-bufs. */
  readonly extentsMax: number;
}

/** Asked between two runs: whether the rest of a list has to wait for another turn. */
export interface DecodePace {
  readonly over: boolean;
}

/** All at once. */
const AT_ONCE: DecodePace = { over: false };

export interface PageListFormat {
  readonly name: string;
  /** What a list gets longer by: pages that it names one by one, pages that lie between the first and the last, or runs. */
  readonly growsWith: 'pages' | 'span' | 'runs';
  /** What the format's own driver filled one buffer with at most. A reader takes anything up to LIST_BYTES_MAX. */
  readonly limits: EncodeLimits;
  /**
   * Writes one list, from `cursor` on as many runs of `ranges` as `limits` allow, into `list` behind its
   * `start`, and moves the cursor; call it until the cursor is done. Returns the pages that the list names: at
   * least one while there are any, and 0 for the valid empty list that a done cursor gives.
   * @throws PageListError `range` for a page that the format cannot name
   */
  encode(ranges: PageRanges, cursor: EncodeCursor, list: PageList, limits?: EncodeLimits): number;
  /**
   * Calls `sink.add` for each run of the list that begins at `list.start`. All of the list is validated before
   * the first call, so a bad list changes nothing. Every run has at least one page and ends at or below
   * PFN_LIMIT; runs may overlap, and may lie outside the guest's memory. Work is linear in the list's bytes.
   * @throws PageListError with the reason
   */
  decode(list: PageList, sink: PageSink): void;
  /**
   * What {@link decode} does before it calls.
   * @throws PageListError with the reason
   */
  check(list: PageList): void;
  /**
   * What {@link decode} does then, for a list that was checked: from `list.at` on, until the list is done, which is true,
   * or `pace` is over, after which another call goes on.
   */
  decodeSome(list: PageList, sink: PageSink, pace: DecodePace): boolean;
}

/** The three ways of reading a list. */
type PageListDecoding = Pick<PageListFormat, 'decode' | 'check' | 'decodeSome'>;

/** Puts the two halves of decoding together. */
export function decoding(
  check: PageListFormat['check'],
  decodeSome: PageListFormat['decodeSome'],
): PageListDecoding {
  return {
    check,
    decodeSome,
    decode: (list, sink) => {
      check(list);
      list.at = 0;
      decodeSome(list, sink, AT_ONCE);
    },
  };
}

const NOWHERE: PageSink = { add() {} };

/** The same of a scan that checks and emits in one pass, from `list.at` on: the first pass emits nothing. */
export const validateThenEmit = (scan: PageListFormat['decodeSome']): PageListDecoding =>
  decoding(list => {
    list.at = 0;
    scan(list, NOWHERE, AT_ONCE);
    list.at = 0;
  }, scan);

/** @throws PageListError unless `count` pages from `pfn` on can exist */
export function checkRun(pfn: number, count: number): void {
  if (count === 0) throw new PageListError('empty-run', `no pages at page frame ${pfn}`);
  if (!(pfn + count <= PFN_LIMIT)) {
    throw new PageListError('range', `${count} pages at page frame ${pfn} reach beyond every address`);
  }
}

/** Pages above this cannot be: one would fill more than half of a 53-bit address space. */
const PAGE_SHIFT_MAX = 52;

/**
 * 4 KiB pages in one page of `1 << shift` bytes.
 * @throws PageListError `page-shift`
 */
export function pagesPerShift(shift: number): number {
  if (shift < PAGE_SHIFT || shift > PAGE_SHIFT_MAX) {
    throw new PageListError(
      'page-shift',
      `pages of 1 << ${shift} bytes; 12 to ${PAGE_SHIFT_MAX} are possible`,
    );
  }
  return 2 ** (shift - PAGE_SHIFT);
}
