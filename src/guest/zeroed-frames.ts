/**
 * Free pages that the host made zeros, as far as a driver heard of it (Linux's drafts: PG_zeroed): an allocation that wants
 * zeros need not fill them. What is noted holds until the page is freed the next time; only an allocation asks for it.
 */
import type { ZeroedPages } from '../memory/kernel-memory.ts';
import { PageBitmap } from '../memory/page-bitmap.ts';
import type { PageAccess } from './page-access.ts';

export class ZeroedFrames implements ZeroedPages {
  readonly #frames: number;
  /** Made when the first page is noted: most guests never hear of any. */
  #noted: PageBitmap | undefined;

  constructor(frames: number) {
    this.#frames = frames;
  }

  note(pfn: number, count: number): void {
    this.#noted ??= new PageBitmap(this.#frames);
    this.#noted.set(pfn, count);
  }

  /** These pages are freed: what they hold is not known. */
  forget(pfn: number, count: number): void {
    this.#noted?.clear(pfn, count);
  }

  /** Whether a block that was free until now is zeros, all of it. */
  covers(pfn: number, count: number): boolean {
    return this.#noted !== undefined && this.#noted.countIn(pfn, count) === count;
  }
}

/** Of pages that are said to be zeros, how many are not. */
export function pagesWithoutZeros(access: PageAccess, pfn: number, count: number): number {
  let faults = 0;
  for (let page = pfn; page < pfn + count; page++) if (!access.isFilledWith(page, 0)) faults++;
  return faults;
}
