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
import { listFormat } from '../balloon/profiles.ts';
import { PAGE_SIZE, type PageSink } from '../memory/page.ts';
import { DurationHistogram } from '../sys/durations.ts';
import { AerostatError } from '../sys/error.ts';
import type { StopReason } from '../virtio/device.ts';
import { initialState } from '../virtio/queue.ts';
import type { PageAccount } from './page-account.ts';
import { type DiscardTotals, noDiscards, type PageAccounts } from './page-accounts.ts';
import type { DevicePart, PartWorld } from './part.ts';
import type { RunningQueue } from './running-queue.ts';

/** `auto` chooses between the two ways by the rule above. */
export const DISCARD_MODES = ['auto', 'before-ack', 'after-ack'] as const;

/** `none` and `per-page` are what benchmarks compare with: code of this process can ask for them, an operator cannot. */
export const BENCH_DISCARD_MODES = [...DISCARD_MODES, 'none', 'per-page'] as const;
export type DiscardMode = (typeof BENCH_DISCARD_MODES)[number];

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

/** How a device stands to the driver of its guest. */
interface Tenure {
  /** The inflate ring ran since the driver began. */
  readonly begun: boolean;
  /** The driver's balloon was filled before, and with what is not known. */
  readonly partial: boolean;
  /** A list of the driver's was taken whole. */
  readonly settled: boolean;
  /** The driver has said what its balloon holds. */
  readonly actualKnown: boolean;
}

export class Inflation implements DevicePart {
  readonly roles = ['inflate', 'deflate'] as const;
  readonly counters = {
    inflateBuffers: 0,
    deflateBuffers: 0,
    /** Milliseconds spent on turning lists into the account's pages; counted only where decoding is {@link timed}. */
    decodeMs: 0,
    pages: 0,
    deflatedPages: 0,
    unknownPages: 0,
  };
  /** From taking a buffer to its return; a batch's buffers count alike. */
  readonly acknowledgeTimes: DurationHistogram;
  readonly #world: PartWorld;
  readonly #accounts: PageAccounts;
  #features = 0n;
  #format: PageListFormat;
  /** The inflate ring ran since the driver began. */
  #begun = false;
  /** All that is pending is to be discarded by other threads, and the end of that is waited for. */
  #draining = false;
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
  readonly #singlyTimes: DurationHistogram;
  /** Bits that are set in the start or the length of some run that the guest gave. */
  #runBits = 0;

  constructor(world: PartWorld) {
    this.#world = world;
    this.#accounts = world.accounts;
    this.#format = world.profile.format;
    this.acknowledgeTimes = new DurationHistogram(undefined, world.clock);
    this.#singlyTimes = new DurationHistogram(undefined, world.clock);
  }

  negotiated(features: bigint): void {
    this.#features = features;
    this.#format = listFormat(this.#world.profile, features);
    this.#mustTellHost = (features & MUST_TELL_HOST) !== 0n;
  }

  /** Whether the inflate ring ran since the driver began. */
  get begun(): boolean {
    return this.#begun;
  }

  // Its rings ---------------------------------------------------------------------------------------------

  start(ring: RunningQueue): void {
    if (ring.role !== 'inflate') return;
    this.#begin(ring);
    this.#hold(false);
  }

  /** Of what was acknowledged nothing is discarded meanwhile, since another driver may use those pages. */
  suspend(ring: RunningQueue): void {
    if (ring.role === 'inflate') this.#hold(true);
  }

  resume(ring: RunningQueue): void {
    if (ring.role === 'inflate') this.#hold(false);
  }

  /**
   * `paused`: what was acknowledged is finished, so that all that the guest gave away is back at the host; `abandoned`:
   * what is pending is the guest's again and keeps its memory; `undecided`: it is as it was while the ring was suspended.
   */
  stop(ring: RunningQueue, reason: StopReason): void {
    if (reason === 'undecided') return;
    if (ring.role === 'inflate') this.#accounts.held = false;
    if (reason === 'paused') this.drain();
    else this.#forget();
  }

  reset(): void {
    this.#forget();
    this.#accounts.held = false;
  }

  /** A ring that starts in the middle has a driver whose balloon was filled before, and nothing here knows with what. */
  #begin({ queue }: RunningQueue): void {
    if (this.#begun) return;
    this.#begun = true;
    const fresh = queue.nextAvail === initialState(this.#features).nextAvail;
    this.#accounts.partial = !fresh;
    this.#world.config.actualKnown ||= fresh;
  }

  /** Nothing is in the balloon, as far as the account knows. */
  #forget(): void {
    this.#accounts.forget();
    this.#accounts.partial = false;
    this.#begun = false;
  }

