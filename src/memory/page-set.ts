/**
 * A set of pages anywhere in guest memory, kept as bitmaps of the stretches in which there are any.
 */
import type { PageSink } from './page.ts';
import { PageBitmap } from './page-bitmap.ts';

/** Pages in one bitmap: 1 GiB of guest memory, 32 KiB of bitmap. */
export const CHUNK_PAGES = 2 ** 18;

/** All of a chunk, one for all sets: whole gigabytes cost nothing but their number. It is copied before it is changed. */
let wholeChunk: PageBitmap | undefined;

function whole(): PageBitmap {
  if (wholeChunk === undefined) {
    wholeChunk = PageBitmap.shared(CHUNK_PAGES);
    wholeChunk.words.fill(-1);
  }
  return wholeChunk;
}

export class PageSet implements PageSink {
  readonly #chunks = new Map<number, PageBitmap>();
  /** Bounds what a guest that names pages at random can make us keep. */
  readonly #limitPfn: number;
  #pages = 0;

  /** A set of pages below page frame `limitPfn`; pages from there on are not taken. */
  constructor(limitPfn: number) {
    this.#limitPfn = limitPfn;
  }

  /** Distinct pages in the set. */
  get pages(): number {
    return this.#pages;
  }

  /** The bitmaps of {@link CHUNK_PAGES} pages by number, in memory that other threads may read. */
  get chunks(): ReadonlyMap<number, PageBitmap> {
    return this.#chunks;
  }

  add(pfn: number, count: number): void {
    this.#forEachPart(pfn, count, true, (chunk, start, part) => {
      if (chunk !== wholeChunk) this.#pages += chunk.set(start, part);
    });
  }

  delete(pfn: number, count: number): void {
    this.#forEachPart(pfn, count, false, (chunk, start, part) => {
      this.#pages -= chunk.clear(start, part);
    });
  }

  has(pfn: number): boolean {
    return this.#chunks.get(Math.floor(pfn / CHUNK_PAGES))?.test(pfn % CHUNK_PAGES) ?? false;
  }

  clear(): void {
    this.#chunks.clear();
    this.#pages = 0;
  }

  /** Visits runs in rising order; a run that crosses a multiple of 1 GiB comes in parts. */
  forEachRun(visit: (pfn: number, count: number) => void): void {
    for (const [number, chunk] of [...this.#chunks].sort((a, b) => a[0] - b[0])) {
      chunk.forEachRun((start, count) => visit(number * CHUNK_PAGES + start, count));
    }
  }

  #forEachPart(
    pfn: number,
    count: number,
    create: boolean,
    visit: (chunk: PageBitmap, start: number, count: number) => void,
  ): void {
    const end = Math.min(pfn + count, this.#limitPfn);
    for (let at = pfn; at < end; ) {
      const number = Math.floor(at / CHUNK_PAGES);
      const start = at % CHUNK_PAGES;
      const part = Math.min(end - at, CHUNK_PAGES - start);
      let chunk = this.#chunks.get(number);
      if (create && part === CHUNK_PAGES) {
        if (chunk !== wholeChunk || chunk === undefined) this.#pages += CHUNK_PAGES - (chunk?.count() ?? 0);
        chunk = whole();
        this.#chunks.set(number, chunk);
      } else if (!create && chunk !== undefined && chunk === wholeChunk) {
        chunk = PageBitmap.shared(CHUNK_PAGES);
        chunk.words.fill(-1);
        this.#chunks.set(number, chunk);
      }
      if (chunk === undefined && create) {
        chunk = PageBitmap.shared(CHUNK_PAGES);
        this.#chunks.set(number, chunk);
      }
      if (chunk !== undefined) visit(chunk, start, part);
      at += part;
    }
  }
}
