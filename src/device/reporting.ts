/**
 * Reported free pages (queues `reporting` and `hinting`): the guest keeps the pages out of its allocator until
 * their buffer is returned, so they are discarded before that, and read as zeros afterwards.
 */
import { PAGE_SIZE, type PageSink } from '../memory/page.ts';
import { DurationHistogram } from '../sys/durations.ts';
import { AerostatError } from '../sys/error.ts';
import { type DiscardTotals, noDiscards } from './discard-totals.ts';
import type { PageAccount } from './page-account.ts';
import type { PageAccounts } from './page-accounts.ts';
import type { DevicePart, PartWorld } from './part.ts';
import type { RunningQueue } from './running-queue.ts';

export class Reporting implements DevicePart {
  readonly roles = ['reporting', 'hinting'] as const;
  readonly counters = { reportingBuffers: 0, reportedPages: 0 };
  readonly #world: PartWorld;
  readonly #accounts: PageAccounts;
  /** What was discarded in this thread. */
  readonly #here = noDiscards();
  readonly #timesHere = new DurationHistogram();
  /** What the batch reported that other threads discard: region, first unit and units of each run. */
  readonly #accountsOfRuns: PageAccount[] = [];
  readonly #runs: number[] = [];
  /** Discards of theirs that had failed when the batch began. */
  #failuresBefore = 0;
  #poisons = false;
  /** The guest has a queue for reports, or for hints that are isolated as reports are. */
  running = false;
  /** Hears of the pages of guest memory that were discarded, while the guest may not use them yet. */
  observer: PageSink | undefined;

  constructor(world: PartWorld) {
    this.#world = world;
    this.#accounts = world.accounts;
  }

  negotiated(features: bigint): void {
    this.#poisons = (features & this.#world.profile.poisonFeature) !== 0n;
  }

  /**
   * The guest counts on its free pages holding something else than zeros (PAGE_POISON with a value that is not 0):
   * discarding would change them (VIRTIO 1.4, 5.5.6.8.1).
   */
  get keepContents(): boolean {
    return this.#poisons && this.#world.config.poisonValue !== 0;
  }

  start(): void {
    this.running = true;
  }

  /** A batch that it keeps is that of a guest or a front-end that is given up: in order, it settles first. */
  stop(ring: RunningQueue): void {
    if (ring.kept) this.#forget();
    this.running = false;
  }

  reset(): void {}

  get totals(): DiscardTotals {
    const elsewhere = this.#accounts.reportDiscards;
    const here = this.#here;
    return {
      bytes: elsewhere.bytes + here.bytes,
      punches: elsewhere.punches + here.punches,
      failures: elsewhere.failures + here.failures,
      ms: elsewhere.ms + here.ms,
      lastMs: Math.max(elsewhere.lastMs, here.lastMs),
    };
  }

  /** How long those discards took, one by one; a copy. */
  get discardTimes(): DurationHistogram {
    const times = this.#accounts.reportTimes;
    times.add(this.#timesHere);
    return times;
  }

  /** Nothing that the batch reported may wait to be discarded. Where something does, news of it will come. */
  mayReturn(): boolean {
    if (this.#runs.length === 0) return true;
    // In this order: what is discarded after the first line rings.
    this.#accounts.watchDrain();
    if (this.#accounts.reportedPending > 0) return false;
    this.#noteElsewhere();
    return true;
  }

  /** Notes what of the batch other threads discarded. */
  #noteElsewhere(): void {
    // Which of them failed is not known. They keep their memory, so what is noted as gone must be gone.
    const failed = this.#accounts.reportDiscards.failures > this.#failuresBefore;
    for (let index = 0; index < this.#accountsOfRuns.length && !failed; index++) {
      this.#noteDiscarded(this.#accountsOfRuns[index], this.#runs[index * 2], this.#runs[index * 2 + 1]);
    }
    this.#forget();
  }

  /** Nothing of the batch is left to be noted. */
  #forget(): void {
    this.#accountsOfRuns.length = 0;
    this.#runs.length = 0;
  }

  take(ring: RunningQueue): true {
    const list = ring.readList();
    const { profile, counters } = this.#world;
    this.counters.reportingBuffers++;
    counters.listBytes += list.length;
    ring.walk.begin(profile.freePages.format, this.#reporting, this.#accounts);
    return true;
  }

  readonly #reporting: PageSink = {
    add: (pfn, count) => {
      this.counters.reportedPages += count;
      this.#accounts.forEachPart(pfn, count, this.#discard);
    },
  };

  readonly #discard = (account: PageAccount, page: number, count: number): void => {
    if (this.keepContents) return;
    // Whole units only: what is left over at the ends belongs to pages that were not reported.
    const first = Math.ceil(page / account.unitPages);
    const units = Math.floor((page + count) / account.unitPages) - first;
    if (units <= 0) return;
    if (this.#accounts.elsewhere) this.#leaveToOthers(account, first, units);
    else this.#discardHere(account, first, units);
  };

  #leaveToOthers(account: PageAccount, first: number, units: number): void {
    if (account.reports === undefined) {
      account.openReports();
      this.#accounts.noteReports(account);
      this.#world.host.reportsOpened?.(account);
    }
    if (this.#runs.length === 0) this.#failuresBefore = this.#accounts.reportDiscards.failures;
    account.openReports().mark(first, units);
    this.#accountsOfRuns.push(account);
    this.#runs.push(first, units);
  }

  #discardHere(account: PageAccount, first: number, units: number): void {
    const totals = this.#here;
    const { clock } = this.#world;
    const startedMs = clock.nowMs();
    try {
      account.discardUnits(first, units);
      totals.lastMs = clock.nowMs();
      totals.ms += totals.lastMs - startedMs;
      this.#timesHere.count(totals.lastMs - startedMs, 1);
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
