/**
 * What was in the balloon of memory that its front-end has taken away. Front-ends cut the same memory anew, at other
 * addresses of their own, in one table or region by region, while their guest runs: the guest's pages are then still in
 * its balloon. So an account belongs to a stretch of a file at a guest address, and is found again when that comes back.
 */
import type { MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { PageAccount } from './page-account.ts';

/**
 * Pages of all regions together that are remembered, the newest first: 1 TiB, whose bitmaps take 32 MiB. A front-end may
 * add and take away regions without end.
 */
const REMEMBERED_PAGES_MAX = 2 ** 28;
/** Regions that are remembered: as many as a front-end may have at once. */
const REMEMBERED_REGIONS_MAX = 512;

interface Departed {
  readonly file: string;
  /** Of the byte that guest address 0 would have. */
  readonly fileStart: number;
  readonly firstPfn: number;
  readonly pageCount: number;
  /** What is left of its balloon. */
  readonly ballooned: PageAccount['ballooned'];
  balloonedPages: number;
  /** Some of it was not discarded yet, and kept its memory. */
  readonly hadPending: boolean;
}

export class DepartedAccounts {
  #departed: Departed[] = [];

  /** Pages that were in the balloon, in memory that is gone. */
  get balloonedPages(): number {
    return this.#departed.reduce((total, { balloonedPages }) => total + balloonedPages, 0);
  }

  /**
   * Remembers the account of a region that is about to go. `hadPending`: some of it had still its memory; `copied`: so have
   * the account's words, which others write then.
   */
  add({ region, ballooned: own, balloonedPages }: PageAccount, hadPending: boolean, copied: boolean): void {
    const place = placeOf(region);
    if (place === undefined || balloonedPages === 0) return;
    const { firstPfn, pageCount } = region;
    const ballooned = copied ? own.copy() : own;
    this.#departed.unshift({ ...place, firstPfn, pageCount, ballooned, balloonedPages, hadPending });
    let pages = 0;
    this.#departed = this.#departed.slice(0, REMEMBERED_REGIONS_MAX).filter(departed => {
      pages += departed.pageCount;
      return pages <= REMEMBERED_PAGES_MAX;
    });
  }

  /** Puts what is known of the memory of a new account into it. */
  restore(account: PageAccount): void {
    if (this.#departed.length === 0) return;
    const { region } = account;
    const place = placeOf(region);
    if (place === undefined) return;
    for (const departed of this.#departed) {
      if (departed.file !== place.file || departed.fileStart !== place.fileStart) continue;
      const from = Math.max(departed.firstPfn, region.firstPfn);
      const to = Math.min(departed.firstPfn + departed.pageCount, region.firstPfn + region.pageCount);
      if (from < to) move(departed, account, from, to);
    }
    this.#departed = this.#departed.filter(({ balloonedPages }) => balloonedPages > 0);
  }

  clear(): void {
    this.#departed = [];
  }
}

/** From one account to the other, the pages of [from, to). */
function move(departed: Departed, account: PageAccount, from: number, to: number): void {
  const { ballooned, firstPfn, hadPending } = departed;
  const { region } = account;
  ballooned.forEachRun((page, count) => {
    const start = Math.max(firstPfn + page, from);
    const end = Math.min(firstPfn + page + count, to);
    if (start < end) account.give(start - region.firstPfn, end - start, hadPending);
  });
  departed.balloonedPages -= ballooned.clear(from - firstPfn, to - from);
}

function placeOf({ backing, guestAddress }: MemoryRegion): { file: string; fileStart: number } | undefined {
  const { file } = backing;
  if (file === undefined) return undefined;
  return {
    file: `${file.identity} ${backing.discardUnit / PAGE_SIZE}`,
    fileStart: file.fileOffset - guestAddress,
  };
}
