/**
 * Inflate and deflate buffers, and the rule of when inflated pages go back to the host:
 *
 * - With MUST_TELL_HOST the driver may not use an inflated page before its deflation is acknowledged (VIRTIO
 *   1.4, 5.5.6.1). So a buffer can be returned at once and its pages be discarded later, in large runs and by
 *   another thread; a deflation takes pages that are still pending out again, with their memory.
 * - Without it the driver may use a page as soon as it wants it back, so the discard comes before the
 *   acknowledgement.
 *
 * Pages of all buffers of a batch are collected in bitmaps and leave them as maximal runs.
 */
import { MUST_TELL_HOST } from '../balloon/features.ts';
import type { PageListFormat } from '../balloon/page-list-format.ts';
import { PAGE_SIZE, type PageSink } from '../memory/page.ts';
import { DurationHistogram } from '../sys/durations.ts';
import { AerostatError } from '../sys/error.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { DeviceCounters } from './counters.ts';
import type { ListWalk } from './list-walk.ts';
import type { PageAccount } from './page-account.ts';
import { type DiscardTotals, noDiscards, type PageAccounts } from './page-accounts.ts';

/** `auto` chooses between the two ways by the rule above; `none` and `per-page` exist for comparisons. */
export const DISCARD_MODES = ['auto', 'before-ack', 'after-ack', 'none', 'per-page'] as const;
export type DiscardMode = (typeof DISCARD_MODES)[number];

/**
 * Memory that may be pending for one guest, but for sparse pages that wait for neighbours (they are bounded in age, see
 * `PatientDiscarder`). Above it the thread that talks to the guest discards as well, before it acknowledges more, as
 * much as is added, so that a guest cannot run ahead of the host for longer than the kernel takes to discard this
 * much: 0.2 s. A guest that is no faster than the kernel has some tens of milliseconds pending. Half of it would
 * already slow a fast guest down to the kernel's pace (docs/benchmarks.md).
 */
export const PENDING_BYTES_MAX = 2 * 2 ** 30;

/** 2 MiB, a huge page: a guest whose first runs happen to be longer is not taken for one that has no smaller pages. */
const GRANULARITY_PAGES_MAX = 512;

export class Inflation {
  readonly #accounts: PageAccounts;
  readonly #counters: DeviceCounters;
  #mode: DiscardMode = 'auto';
  /** Whether the mode has pages collected, to be discarded together. */
  #collects = true;
  #mustTellHost = false;
  /** Whether decoding is timed, for benchmarks: reading the clock allocates, and nothing else here does. */
  timed = false;
  #marked = false;
  /** Pages that were pending when a batch was acknowledged last. */
  #pendingPages = 0;
  /** What `per-page` discarded, page by page. */
  readonly #singly = noDiscards();
  readonly #singlyTimes = new DurationHistogram();
  /** Bits that are set in the start or the length of some run that the guest gave. */
  #runBits = 0;
  failure: Error | undefined;

  constructor(accounts: PageAccounts, counters: DeviceCounters) {
    this.#accounts = accounts;
    this.#counters = counters;
  }

  negotiated(features: bigint): void {
    this.#mustTellHost = (features & MUST_TELL_HOST) !== 0n;
  }

  get mode(): DiscardMode {
    return this.#mode;
  }

