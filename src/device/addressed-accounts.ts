/**
 * The accounts of all regions by page frame number, and what naming pages may cost: eight bytes can name all of memory, so a
 * list of a megabyte could name it a hundred thousand times.
 */
import type { MemoryRegion } from '../memory/guest-memory.ts';
import type { PageSink } from '../memory/page.ts';
import type { DeviceCounters } from './counters.ts';
import type { PageAccount } from './page-account.ts';
import { TurnBudget } from './turn.ts';

/** What is done with a part of a run, which lies in one region. */
export type UsePart = (account: PageAccount, page: number, count: number) => void;

/** Pages that a run costs like, however short it is: as many as have their bits in one word. */
const RUN_WORK = 32;
/** Pages that a word costs like which is gone through in one of the two bitmaps: all 32 in both are a page each. */
const WORD_WORK = 16;
/** Words that the shortest run touches; they are in RUN_WORK. */
const RUN_WORDS = 3;
/** A turn may end after so many pages of a run: 1 GiB. */
const PART_PAGES = 2 ** 18;

/** A list whose runs are passed on. */
interface NamingList {
  /** Pages that it may still name. */
  pagesLeft: number;
  /** Keeps what the turn has no time for. */
  keepRest(pfn: number, count: number, use: UsePart): void;
}

export class AddressedAccounts {
  /** What naming pages costs, and whether the turn is over. */
  readonly budget = new TurnBudget();
  /** The list whose runs are passed on; undefined for runs that are the host's own. */
  walk: NamingList | undefined;
  readonly #counters: DeviceCounters;
  /** In rising order of page frames. */
  readonly #accounts: PageAccount[] = [];
  #last: PageAccount | undefined;
  #memoryPages = 0;
  /** Pages of all lists together that were in no region, or more than their list may name. */
  pagesOutside = 0;

  constructor(counters: DeviceCounters) {
    this.#counters = counters;
  }

  /** Pages in all regions. */
  get memoryPages(): number {
    return this.#memoryPages;
  }

  get all(): readonly PageAccount[] {
    return this.#accounts;
  }

  protected insert(account: PageAccount): void {
    this.#accounts.splice(this.#indexFrom(account.firstPfn), 0, account);
    this.#memoryPages += account.pageCount;
  }

  /** The account of `region`, which is in the table no more; undefined where it was not. */
  protected remove(region: MemoryRegion): PageAccount | undefined {
    const index = this.#accounts.findIndex(account => account.region === region);
    if (index < 0) return undefined;
    const [account] = this.#accounts.splice(index, 1);
    this.#memoryPages -= region.pageCount;
    this.#last = undefined;
    return account;
  }

  /**
   * Calls `use` for each part of a run that lies in a region, with the region's own page numbers. Pages that lie in
   * none, and those of a list that has named as many as there are, are counted and left alone. What a turn has no time
   * for is left to the next ({@link ListWalk}).
   */
  forEachPart(pfn: number, count: number, use: UsePart): void {
    this.budget.spent += RUN_WORK;
    // Nearly every run lies within the region of the one before it.
    const last = this.#last;
    if (last !== undefined && count <= PART_PAGES && pfn >= last.firstPfn) {
      const page = pfn - last.firstPfn;
      const mayName = this.walk === undefined || count <= this.walk.pagesLeft;
      if (page + count <= last.pageCount && mayName) {
        this.#name(count);
        this.useNamed(last, page, count, use);
        return;
      }
    }
    this.goOnWithRun(pfn, count, use);
  }

  /**
   * The short way for a run of one page, as scattered pages are: it is named, and the account returned in which it is, if
   * that is the one of the run before. Where it is not, nothing is done, and {@link forEachPart} is to be called. What the
   * caller does with the page goes through no more words than the shortest run does, or is done by {@link useNamed}.
   */
  nameOne(pfn: number): PageAccount | undefined {
    const last = this.#last;
    if (last === undefined) return undefined;
    const page = pfn - last.firstPfn;
    if (page < 0 || page >= last.pageCount) return undefined;
    const { walk } = this;
    if (walk !== undefined) {
      if (walk.pagesLeft < 1) return undefined;
      walk.pagesLeft--;
    }
    this.budget.spent += RUN_WORK;
    return last;
  }

  /** The same for what is left of a run. */
  goOnWithRun(pfn: number, count: number, use: UsePart): void {
    const end = pfn + count;
    let outside = 0;
    let at = pfn;
    for (let index = this.#indexFrom(pfn); at < end; ) {
      const account = this.#accounts[index];
      const first = account === undefined ? end : Math.min(end, account.region.firstPfn);
      if (at < first) {
        outside += first - at;
        at = first;
        continue;
      }
      const accountEnd = first + account.region.pageCount;
      const wanted = Math.min(end, accountEnd, at + PART_PAGES) - at;
      const named = this.#name(wanted);
      if (named > 0) {
        this.#last = account;
        this.useNamed(account, at - first, named, use);
        at += named;
      }
      if (named < wanted) {
        outside += end - at;
        break;
      }
      if (at === accountEnd) index++;
      if (at < end && this.budget.over && this.walk !== undefined) {
        this.walk.keepRest(at, end - at, use);
        break;
      }
    }
    this.pagesOutside += outside;
    this.#counters.badPages += outside;
  }

  /** How many of so many pages the list may still name; they are named then. */
  #name(count: number): number {
    const { walk } = this;
    if (walk === undefined) return count;
    const named = Math.min(count, walk.pagesLeft);
    walk.pagesLeft -= named;
    return named;
  }

  /** Calls `use` for pages that are named already, and counts what it costs. */
  useNamed(account: PageAccount, page: number, count: number, use: UsePart): void {
    const before = account.work + RUN_WORDS;
    use(account, page, count);
    const words = account.work - before;
    if (words > 0) this.budget.spent += words * WORD_WORK;
  }

  /** The account in which page frame `pfn` is; nothing is named by that. */
  find(pfn: number): PageAccount | undefined {
    const account = this.#accounts[this.#indexFrom(pfn)];
    return account !== undefined && account.firstPfn <= pfn ? account : undefined;
  }

  /** Index of the first account that ends after page frame `pfn`. */
  #indexFrom(pfn: number): number {
    let low = 0;
    let high = this.#accounts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { firstPfn, pageCount } = this.#accounts[middle].region;
      if (firstPfn + pageCount > pfn) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** A sink that passes on what of each run is guest memory. */
  within(sink: PageSink): PageSink {
    const pass = ({ region }: PageAccount, page: number, count: number): void =>
      sink.add(region.firstPfn + page, count);
    return { add: (pfn, count) => this.forEachPart(pfn, count, pass) };
  }
}
