/**
 * The accounts of all regions of one guest, addressed by page frame number, and the totals of regions that are
 * gone. Also the bound of what one list may cost: eight bytes can name all of memory, so a list of a megabyte could
 * name it a hundred thousand times.
 */
import type { MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE, type PageSink } from '../memory/page.ts';
import { DurationHistogram } from '../sys/durations.ts';
import type { DeviceCounters } from './counters.ts';
import { PageAccount } from './page-account.ts';

/** What became of memory that was given back to the host. */
export interface DiscardTotals {
  bytes: number;
  /** Calls that gave memory back. */
  punches: number;
  failures: number;
  /** Time that the calls took together. */
  ms: number;
  /** When the last one ended, on the clock of the process; 0 when there was none. */
  lastMs: number;
}

export const noDiscards = (): DiscardTotals => ({ bytes: 0, punches: 0, failures: 0, ms: 0, lastMs: 0 });

/** Pages that a run costs like, however short it is: as many as have their bits in one word. */
const RUN_WORK = 32;

export class PageAccounts {
  readonly #counters: DeviceCounters;
  readonly #accounts: PageAccount[] = [];
  /** Discards of regions that are gone. */
  readonly #past = noDiscards();
  readonly #pastDiscardTimes = new DurationHistogram();
  #pastKeptPages = 0;
  #last: PageAccount | undefined;
  #held = false;
  /** Pages in all regions. */
  #memoryPages = 0;
  /** Pages that the list which is read may still name. */
  #listPages = 0;
  /** What all lists together have cost, in pages; it only rises. */
  work = 0;
  /** Pages of all lists together that were in no region, or more than their list may name. */
  pagesOutside = 0;

  constructor(counters: DeviceCounters) {
    this.#counters = counters;
  }

  get all(): readonly PageAccount[] {
    return this.#accounts;
  }

  /** While held, nothing that is pending is discarded, by any thread. */
  get held(): boolean {
    return this.#held;
  }

  set held(held: boolean) {
    this.#held = held;
    for (const { pending } of this.#accounts) pending.held = held;
  }

  get balloonedPages(): number {
    return this.#accounts.reduce((total, account) => total + account.balloonedPages, 0);
  }

  get pendingPages(): number {
    // Asked for by every batch: a loop, for a callback would be allocated each time.
    let pages = 0;
    for (let index = 0; index < this.#accounts.length; index++) pages += this.#accounts[index].pendingPages;
    return pages;
  }

  /** Whether pages are pending that were left to wait for neighbours. */
  get waiting(): boolean {
    for (let index = 0; index < this.#accounts.length; index++) {
      if (this.#accounts[index].pending.waiting) return true;
    }
    return false;
  }

  /** Pages that kept their memory because they were taken back while they were pending. */
  get keptPages(): number {
    return this.#accounts.reduce(
      (total, { keptUnits, unitPages }) => total + keptUnits * unitPages,
      this.#pastKeptPages,
    );
  }

  get discards(): DiscardTotals {
    const totals = { ...this.#past };
    for (const { pending, unitPages } of this.#accounts) {
      totals.bytes += pending.discardedUnits * unitPages * PAGE_SIZE;
      totals.punches += pending.discards;
      totals.failures += pending.failures;
      totals.ms += pending.discardMs;
      totals.lastMs = Math.max(totals.lastMs, pending.lastDiscardMs);
    }
    return totals;
  }

  /** How long discards took, one by one; a copy. */
  get discardTimes(): DurationHistogram {
    const times = new DurationHistogram();
    times.add(this.#pastDiscardTimes);
    for (const { pending } of this.#accounts) times.add(pending.discardTimes);
    return times;
  }

  open(region: MemoryRegion): PageAccount {
    const account = new PageAccount(region);
    if (this.#held) account.pending.held = true;
    this.#accounts.push(account);
    this.#memoryPages += region.pageCount;
    return account;
  }

  /** Drops what is pending in `region` and waits out a discard under way; nobody discards in it afterwards. */
  close(region: MemoryRegion): void {
    const index = this.#accounts.findIndex(account => account.region === region);
    if (index < 0) return;
    const [account] = this.#accounts.splice(index, 1);
    this.#memoryPages -= region.pageCount;
    account.pending.close();
    this.#last = undefined;
    this.#past.bytes += account.pending.discardedUnits * account.unitPages * PAGE_SIZE;
    this.#past.punches += account.pending.discards;
    this.#past.failures += account.pending.failures;
    this.#past.ms += account.pending.discardMs;
    this.#past.lastMs = Math.max(this.#past.lastMs, account.pending.lastDiscardMs);
    this.#pastDiscardTimes.add(account.pending.discardTimes);
    this.#pastKeptPages += account.keptUnits * account.unitPages;
  }

  /** A list begins: it may name as many pages as there are, in whatever order. */
  beginList(): void {
    this.#listPages = this.#memoryPages;
  }

  /**
   * Calls `use` for each part of a run that lies in a region, with the region's own page numbers. Pages that lie in
   * none, and those of a list that has named as many as there are, are counted and left alone.
   */
  forEachPart(
    pfn: number,
    count: number,
    use: (account: PageAccount, page: number, count: number) => void,
  ): void {
    this.work += RUN_WORK;
    // Nearly every run lies within the region of the one before it.
    const last = this.#last;
    if (last !== undefined && pfn >= last.region.firstPfn && count <= this.#listPages) {
      const page = pfn - last.region.firstPfn;
      if (page + count <= last.region.pageCount) {
        this.work += count;
        this.#listPages -= count;
        use(last, page, count);
        return;
      }
    }
    let outside = count;
    for (const account of this.#accounts) {
      const { firstPfn, pageCount } = account.region;
      const from = Math.max(pfn, firstPfn);
      const to = Math.min(pfn + count, firstPfn + pageCount, from + this.#listPages);
      if (from >= to) continue;
      outside -= to - from;
      this.work += to - from;
      this.#listPages -= to - from;
      this.#last = account;
      use(account, from - firstPfn, to - from);
    }
    this.pagesOutside += outside;
    this.#counters.badPages += outside;
  }

  /** A sink that passes on what of each run is guest memory. */
  within(sink: PageSink): PageSink {
    const pass = ({ region }: PageAccount, page: number, count: number): void =>
      sink.add(region.firstPfn + page, count);
    return { add: (pfn, count) => this.forEachPart(pfn, count, pass) };
  }

  /** Discards all that is pending, in this thread. Returns the last failure. */
  drain(): Error | undefined {
    let failure: Error | undefined;
    for (const account of this.#accounts) failure = account.drain() ?? failure;
    return failure;
  }

  /** Discards, in this thread, until at most `pages` are pending. Returns the last failure. */
  drainDownTo(pages: number): Error | undefined {
    let failure: Error | undefined;
    for (const { pending, discardUnits } of this.#accounts) {
      for (let more = true; more && this.pendingPages > pages; ) {
        const result = pending.discardSome(discardUnits);
        failure = result.failure ?? failure;
        more = result.more;
      }
    }
    return failure;
  }

  forget(): void {
    for (const account of this.#accounts) account.forget();
  }
}
