/**
 * The accounts of all regions of one guest: what of them is pending, what other threads have under way in them, and the
 * totals of regions that are gone. How lists name their pages is `addressed-accounts.ts`'s.
 */
import type { BlockWords } from '../memory/block-bitmap.ts';
import type { MemoryRegion } from '../memory/guest-memory.ts';
import type { PendingDiscards } from '../memory/pending-discards.ts';
import { DurationHistogram } from '../sys/durations.ts';
import { AddressedAccounts } from './addressed-accounts.ts';
import type { DeviceCounters } from './counters.ts';
import { DepartedAccounts } from './departed-accounts.ts';
import { DiscardSum, type DiscardTotals, noDiscards } from './discard-totals.ts';
import { PageAccount } from './page-account.ts';

/** Where accounts are, if they are to outlive this process. */
export interface AccountPlace {
  /** Of the account of `region`. */
  wordsOf(region: MemoryRegion): BlockWords;
  /** How the device stands to its driver is another; it is to be known before the driver hears of it. */
  tenureChanged(): void;
  /** One word, see {@link PageAccounts.untold}. */
  readonly untold: Uint32Array;
}

export class PageAccounts extends AddressedAccounts {
  /** Accounts in which something may be pending: of hundreds of regions nearly all have nothing. */
  #marked: PageAccount[] = [];
  /** Of regions that may come back. */
  readonly #departed = new DepartedAccounts();
  /** Discards of regions that are gone. */
  readonly #past = new DiscardSum();
  readonly #pastReports = new DiscardSum();
  /** Reported pages that this thread discarded. */
  readonly reportsHere = { totals: noDiscards(), times: new DurationHistogram() };
  #pastKeptPages = 0;
  #held = false;
  #settled = false;
  /** Whether other threads discard, and nothing here may wait for them. */
  #elsewhere = false;
  /** Runs in flight on pages that the guest took back: it is told only when they are over. */
  #inFlight: { readonly pending: PendingDiscards; readonly generation: number }[] = [];
  /** Regions that go as soon as no thread discards in them any more. */
  #leaving: { readonly account: PageAccount; readonly released: () => void }[] = [];
  /** Accounts of which pages were reported. */
  #withReports: PageAccount[] = [];
  /** Sets that are discarded without patience, since a guest or a front-end waits. */
  #hasty: PendingDiscards[] = [];
  /** The account began with a driver that had a balloon already: what that holds is not known. */
  partial = false;
  /** One word: pages that deflations have taken, and of which the driver was not told (`PageMoves`). */
  readonly untold: Uint32Array;
  #failure: Error | undefined;
  readonly #place: AccountPlace | undefined;

  constructor(counters: DeviceCounters, place?: AccountPlace) {
    super(counters);
    this.#place = place;
    this.untold = place?.untold ?? new Uint32Array(1);
  }

  /** A list was taken to its end since the accounts were empty. Until then all that is in them is of one that was begun. */
  get settled(): boolean {
    return this.#settled;
  }

