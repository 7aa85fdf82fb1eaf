/**
 * Reported free pages (queues `reporting` and `hinting`): the guest keeps the pages out of its allocator until
 * their buffer is returned, so they are discarded before that, and read as zeros afterwards.
 */
import type { PageListFormat } from '../balloon/page-list-format.ts';
import { PAGE_SIZE, type PageSink } from '../memory/page.ts';
import { DurationHistogram } from '../sys/durations.ts';
import { AerostatError } from '../sys/error.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { DeviceCounters } from './counters.ts';
import type { ListWalk } from './list-walk.ts';
import type { PageAccount } from './page-account.ts';
import { noDiscards, type PageAccounts } from './page-accounts.ts';

export class Reporting {
  readonly #accounts: PageAccounts;
  readonly #counters: DeviceCounters;
  readonly totals = noDiscards();
  readonly discardTimes = new DurationHistogram();
  /**
   * Set while the guest counts on its free pages holding something else than zeros (PAGE_POISON with a value
   * that is not 0): discarding would change them (VIRTIO 1.4, 5.5.6.8.1).
   */
  keepContents = false;
  failure: Error | undefined;
  /** The guest has a queue for reports, or for hints that are isolated as reports are. */
  running = false;
  /** Hears of the pages of guest memory that were discarded, while the guest may not use them yet. */
  observer: PageSink | undefined;

  constructor(accounts: PageAccounts, counters: DeviceCounters) {
    this.#accounts = accounts;
    this.#counters = counters;
  }

  /** Begins the list of `walk`. @throws PageListError */
  report(walk: ListWalk, format: PageListFormat): void {
    this.#counters.reportingBuffers++;
    this.#counters.listBytes += walk.list.length;
    walk.begin(format, this.#reporting, this.#accounts);
  }

  readonly #reporting: PageSink = {
    add: (pfn, count) => {
      this.#counters.reportedPages += count;
      this.#accounts.forEachPart(pfn, count, this.#discard);
    },
  };

  readonly #discard = (account: PageAccount, page: number, count: number): void => {
    if (this.keepContents) return;
    // Whole units only: what is left over at the ends belongs to pages that were not reported.
    const first = Math.ceil(page / account.unitPages);
    const units = Math.floor((page + count) / account.unitPages) - first;
    if (units <= 0) return;
    const startedMs = monotonicMs();
    try {
      account.discardUnits(first, units);
      this.totals.lastMs = monotonicMs();
      this.totals.ms += this.totals.lastMs - startedMs;
      this.discardTimes.count(this.totals.lastMs - startedMs, 1);
      account.noteReported(first * account.unitPages, units * account.unitPages);
      this.observer?.add(account.region.firstPfn + first * account.unitPages, units * account.unitPages);
      this.totals.bytes += units * account.unitPages * PAGE_SIZE;
      this.totals.punches++;
    } catch (error) {
      if (!(error instanceof AerostatError)) throw error;
      this.totals.failures++;
      this.failure = error;
    }
  };
}