  /** Changes the mode between two buffers. What is pending under the old one is discarded first, or by other threads. */
  set mode(mode: DiscardMode) {
    if (!this.#accounts.elsewhere) this.drain();
    this.#mode = mode;
    this.#collects = mode !== 'none' && mode !== 'per-page';
  }

  /** Whether buffers may be returned before their pages are discarded. */
  get acknowledgesFirst(): boolean {
    return this.#mustTellHost && (this.#mode === 'auto' || this.#mode === 'after-ack');
  }

  get discards(): DiscardTotals {
    const { bytes, punches, failures, ms, lastMs } = this.#accounts.discards;
    const singly = this.#singly;
    return {
      bytes: bytes + singly.bytes,
      punches: punches + singly.punches,
      failures: failures + singly.failures,
      ms: ms + singly.ms,
      lastMs: Math.max(lastMs, singly.lastMs),
    };
  }

  /** How long those discards took, one by one; a copy. */
  get discardTimes(): DurationHistogram {
    const times = this.#accounts.discardTimes;
    times.add(this.#singlyTimes);
    return times;
  }

  /** Begins the list of `walk`. @throws PageListError */
  inflate(walk: ListWalk, format: PageListFormat): void {
    this.#counters.inflateBuffers++;
    this.#counters.listBytes += walk.list.length;
    walk.begin(format, this.#inflating, this.#accounts);
  }

  /** Begins the list of `walk`. @throws PageListError */
  deflate(walk: ListWalk, format: PageListFormat): void {
    this.#counters.deflateBuffers++;
    this.#counters.listBytes += walk.list.length;
    walk.begin(format, this.#deflating, this.#accounts);
  }

  /** Goes on with a list that was begun, for as long as the turn lasts; true when it is done. */
  goOn(walk: ListWalk): boolean {
    const startedMs = this.timed ? performance.now() : 0;
    const done = walk.goOn(this.#accounts);
    if (this.timed) this.#counters.decodeMs += performance.now() - startedMs;
    if (done) this.#accounts.settled = true;
    return done;
  }

  /**
   * An inflation of which a part is taken is left, to be taken whole some other time. Where it was the first, the account
   * is empty again: its ring stands where another driver's begins, and that one gave none of these pages.
   */
  leave(): void {
    if (!this.#accounts.settled) this.#accounts.forget();
  }

  /** Takes over what the guest gave another device: pairs of page frame and pages, all of them guest memory. */
  adopt(runs: Uint32Array): void {
    this.#accounts.settled = true;
    for (let at = 0; at < runs.length; at += 2) {
      this.#accounts.forEachPart(runs[at], runs[at + 1], this.#give);
    }
  }

  /** To be called after a batch and before its buffers are returned; see {@link mayAcknowledge}. */
  beforeAcknowledging(): void {
    const pagesMax = this.#pendingPagesMax();
    if (this.#accounts.elsewhere) {
      if (pagesMax === 0) this.#accounts.haste = true;
      return;
    }
    if (!this.#marked) return;
    if (this.#accounts.pendingPages > pagesMax) {
      this.failure = this.#accounts.drainDownTo(pagesMax) ?? this.failure;
    }
    this.#pendingPages = this.#accounts.pendingPages;
  }

  /**
   * Whether other threads have discarded so much of what was pending that a batch may be returned. Where not, there will be
   * news of it.
   */
  mayAcknowledge(): boolean {
    if (this.#accounts.pendingPages > this.#pendingPagesMax()) {
      // In this order: what is discarded after the first line rings.
      this.#accounts.watchDrain();
      if (this.#accounts.pendingPages > this.#pendingPagesMax()) return false;
    }
    if (!this.acknowledgesFirst) this.#accounts.haste = false;
    this.#pendingPages = this.#accounts.pendingPages;
    return true;
  }

  #pendingPagesMax(): number {
    if (!this.acknowledgesFirst) return 0;
    if (this.#accounts.waiting) return Infinity;
    // What has waited may be far above the bound. The batch adds nothing to it; nor does it wait for all of it.
    return Math.max(PENDING_BYTES_MAX / PAGE_SIZE, this.#pendingPages);
  }

  /** Whether something was marked since the last call that the discarding thread must be woken for. */
  takeMarked(): boolean {
    const marked = this.#marked;
    this.#marked = false;
    return marked && this.acknowledgesFirst;
  }

  /** Discards all that is pending. */
  drain(): void {
    this.failure = this.#accounts.drain() ?? this.failure;
  }

  /** Pages of the pieces that the guest gives: all runs begin and end at multiples of it. A huge page at most. */
  get granularityPages(): number {
    return this.#runBits === 0 ? 1 : Math.min(this.#runBits & -this.#runBits, GRANULARITY_PAGES_MAX);
  }

  readonly #inflating: PageSink = {
    add: (pfn, count) => {
      this.#counters.pages += count;
      this.#runBits |= pfn | count;
      if (count === 1 && this.#giveOne(pfn)) return;
      this.#accounts.forEachPart(pfn, count, this.#give);
    },
  };

  readonly #deflating: PageSink = {
    add: (pfn, count) => {
      if (count === 1 && this.#takeOne(pfn)) return;
      const outside = this.#accounts.pagesOutside;
      this.#accounts.forEachPart(pfn, count, this.#take);
      // It takes back pages of memory that is not there: should that come back, nobody knows what of it is the guest's.
      if (this.#accounts.pagesOutside !== outside) this.#accounts.forgetRemoved();
    },
  };

  /** What {@link #give} does for a page, the short way; false where that has to be done. */
  #giveOne(pfn: number): boolean {
    if (!this.#collects) return false;
    const account = this.#accounts.nameOne(pfn);
    if (account === undefined) return false;
    const page = pfn - account.firstPfn;
    if (account.giveOne(page)) {
      this.#accounts.noteMarked(account);
      this.#marked = true;
    } else {
      this.#accounts.useNamed(account, page, 1, this.#give);
    }
    return true;
  }

  /** The same for {@link #take}. */
  #takeOne(pfn: number): boolean {
    const account = this.#accounts.nameOne(pfn);
    if (account === undefined) return false;
    const page = pfn - account.firstPfn;
    const taken = account.takeOne(page, this.#accounts.noteInFlight);
    if (taken < 0) {
      this.#accounts.useNamed(account, page, 1, this.#take);
    } else {
      this.#counters.deflatedPages += taken;
      this.#counters.badPages += 1 - taken;
    }
    return true;
  }

  readonly #give = (account: PageAccount, page: number, count: number): void => {
    account.give(page, count, this.#collects);
    if (this.#collects) {
      this.#accounts.noteMarked(account);
      this.#marked = true;
    }
    if (this.#mode === 'per-page' && account.unitPages === 1) this.#discardSingly(account, page, count);
  };

  readonly #take = (account: PageAccount, page: number, count: number): void => {
    const taken = account.take(page, count, this.#accounts.noteInFlight);
    this.#counters.deflatedPages += taken;
    // Taking back what was never given changes nothing, but no driver does it. It may have been given to another device.
    if (this.#accounts.partial) this.#counters.unknownPages += count - taken;
    else this.#counters.badPages += count - taken;
  };

  #discardSingly(account: PageAccount, page: number, count: number): void {
    const totals = this.#singly;
    const startedMs = monotonicMs();
    this.#singlyTimes.begin();
    for (let unit = page; unit < page + count; unit++) {
      try {
        account.discardUnits(unit, 1);
        totals.bytes += PAGE_SIZE;
        totals.punches++;
        this.#singlyTimes.end(1);
      } catch (error) {
        if (!(error instanceof AerostatError)) throw error;
        totals.failures++;
        this.failure = error;
        this.#singlyTimes.begin();
      }
    }
    totals.lastMs = monotonicMs();
    totals.ms += totals.lastMs - startedMs;
  }
}