  set settled(settled: boolean) {
    if (this.#settled === settled) return;
    this.#settled = settled;
    this.#place?.tenureChanged();
  }

  /** While held, nothing that is pending is discarded, by any thread; what was under way is over when all is {@link quiet}. */
  get held(): boolean {
    return this.#held;
  }

  set held(held: boolean) {
    this.#held = held;
    for (const { pending } of this.all) {
      pending.held = held;
      if (!held) continue;
      if (!this.#elsewhere) pending.waitWhileInFlight(0, pending.units);
      else if (pending.inFlight(0, pending.units)) this.#noteInFlight(pending);
    }
  }

  get balloonedPages(): number {
    return this.all.reduce((total, account) => total + account.balloonedPages, 0);
  }

  /** Ballooned pages that wait for the rest of their huge pages. */
  get incompletePages(): number {
    return this.all.reduce((total, account) => total + account.incompletePages, 0);
  }

  /** Pages that were in the balloon in memory that has been removed since. */
  get removedPages(): number {
    return this.#departed.balloonedPages;
  }

  forgetRemoved(): void {
    this.#departed.clear();
  }

  get pendingPages(): number {
    return this.#pending(false);
  }

  /** What is pending, by the small pages that take the kernel as long. */
  get pendingWork(): number {
    return this.#pending(true);
  }

  #pending(asWork: boolean): number {
    // Asked for by every batch: a loop, for a callback would be allocated each time.
    let pages = 0;
    let kept = 0;
    for (let index = 0; index < this.#marked.length; index++) {
      const account = this.#marked[index];
      const pending = asWork ? account.pendingWork : account.pendingPages;
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
    return this.all.reduce(
      (total, { keptUnits, unitPages }) => total + keptUnits * unitPages,
      this.#pastKeptPages,
    );
  }

  get discards(): DiscardTotals {
    const sum = this.#past.copy();
    for (const { pending, unitPages } of this.all) sum.add(pending, unitPages);
    return sum.totals;
  }

  /** What was discarded of the pages whose buffers are returned after that. */
  get reportDiscards(): DiscardTotals {
    const sum = this.#pastReports.copy();
    for (const { reports, unitPages } of this.#withReports) {
      if (reports !== undefined) sum.add(reports, unitPages);
    }
    const { totals } = sum;
    const here = this.reportsHere.totals;
    for (const figure of ['bytes', 'punches', 'failures', 'ms'] as const) totals[figure] += here[figure];
    totals.lastMs = Math.max(totals.lastMs, here.lastMs);
    return totals;
  }

  /** How long that took, one by one; a copy. */
  get reportTimes(): DurationHistogram {
    const { times } = this.#pastReports.copy();
    times.add(this.reportsHere.times);
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
    for (const account of this.all) {
      for (const set of setsOf(account)) if (set.lastErrno !== 0) return set.lastErrno;
    }
    return 0;
  }

  /** How long discards took, one by one; a copy. */
  get discardTimes(): DurationHistogram {
    const { times } = this.#past.copy();
    for (const { pending } of this.all) times.add(pending.discardTimes);
    return times;
  }

  open(region: MemoryRegion): PageAccount {
    const account = new PageAccount(region, this.#place?.wordsOf(region));
    if (this.#held) account.pending.held = true;
    this.insert(account);
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

  /** Drops what is pending in `region`, and calls `released` when no thread discards in it any more. */
  close(region: MemoryRegion, released: () => void): void {
    const account = this.remove(region);
    if (account === undefined) {
      released();
      return;
    }
    const hadPending = account.pending.outstanding > 0;
    for (const set of setsOf(account)) {
      if (this.#elsewhere) set.closeNow();
      else set.close();
    }
    this.#departed.add(account, hadPending, this.#place !== undefined);
    this.#marked = this.#marked.filter(other => other !== account);
    this.#withReports = this.#withReports.filter(other => other !== account);
    this.#leaving.push({ account, released });
    this.#release();
  }

  #release(): void {
    const leaving = this.#leaving;
    // First, for `released` may come back here.
    this.#leaving = [];
    for (const member of leaving) {
      const { pending, reports, unitPages, keptUnits } = member.account;
      const idle = setsOf(member.account).map(set => set.closeNow());
      if (idle.includes(false)) {
        this.#leaving.push(member);
        continue;
      }
      this.#past.add(pending, unitPages);
      this.#past.times.add(pending.discardTimes);
      if (reports !== undefined) {
        this.#pastReports.add(reports, unitPages);
        this.#pastReports.times.add(reports.discardTimes);
      }
      this.#pastKeptPages += keptUnits * unitPages;
      member.released();
    }
  }

  /**
   * Whether no discard is under way any more whose end is waited for: those on pages that were taken back, and
   * those in regions that went. Always so where this thread discards.
   */
  get quiet(): boolean {
    if (this.#leaving.length > 0) this.#release();
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

  /** Discards all that is pending, in this thread. */
  drain(): void {
    for (const account of this.#marked) this.noteFailure(account.drain());
  }

  /** Discards, in this thread, until {@link pendingWork} is at most `work`. */
  drainDownTo(work: number): void {
    for (const { pending, discardUnits } of [...this.#marked]) {
      for (let more = true; more && this.pendingWork > work; ) {
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

  /** Goes on with what another process left in the accounts' words, see {@link PageAccount.recover}. */
  recover(discard: boolean): void {
    for (const account of this.all) {
      account.recover(discard);
      if (account.pendingPages > 0) this.noteMarked(account);
    }
  }

  forget(): void {
    // First: of an account that is half forgotten nothing counts.
    this.settled = false;
    this.#departed.clear();
    for (const account of this.all) account.forget(this.noteInFlight);
  }
}

const setsOf = ({ pending, reports }: PageAccount): PendingDiscards[] =>
  reports === undefined ? [pending] : [pending, reports];
