/**
 * The accounts of all regions of one guest, addressed by page frame number, and the totals of regions that are
 * gone. Also the bound of what one list may cost: eight bytes can name all of memory, so a list of a megabyte could
 * name it a hundred thousand times.
 */
import type { MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE, type PageSink } from '../memory/page.ts';
import type { PendingDiscards } from '../memory/pending-discards.ts';
import { DurationHistogram } from '../sys/durations.ts';
import type { DeviceCounters } from './counters.ts';
import { DepartedAccounts } from './departed-accounts.ts';
import type { ListWalk } from './list-walk.ts';
import { PageAccount } from './page-account.ts';
import { TurnBudget } from './turn.ts';

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

export class PageAccounts {
  /** What naming pages costs, and whether the turn is over. */
  readonly budget = new TurnBudget();
  /** The list whose runs are passed on; undefined for runs that are the host's own. */
  walk: ListWalk | undefined;
  readonly #counters: DeviceCounters;
  /** In rising order of page frames. */
  readonly #accounts: PageAccount[] = [];
  /** Accounts in which something may be pending: of hundreds of regions nearly all have nothing. */
  #marked: PageAccount[] = [];
  /** Of regions that may come back. */
  readonly #departed = new DepartedAccounts();
  /** Discards of regions that are gone. */
  readonly #past = noDiscards();
  readonly #pastDiscardTimes = new DurationHistogram();
  readonly #pastReports = noDiscards();
  readonly #pastReportTimes = new DurationHistogram();
  #pastKeptPages = 0;
  #last: PageAccount | undefined;
  #held = false;
  /** A list was taken to its end since the accounts were empty. Until then all that is in them is of one that was begun. */
  settled = false;
  /** Whether other threads discard, and nothing here may wait for them. */
  #elsewhere = false;
  /** Runs in flight on pages that the guest took back: it is told only when they are over. */
  #inFlight: { readonly pending: PendingDiscards; readonly generation: number }[] = [];
  /** Regions that go as soon as no thread discards in them any more. */
  #leaving: { readonly account: PageAccount; readonly letGo: () => void }[] = [];
  /** Accounts of which pages were reported. */
  #withReports: PageAccount[] = [];
  /** Sets that are discarded without patience, since a guest or a front-end waits. */
  #hasty: PendingDiscards[] = [];
  /** The account began with a driver that had a balloon already: what that holds is not known. */
  partial = false;
  #memoryPages = 0;
  #failure: Error | undefined;
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

  /** While held, nothing that is pending is discarded, by any thread; what was under way is over when all is {@link quiet}. */
  get held(): boolean {
    return this.#held;
  }

