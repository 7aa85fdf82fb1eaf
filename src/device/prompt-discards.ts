/**
 * Discards that come before the buffers that name the pages: of reports, and of hints whose blocks the guest keeps out of use
 * until then. Other threads do them where there are any, and the batch is kept meanwhile; else they are done here.
 */
import { PAGE_SIZE, type PageSink } from '../memory/page.ts';
import { AerostatError } from '../sys/error.ts';
import type { PageAccount } from './page-account.ts';
import type { PageAccounts } from './page-accounts.ts';
import type { PartWorld } from './part.ts';
import type { RunningQueue } from './running-queue.ts';

export class PromptDiscards {
  readonly #world: PartWorld;
  readonly #accounts: PageAccounts;
  /** What the batch names that other threads discard: region, first unit and units of each run. */
  readonly #accountsOfRuns: PageAccount[] = [];
  readonly #runs: number[] = [];
  /** Discards that had failed when the batch began. */
  #failuresBefore = 0;
  /** Hears of the pages of guest memory that were discarded, while the guest may not use them yet. */
  observer: PageSink | undefined;

  constructor(world: PartWorld) {
    this.#world = world;
    this.#accounts = world.accounts;
  }

  begin(): void {
    this.#failuresBefore = this.#accounts.reportDiscards.failures;
  }

  /** Whether a discard failed since the batch began: which one is not known where other threads discard. */
  get failed(): boolean {
    return this.#accounts.reportDiscards.failures > this.#failuresBefore;
  }

  /** Nothing that the batch named may wait to be discarded. Where something does, news of it will come. */
  mayReturn(): boolean {
    if (this.#runs.length === 0) return true;
    // In this order: what is discarded after the first line rings.
    this.#accounts.watchDrain();
    if (this.#accounts.reportedPending > 0) return false;
    // Those that failed keep their memory, so what is noted as gone must be gone.
    const { failed } = this;
    for (let index = 0; index < this.#accountsOfRuns.length && !failed; index++) {
      this.#noteDiscarded(this.#accountsOfRuns[index], this.#runs[index * 2], this.#runs[index * 2 + 1]);
    }
    this.forget();
    return true;
  }

  /** Nothing of the batch is left to be noted. */
  forget(): void {
    this.#accountsOfRuns.length = 0;
    this.#runs.length = 0;
  }

  readonly discard = (account: PageAccount, page: number, count: number): void => {
    // Whole units only: what is left over at the ends belongs to pages that were not named.
    const first = Math.ceil(page / account.unitPages);
    const units = Math.floor((page + count) / account.unitPages) - first;
    if (units <= 0) return;
    if (this.#accounts.elsewhere) this.#leaveToOthers(account, first, units);
    else this.#discardHere(account, first, units);
  };

  /**
   * Bytes from the beginning of the buffer on that are zeros when all that it named is discarded. A run that is not whole
   * units of one region ends them, and so does a list of which something was left out.
   */
  zeroedBytes({ walk, chain }: RunningQueue): number {
    if (walk.pagesLeft < 1) return 0;
    let bytes = 0;
    for (let index = chain.readableCount; index < chain.count; index++) {
      const pfn = chain.address(index) / PAGE_SIZE;
      const pages = chain.length(index) / PAGE_SIZE;
      const account = this.#accounts.find(Math.floor(pfn));
      if (account === undefined) break;
      const { firstPfn, pageCount, unitPages } = account;
      const whole = (pfn - firstPfn) % unitPages === 0 && pages % unitPages === 0;
      if (!whole || pfn + pages > firstPfn + pageCount) break;
      bytes += chain.length(index);
    }
    return bytes;
  }

  #leaveToOthers(account: PageAccount, first: number, units: number): void {
    if (account.reports === undefined) {
      account.openReports();
      this.#accounts.noteReports(account);
      this.#world.host.reportsOpened?.(account);
    }
    account.openReports().mark(first, units);
    this.#accountsOfRuns.push(account);
    this.#runs.push(first, units);
  }

  #discardHere(account: PageAccount, first: number, units: number): void {
    const { totals, times } = this.#accounts.reportsHere;
    const { clock } = this.#world;
    const startedMs = clock.nowMs();
    try {
      account.discardUnits(first, units);
      totals.lastMs = clock.nowMs();
      totals.ms += totals.lastMs - startedMs;
      times.count(totals.lastMs - startedMs, 1);
      totals.bytes += units * account.unitPages * PAGE_SIZE;
      totals.punches++;
      this.#noteDiscarded(account, first, units);
    } catch (error) {
      if (!(error instanceof AerostatError)) throw error;
      totals.failures++;
      this.#accounts.noteFailure(error);
    }
  }

  #noteDiscarded(account: PageAccount, first: number, units: number): void {
    const { unitPages, region } = account;
    account.noteReported(first * unitPages, units * unitPages);
    this.observer?.add(region.firstPfn + first * unitPages, units * unitPages);
  }
}
