/**
 * How pages enter the account of a guest's balloon and leave it again, run by run, as the guest's lists name them. When the
 * pages go back to the host is `inflation.ts`'s.
 */
import { PAGE_SIZE, type PageSink } from '../memory/page.ts';
import { DurationHistogram } from '../sys/durations.ts';
import { AerostatError } from '../sys/error.ts';
import { noDiscards } from './discard-totals.ts';
import type { PageAccount } from './page-account.ts';
import type { PageAccounts } from './page-accounts.ts';
import type { PartWorld } from './part.ts';

/** 2 MiB, a huge page: a guest whose first runs happen to be longer is not taken for one that has no smaller pages. */
const GRANULARITY_PAGES_MAX = 512;

/** What is counted of it. */
interface MoveCounters {
  pages: number;
  deflatedPages: number;
  unknownPages: number;
}

export class PageMoves {
  readonly #world: PartWorld;
  readonly #accounts: PageAccounts;
  readonly #counters: MoveCounters;
  /** Pages are collected, to be discarded together. */
  collects = true;
  /** They are discarded here and now, page by page. */
  discardsSingly = false;
  /** Something was marked as pending since this was set to false. */
  marked = false;
  /** Pages were taken out of the middle of much that is pending, of which discarding threads may have missed the rest. */
  split = false;
  /** What was discarded page by page. */
  readonly singly = noDiscards();
  readonly singlyTimes: DurationHistogram;
  /** Bits that are set in the start or the length of some run that the guest gave. */
  #runBits = 0;
  /**
   * One word: pages that deflations have taken out of the account, and whose buffers were not returned. It may be too high by
   * the run that is taken just now, never too low.
   */
  readonly #untold: Uint32Array;
  /** As many of those are named once more: their lists are taken again, whole. */
  #again = 0;
  /** Buffers that were returned since that is so. */
  #sinceAgain = 0;
  /** Pages of the list that is being taken. */
  #ofList = 0;

  constructor(world: PartWorld, counters: MoveCounters) {
    this.#world = world;
    this.#accounts = world.accounts;
    this.#counters = counters;
    this.singlyTimes = new DurationHistogram(undefined, world.clock);
    this.#untold = world.accounts.untold;
  }

  /** Pages of the pieces that the guest gives: all runs begin and end at multiples of it. A huge page at most. */
  get granularityPages(): number {
    return this.#runBits === 0 ? 1 : Math.min(this.#runBits & -this.#runBits, GRANULARITY_PAGES_MAX);
  }

  readonly inflating: PageSink = {
    add: (pfn, count) => {
      this.#counters.pages += count;
      this.#runBits |= pfn | count;
      if (count === 1 && this.#giveOne(pfn)) return;
      this.#accounts.forEachPart(pfn, count, this.give);
    },
  };

  readonly deflating: PageSink = {
    add: (pfn, count) => {
      if (count === 1 && this.#takeOne(pfn)) return;
      const outside = this.#accounts.pagesOutside;
      this.#accounts.forEachPart(pfn, count, this.#take);
      // It takes back pages of memory that is not there: should that come back, what of it is the guest's is not known.
      if (this.#accounts.pagesOutside !== outside) this.#accounts.forgetRemoved();
    },
  };

  /** What {@link give} does for a page, the short way; false where that has to be done. */
  #giveOne(pfn: number): boolean {
    if (!this.collects) return false;
    const account = this.#accounts.nameOne(pfn);
    if (account === undefined) return false;
    const page = pfn - account.firstPfn;
    if (account.giveOne(page)) {
      this.#accounts.noteMarked(account);
      this.marked = true;
    } else {
      this.#accounts.useNamed(account, page, 1, this.give);
    }
    return true;
  }

  /** The same for {@link #take}. */
  #takeOne(pfn: number): boolean {
    const account = this.#accounts.nameOne(pfn);
    if (account === undefined) return false;
    const page = pfn - account.firstPfn;
    const [untold] = this.#untold;
    this.#untold[0] = untold + 1;
    const taken = account.takeOne(page, this.#accounts.noteInFlight);
    this.split ||= account.pending.takeRest();
    if (taken < 0) {
      this.#untold[0] = untold;
      this.#accounts.useNamed(account, page, 1, this.#take);
    } else {
      this.#taken(untold, taken, 1);
    }
    return true;
  }

  readonly give = (account: PageAccount, page: number, count: number): void => {
    account.give(page, count, this.collects);
    if (this.collects) {
      this.#accounts.noteMarked(account);
      this.marked = true;
    }
    if (this.discardsSingly && account.unitPages === 1) this.#discardSingly(account, page, count);
  };

  /** Into the account, and no more. */
  readonly note = (account: PageAccount, page: number, count: number): void => {
    account.give(page, count, false);
  };

  readonly #take = (account: PageAccount, page: number, count: number): void => {
    const [untold] = this.#untold;
    // First: a process that ends here has taken no more than it says.
    this.#untold[0] = untold + count;
    const taken = account.take(page, count, this.#accounts.noteInFlight);
    this.split ||= account.pending.takeRest();
    this.#taken(untold, taken, count);
  };

  /** Of `count` pages that a deflation names, `taken` were in the account; `untold` is what was untold before. */
  #taken(untold: number, taken: number, count: number): void {
    this.#untold[0] = untold + taken;
    let deflated = taken;
    if (taken < count) {
      const again = Math.min(count - taken, this.#again);
      this.#again -= again;
      deflated += again;
      // Taking back what was never given changes nothing, but no driver does it. It may have been given to another device.
      if (this.#accounts.partial) this.#counters.unknownPages += count - deflated;
      else this.#world.counters.badPages += count - deflated;
    }
    this.#ofList += deflated;
    this.#counters.deflatedPages += deflated;
  }

  // Deflations that are taken more than once ----------------------------------------------------------------

  /** A deflation begins. */
  beginTaking(): void {
    this.#ofList = 0;
  }

  /** The deflation that was begun is taken again, whole. */
  takesAgain(): void {
    this.#again += this.#ofList;
    this.#sinceAgain = 0;
    this.#ofList = 0;
  }

  /**
   * All deflations that were taken and not returned are taken again, also those of a process that has ended. As many pages as
   * they took may be missing from the account and are none that no driver would name; no more.
   */
  takesAllAgain(): void {
    [this.#again] = this.#untold;
    this.#sinceAgain = 0;
    this.#ofList = 0;
  }

  /** So many deflations of a ring of `size` were returned; another one may be half taken. */
  returned(buffers: number, size: number, halfTaken: boolean): void {
    this.#sinceAgain += buffers;
    // All that were there then have come by.
    if (this.#sinceAgain >= size) this.#again = 0;
    this.#untold[0] = this.#again + (halfTaken ? this.#ofList : 0);
  }

  /** Nothing is owed to a driver. */
  forget(): void {
    this.#again = 0;
    this.#ofList = 0;
    this.#untold[0] = 0;
  }

  #discardSingly(account: PageAccount, page: number, count: number): void {
    const totals = this.singly;
    const { clock } = this.#world;
    const startedMs = clock.nowMs();
    this.singlyTimes.begin();
    for (let unit = page; unit < page + count; unit++) {
      try {
        account.discardUnits(unit, 1);
        totals.bytes += PAGE_SIZE;
        totals.punches++;
        this.singlyTimes.end(1);
      } catch (error) {
        if (!(error instanceof AerostatError)) throw error;
        totals.failures++;
        this.#accounts.noteFailure(error);
        this.singlyTimes.begin();
      }
    }
    totals.lastMs = clock.nowMs();
    totals.ms += totals.lastMs - startedMs;
  }
}