  set held(held: boolean) {
    this.#held = held;
    for (const { pending } of this.#accounts) {
      pending.held = held;
      if (!held) continue;
      if (!this.#elsewhere) pending.waitWhileInFlight(0, pending.units);
      else if (pending.inFlight(0, pending.units)) this.#noteInFlight(pending);
    }
  }

  get balloonedPages(): number {
    return this.#accounts.reduce((total, account) => total + account.balloonedPages, 0);
  }

  /** Ballooned pages that wait for the rest of their huge pages. */
  get incompletePages(): number {
    return this.#accounts.reduce((total, account) => total + account.incompletePages, 0);
  }

  /** Pages that were in the balloon in memory that has been removed since. */
  get removedPages(): number {
    return this.#departed.balloonedPages;
  }

  forgetRemoved(): void {
    this.#departed.clear();
  }

  get pendingPages(): number {
    // Asked for by every batch: a loop, for a callback would be allocated each time.
    let pages = 0;
    let kept = 0;
    for (let index = 0; index < this.#marked.length; index++) {
      const account = this.#marked[index];
      const pending = account.pendingPages;
      pages += pending;
      // Only this thread marks, so that what has nothing pending has nothing until it is marked again.
      account.listed = pending > 0;
      if (pending > 0) this.#marked[kept++] = account;
    }
    this.#marked.length = kept;
    return pages;
  }

  /** Something of the account was marked as pending. */
  noteMarked(account: PageAccount): void {
    if (account.listed) return;
    account.listed = true;
    this.#marked.push(account);
  }

  /** Whether pages are pending that were left to wait for neighbours. */
  get waiting(): boolean {
    for (let index = 0; index < this.#marked.length; index++) {
      if (this.#marked[index].pending.waiting) return true;
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
    for (const { pending, unitPages } of this.#accounts) addTotals(totals, pending, unitPages);
    return totals;
  }

  /** What other threads discarded of the reported pages. */
  get reportDiscards(): DiscardTotals {
    const totals = { ...this.#pastReports };
    for (const { reports, unitPages } of this.#withReports) {
      if (reports !== undefined) addTotals(totals, reports, unitPages);
    }
    return totals;
  }

  /** How long that took, one by one; a copy. */
  get reportTimes(): DurationHistogram {
    const times = new DurationHistogram();
    times.add(this.#pastReportTimes);
    for (const { reports } of this.#withReports) if (reports !== undefined) times.add(reports.discardTimes);
    return times;
  }

  /** Reported pages that wait to be discarded before their buffers are returned. */
  get reportedPending(): number {
    let pages = 0;
    for (let index = 0; index < this.#withReports.length; index++) {
      const { reports, unitPages } = this.#withReports[index];
      if (reports !== undefined) pages += reports.outstanding * unitPages;
    }
    return pages;
  }

  /** The account has a set of reported pages from now on. */
  noteReports(account: PageAccount): void {
    this.#withReports.push(account);
  }

  /** The error of a discard that failed in another thread, as the kernel's number; 0 when none did. */
  get lastErrno(): number {
    for (const account of this.#accounts) {
      for (const set of setsOf(account)) if (set.lastErrno !== 0) return set.lastErrno;
    }
    return 0;
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
    this.#accounts.splice(this.#indexFrom(region.firstPfn), 0, account);
    this.#memoryPages += region.pageCount;
    this.#departed.restore(account);
    if (account.pendingPages > 0) this.noteMarked(account);
    return account;
  }

  /** From now on other threads discard: what is under way there is noted, and {@link quiet} says when it is over. */
  discardElsewhere(): void {
    this.#elsewhere = true;
  }

  get elsewhere(): boolean {
    return this.#elsewhere;
  }

  /** Drops what is pending in `region`, and calls `letGo` when no thread discards in it any more. */
  close(region: MemoryRegion, letGo: () => void): void {
    const index = this.#accounts.findIndex(account => account.region === region);
    if (index < 0) {
      letGo();
      return;
    }
    const [account] = this.#accounts.splice(index, 1);
    this.#memoryPages -= region.pageCount;
    const hadPending = account.pending.outstanding > 0;
    for (const set of setsOf(account)) {
      if (this.#elsewhere) set.closeNow();
      else set.close();
    }
    this.#departed.add(account, hadPending);
    this.#last = undefined;
    this.#marked = this.#marked.filter(other => other !== account);
    this.#withReports = this.#withReports.filter(other => other !== account);
    this.#leaving.push({ account, letGo });
    this.#letGo();
  }

  #letGo(): void {
    const leaving = this.#leaving;
    // First, for `letGo` may come back here.
    this.#leaving = [];
    for (const member of leaving) {
      const { pending, reports, unitPages, keptUnits } = member.account;
      const idle = setsOf(member.account).map(set => set.closeNow());
      if (idle.includes(false)) {
        this.#leaving.push(member);
        continue;
      }
      addTotals(this.#past, pending, unitPages);
      this.#pastDiscardTimes.add(pending.discardTimes);
      if (reports !== undefined) {
        addTotals(this.#pastReports, reports, unitPages);
        this.#pastReportTimes.add(reports.discardTimes);
      }
      this.#pastKeptPages += keptUnits * unitPages;
      member.letGo();
    }
  }

  /**
   * Whether no discard is under way any more whose end is waited for: those on pages that were taken back, and
   * those in regions that went. Always so where this thread discards.
   */
  get quiet(): boolean {
    if (this.#leaving.length > 0) this.#letGo();
    if (this.#inFlight.length > 0) {
      this.#inFlight = this.#inFlight.filter(({ pending, generation }) => pending.generation === generation);
    }
    return this.#inFlight.length === 0 && this.#leaving.length === 0;
  }

  /** What is passed on to the accounts where nothing waits here; a field, for it is asked for every run. */
  get noteInFlight(): ((pending: PendingDiscards) => void) | undefined {
    return this.#elsewhere ? this.#noteInFlight : undefined;
  }

  readonly #noteInFlight = (pending: PendingDiscards): void => {
    // In this order: whatever is in flight at the third line either is over by this generation already, or rings.
    const { generation } = pending;
    pending.watchRun();
    if (pending.inFlight(0, pending.units)) this.#inFlight.push({ pending, generation });
  };

  /** Has all that is pending discarded without patience, while its end is waited for. */
  set haste(haste: boolean) {
    for (const pending of this.#hasty) pending.haste = false;
    this.#hasty = haste ? this.#marked.map(({ pending }) => pending) : [];
    for (const pending of this.#hasty) pending.haste = true;
  }

  /** Has the threads that discard tell once when there is less to discard, see `PendingDiscards.watchDrain`. */
  watchDrain(): void {
    for (const { pending } of this.#marked) pending.watchDrain();
    for (const { reports } of this.#withReports) reports?.watchDrain();
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

  /** Discards all that is pending, in this thread. */
  drain(): void {
    for (const account of this.#marked) this.noteFailure(account.drain());
  }

  /** Discards, in this thread, until at most `pages` are pending. */
  drainDownTo(pages: number): void {
    for (const { pending, discardUnits } of [...this.#marked]) {
      for (let more = true; more && this.pendingPages > pages; ) {
        const result = pending.discardSome(discardUnits);
        this.noteFailure(result.failure);
        more = result.more;
      }
    }
  }

  /** A discard of this thread failed. */
  noteFailure(failure: Error | undefined): void {
    this.#failure = failure ?? this.#failure;
  }

  /** The last of those since this was called last. */
  takeFailure(): Error | undefined {
    const failure = this.#failure;
    this.#failure = undefined;
    return failure;
  }

  forget(): void {
    this.settled = false;
    this.#departed.clear();
    for (const account of this.#accounts) account.forget(this.noteInFlight);
  }
}

const setsOf = ({ pending, reports }: PageAccount): PendingDiscards[] =>
  reports === undefined ? [pending] : [pending, reports];

function addTotals(totals: DiscardTotals, set: PendingDiscards, unitPages: number): void {
  totals.bytes += set.discardedUnits * unitPages * PAGE_SIZE;
  totals.punches += set.discards;
  totals.failures += set.failures;
  totals.ms += set.discardMs;
  totals.lastMs = Math.max(totals.lastMs, set.lastDiscardMs);
}
