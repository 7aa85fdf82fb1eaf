/**
 * The accounts of all regions of one guest, addressed by page frame number, and the totals of regions that are
 * gone. Page lists are decoded straight into {@link PageAccounts.give} and {@link PageAccounts.take}.
 */
import type { MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { PageAccount } from './page-account.ts';

/** What became of memory that was given back to the host. */
export interface DiscardTotals {
  bytes: number;
  /** Calls that gave memory back. */
  punches: number;
  failures: number;
  /** On the clock of the process; 0 when there was none. */
  lastMs: number;
}

export class PageAccounts {
  readonly #accounts: PageAccount[] = [];
  /** Discards of regions that are gone. */
  readonly #past: DiscardTotals = { bytes: 0, punches: 0, failures: 0, lastMs: 0 };
  #pastKeptPages = 0;
  #last: PageAccount | undefined;

  get all(): readonly PageAccount[] {
    return this.#accounts;
  }

  get balloonedPages(): number {
    return this.#accounts.reduce((total, account) => total + account.balloonedPages, 0);
  }

  get pendingPages(): number {
    return this.#accounts.reduce((total, account) => total + account.pendingPages, 0);
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
      totals.lastMs = Math.max(totals.lastMs, pending.lastDiscardMs);
    }
    return totals;
  }

  open(region: MemoryRegion): PageAccount {
    const account = new PageAccount(region);
    this.#accounts.push(account);
    return account;
  }

  /** Drops what is pending in `region` and waits out a discard under way; nobody discards in it afterwards. */
  close(region: MemoryRegion): void {
    const index = this.#accounts.findIndex(account => account.region === region);
    if (index < 0) return;
    const [account] = this.#accounts.splice(index, 1);
    account.pending.close();
    this.#last = undefined;
    this.#past.bytes += account.pending.discardedUnits * account.unitPages * PAGE_SIZE;
    this.#past.punches += account.pending.discards;
    this.#past.failures += account.pending.failures;
    this.#past.lastMs = Math.max(this.#past.lastMs, account.pending.lastDiscardMs);
    this.#pastKeptPages += account.keptUnits * account.unitPages;
  }

  /**
   * Calls `use` for each part of a run that lies in a region, with the region's own page numbers. Returns how
   * many pages lie in none.
   */
  forEachPart(
    pfn: number,
    count: number,
    use: (account: PageAccount, page: number, count: number) => void,
  ): number {
    // Nearly every run lies within the region of the one before it.
    const last = this.#last;
    if (last !== undefined && pfn >= last.region.firstPfn) {
      const page = pfn - last.region.firstPfn;
      if (page + count <= last.region.pageCount) {
        use(last, page, count);
        return 0;
      }
    }
    let outside = count;
    for (const account of this.#accounts) {
      const { firstPfn, pageCount } = account.region;
      const from = Math.max(pfn, firstPfn);
      const to = Math.min(pfn + count, firstPfn + pageCount);
      if (from >= to) continue;
      outside -= to - from;
      this.#last = account;
      use(account, from - firstPfn, to - from);
    }
    return outside;
  }

  /** Discards all that is pending, in this thread. Returns the last failure. */
  drain(): Error | undefined {
    let failure: Error | undefined;
    for (const account of this.#accounts) failure = account.drain() ?? failure;
    return failure;
  }

  forget(): void {
    for (const account of this.#accounts) account.forget();
  }
}