  /** Sees to it that nothing that is pending is discarded, or lets it be discarded again. */
  #hold(held: boolean): void {
    if (this.#accounts.held === held) return;
    this.#accounts.held = held;
    if (!held && this.#accounts.pendingPages > 0) this.#world.host.pendingMarked();
  }

  // How it discards ---------------------------------------------------------------------------------------

  get mode(): DiscardMode {
    return this.#mode;
  }

  /** Changes the mode between two buffers. What is pending under the old one is discarded first, or by other threads. */
  set mode(mode: DiscardMode) {
    if (!this.#accounts.elsewhere) this.#accounts.drain();
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

  // Buffers -----------------------------------------------------------------------------------------------

  take(ring: RunningQueue): true {
    const list = ring.readList();
    this.#world.counters.listBytes += list.length;
    if (ring.role === 'inflate') {
      this.counters.inflateBuffers++;
      ring.walk.begin(this.#format, this.#inflating, this.#accounts);
    } else {
      this.counters.deflateBuffers++;
      ring.walk.begin(this.#format, this.#deflating, this.#accounts);
    }
    return true;
  }

  goOn({ walk }: RunningQueue): boolean {
    const { clock } = this.#world;
    const startedMs = this.timed ? clock.nowMs() : 0;
    const done = walk.goOn(this.#accounts);
    if (this.timed) this.counters.decodeMs += clock.nowMs() - startedMs;
    if (done) this.#accounts.settled = true;
    return done;
  }

  /**
   * An inflation of which a part is taken is left, to be taken whole some other time. Where it was the first, the account
   * is empty again: its ring stands where another driver's begins, and that one gave none of these pages.
   */
  leave(ring: RunningQueue): void {
    if (ring.role === 'inflate' && !this.#accounts.settled) this.#accounts.forget();
  }

  /** Takes over what the guest gave another device: pairs of page frame and pages, all of them guest memory. */
  adopt(runs: Uint32Array): void {
    this.#begun = true;
    this.#accounts.settled = true;
    for (let at = 0; at < runs.length; at += 2) {
      this.#accounts.forEachPart(runs[at], runs[at + 1], this.#give);
    }
    this.drain();
  }

  /**
   * The same from a device of this host that has handed its guest over. Nothing is discarded before the inflate ring starts:
   * until then the front-end may say that another driver has begun, whose pages these would be.
   */
  takeOver(runs: Uint32Array, { begun, partial, settled, actualKnown }: Tenure): void {
    this.#begun = begun;
    this.#world.config.actualKnown = actualKnown;
    this.#accounts.partial = partial;
    this.#accounts.settled = settled;
    this.#accounts.held = true;
    for (let at = 0; at < runs.length; at += 2) {
      this.#accounts.forEachPart(runs[at], runs[at + 1], this.#giveHeld);
    }
  }

  /** What a device of this host has to know of the driver when it takes the guest over. */
  get tenure(): Tenure {
    const { partial, settled } = this.#accounts;
    return { begun: this.#begun, partial, settled, actualKnown: this.#world.config.actualKnown };
  }

  // Batches -----------------------------------------------------------------------------------------------

  batchBegun(): void {
    this.acknowledgeTimes.begin();
  }

  batchTaken(): void {
    const pagesMax = this.#pendingPagesMax();
    if (this.#accounts.elsewhere) {
      if (pagesMax === 0) this.#accounts.haste = true;
      return;
    }
    if (!this.#marked) return;
    if (this.#accounts.pendingPages > pagesMax) {
      this.#accounts.drainDownTo(pagesMax);
    }
    this.#pendingPages = this.#accounts.pendingPages;
  }

  /**
   * Whether other threads have discarded so much of what was pending that a batch may be returned, or nothing is under way
   * on pages that were taken back. Where not, there will be news of it.
   */
  mayReturn(ring: RunningQueue): boolean {
    if (ring.role !== 'inflate') return this.#accounts.quiet;
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

  batchKept(ring: RunningQueue): void {
    ring.batchSinceMs = this.acknowledgeTimes.sinceMs;
    this.#takeMarked();
  }

  batchReturned(ring: RunningQueue, late: boolean): void {
    const { batchBuffers, batchSinceMs } = ring;
    if (batchBuffers > 0) {
      if (late) this.acknowledgeTimes.count(this.#world.clock.nowMs() - batchSinceMs, batchBuffers);
      else this.acknowledgeTimes.end(batchBuffers);
    }
    if (!late && this.#takeMarked()) this.#world.host.pendingMarked();
  }

  /** Whether something was marked since the last call that the discarding thread must be woken for. */
  #takeMarked(): boolean {
    const marked = this.#marked;
    this.#marked = false;
    return marked && this.acknowledgesFirst;
  }

  /** Discards all that is pending: before it returns, or before it is {@link settled}. */
  drain(): void {
    const { host } = this.#world;
    if (this.#accounts.elsewhere) {
      this.#draining = true;
      this.#accounts.haste = true;
      host.discardSoon?.();
      return;
    }
    this.#accounts.drain();
    const failure = this.#accounts.takeFailure();
    if (failure !== undefined) host.discardFailed(failure);
  }

  settled(): boolean {
    if (!this.#draining) return true;
    // In this order: what is discarded after the first line rings.
    this.#accounts.watchDrain();
    if (this.#accounts.pendingPages > 0) return false;
    this.#draining = false;
    this.#accounts.haste = false;
    return true;
  }

  /** Pages of the pieces that the guest gives: all runs begin and end at multiples of it. A huge page at most. */
  get granularityPages(): number {
    return this.#runBits === 0 ? 1 : Math.min(this.#runBits & -this.#runBits, GRANULARITY_PAGES_MAX);
  }

  readonly #inflating: PageSink = {
    add: (pfn, count) => {
      this.counters.pages += count;
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
      this.counters.deflatedPages += taken;
      this.#world.counters.badPages += 1 - taken;
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

  readonly #giveHeld = (account: PageAccount, page: number, count: number): void => {
    account.give(page, count, true);
    this.#accounts.noteMarked(account);
  };

  readonly #take = (account: PageAccount, page: number, count: number): void => {
    const taken = account.take(page, count, this.#accounts.noteInFlight);
    this.counters.deflatedPages += taken;
    // Taking back what was never given changes nothing, but no driver does it. It may have been given to another device.
    if (this.#accounts.partial) this.counters.unknownPages += count - taken;
    else this.#world.counters.badPages += count - taken;
  };

  #discardSingly(account: PageAccount, page: number, count: number): void {
    const totals = this.#singly;
    const { clock } = this.#world;
    const startedMs = clock.nowMs();
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
        this.#accounts.noteFailure(error);
        this.#singlyTimes.begin();
      }
    }
    totals.lastMs = clock.nowMs();
    totals.ms += totals.lastMs - startedMs;
  }
}
