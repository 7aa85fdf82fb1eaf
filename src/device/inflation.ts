/**
 * Inflate and deflate buffers, and the rule of when inflated pages go back to the host (how they enter and leave the
 * account is `page-moves.ts`'s):
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
import { PAGE_SIZE } from '../memory/page.ts';
import { DurationHistogram } from '../sys/durations.ts';
import type { StopReason } from '../virtio/device.ts';
import { initialState } from '../virtio/queue.ts';
import type { DiscardMode } from './discard-mode.ts';
import type { DiscardTotals } from './discard-totals.ts';
import { InflationPromises } from './inflation-promises.ts';
import type { PageAccounts } from './page-accounts.ts';
import { PageMoves } from './page-moves.ts';
import type { DevicePart, PartWorld } from './part.ts';
import type { RunningQueue } from './running-queue.ts';

/**
 * Memory that may be pending for one guest, but for sparse pages that wait for neighbours (they are bounded in age, see
 * `PatientDiscarder`). Above it the thread that talks to the guest discards as well, before it acknowledges more, as
 * much as is added, so that a guest cannot run ahead of the host for longer than the kernel takes to discard this
 * much: 0.2 s. Of the pool's huge pages it is as much more as they take the kernel less. A guest that is no faster than
 * the kernel has some tens of milliseconds pending. Half of it would already slow a fast guest down to the kernel's pace
 * (docs/benchmarks.md).
 */
export const PENDING_BYTES_MAX = 2 * 2 ** 30;

/** How a device stands to the driver of its guest. */
export interface Tenure {
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
    /** Milliseconds spent on turning lists into the account's pages; counted only once decoding is timed. */
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
  #mustTellHost = false;
  resumeList: DevicePart['resumeList'] = undefined;
  /** What was pending when a batch was acknowledged last. */
  #pendingWork = 0;
  readonly #moves: PageMoves;
  /** What is said of inflated pages, where the driver wants to hear it. */
  readonly #promises: InflationPromises;
  promised: DevicePart['promised'] = undefined;

  constructor(world: PartWorld) {
    this.#world = world;
    this.#accounts = world.accounts;
    this.#format = world.profile.format;
    this.acknowledgeTimes = new DurationHistogram(undefined, world.clock);
    this.#moves = new PageMoves(world, this.counters);
    this.#promises = new InflationPromises(world);
  }

  negotiated(features: bigint): void {
    this.#features = features;
    this.#format = listFormat(this.#world.profile, features);
    this.#mustTellHost = (features & MUST_TELL_HOST) !== 0n;
    this.promised = (features & this.#world.profile.zeroing.inflated) === 0n ? undefined : this.#promise;
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
    if (reason === 'undecided') {
      if (ring.role === 'deflate') this.#moves.takesAllAgain();
      return;
    }
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
    this.#moves.forget();
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
    this.#moves.collects = mode !== 'none' && mode !== 'per-page';
    this.#moves.discardsSingly = mode === 'per-page';
  }

  /**
   * Whether buffers may be returned before their pages are discarded. A driver that wants to hear which pages are zeros
   * hears of none then: the host cannot promise that a discard will succeed.
   */
  get acknowledgesFirst(): boolean {
    if (!this.#mustTellHost) return false;
    return this.#mode === 'after-ack' || (this.#mode === 'auto' && this.promised === undefined);
  }

  get discards(): DiscardTotals {
    const { bytes, punches, failures, hugePagesCut, ms, lastMs } = this.#accounts.discards;
    const { singly } = this.#moves;
    return {
      bytes: bytes + singly.bytes,
      hugePagesCut,
      punches: punches + singly.punches,
      failures: failures + singly.failures,
      ms: ms + singly.ms,
      lastMs: Math.max(lastMs, singly.lastMs),
    };
  }

  /** How long those discards took, one by one; a copy. */
  get discardTimes(): DurationHistogram {
    const times = this.#accounts.discardTimes;
    times.add(this.#moves.singlyTimes);
    return times;
  }

  // Buffers -----------------------------------------------------------------------------------------------

  serve(ring: RunningQueue): true {
    const list = ring.readList();
    this.#world.counters.listBytes += list.length;
    if (ring.role === 'inflate') {
      this.counters.inflateBuffers++;
      // Room for what is said of its pages.
      if (this.promised !== undefined) list.extentCount = 0;
      ring.walk.begin(this.#format, this.#moves.inflating, this.#accounts);
    } else {
      this.counters.deflateBuffers++;
      this.#moves.beginTaking();
      ring.walk.begin(this.#format, this.#moves.deflating, this.#accounts);
    }
    return true;
  }

  walked(): void {
    this.#accounts.settled = true;
  }

  readonly #promise = (ring: RunningQueue): number => {
    if (ring.role !== 'inflate') return 0;
    const discardsAll = !this.acknowledgesFirst && this.#moves.collects;
    return this.#promises.write(ring, discardsAll);
  };

  promisesHold(ring: RunningQueue): boolean {
    return ring.role === 'inflate' && this.#promises.hold;
  }

  /** From now on decoding is timed, for benchmarks: reading the clock allocates, and nothing else here does. */
  timeDecoding(): void {
    const { clock } = this.#world;
    this.resumeList = ({ walk }) => {
      const startedMs = clock.nowMs();
      const done = walk.resumeList(this.#accounts);
      this.counters.decodeMs += clock.nowMs() - startedMs;
      return done;
    };
  }

  /**
   * An inflation of which a part is taken is left, to be taken whole some other time. Where it was the first, the account
   * is empty again: its ring stands where another driver's begins, and that one gave none of these pages.
   */
  leave(ring: RunningQueue): void {
    if (ring.role === 'deflate') this.#moves.takesAgain();
    else if (!this.#accounts.settled) this.#accounts.forget();
  }

  /** Takes over what the guest gave another device: pairs of page frame and pages, all of them guest memory. */
  adopt(runs: Uint32Array): void {
    this.#begun = true;
    this.#accounts.settled = true;
    for (let at = 0; at < runs.length; at += 2) {
      this.#accounts.forEachPart(runs[at], runs[at + 1], this.#moves.give);
    }
    this.drain();
  }

  /** The same from a device of this host that has handed its guest over, see {@link recover}. */
  takeOver(runs: Uint32Array, tenure: Tenure): void {
    for (let at = 0; at < runs.length; at += 2) {
      this.#accounts.forEachPart(runs[at], runs[at + 1], this.#moves.note);
    }
    this.recover(tenure);
  }

  /**
   * Goes on with accounts that are those of another process, which may have ended without a word. Nothing is discarded before
   * the inflate ring starts: until then the front-end may say that another driver has begun, whose pages these would be. A
   * driver that need not tell may use pages again that it gave: of those nothing more is discarded, for what was acknowledged
   * was discarded before, and what was not comes once more.
   */
  recover({ begun, partial, settled, actualKnown }: Tenure): void {
    this.#begun = begun;
    this.#world.config.actualKnown = actualKnown;
    this.#accounts.partial = partial;
    this.#accounts.held = true;
    this.#accounts.recover(settled && this.#mustTellHost);
    if (settled) this.#accounts.settled = true;
    // All that is in them is of a list of which the driver has not heard.
    else this.#accounts.forget();
    this.#moves.takesAllAgain();
  }

  /** What a device of this host has to know of the driver when it takes the guest over. */
  get tenure(): Tenure {
    const { partial, settled } = this.#accounts;
    return { begun: this.#begun, partial, settled, actualKnown: this.#world.config.actualKnown };
  }

  // Batches -----------------------------------------------------------------------------------------------

  batchBegun({ role }: RunningQueue): void {
    this.acknowledgeTimes.begin();
    if (this.promised !== undefined && role === 'inflate') this.#promises.begin();
  }

  batchTaken(): void {
    const workMax = this.#pendingWorkMax();
    if (this.#accounts.elsewhere) {
      if (workMax === 0) this.#accounts.haste = true;
      return;
    }
    if (!this.#moves.marked) return;
    if (this.#accounts.pendingWork > workMax) {
      this.#accounts.drainDownTo(workMax);
    }
    this.#pendingWork = this.#accounts.pendingWork;
  }

  /**
   * Whether other threads have discarded so much of what was pending that a batch may be returned, or nothing is under way
   * on pages that were taken back. Where not, there will be news of it.
   */
  mayReturn(ring: RunningQueue): boolean {
    if (ring.role !== 'inflate') return this.#accounts.quiet;
    if (this.#accounts.pendingWork > this.#pendingWorkMax()) {
      // In this order: what is discarded after the first line rings.
      this.#accounts.watchDrain();
      if (this.#accounts.pendingWork > this.#pendingWorkMax()) return false;
    }
    if (!this.acknowledgesFirst) this.#accounts.haste = false;
    this.#pendingWork = this.#accounts.pendingWork;
    return true;
  }

  #pendingWorkMax(): number {
    if (!this.acknowledgesFirst) return 0;
    if (this.#accounts.waiting) return Infinity;
    // What has waited may be far above the bound. The batch adds nothing to it; nor does it wait for all of it.
    return Math.max(PENDING_BYTES_MAX / PAGE_SIZE, this.#pendingWork);
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
    if (ring.role === 'deflate') this.#moves.returned(batchBuffers, ring.queue.size, ring.walk.active);
    const marked = this.#takeMarked();
    if ((!late && marked) || this.#moves.split) this.#world.host.pendingMarked();
    this.#moves.split = false;
  }

  /** Pages of the pieces that the guest gives, see {@link PageMoves.granularityPages}. */
  get granularityPages(): number {
    return this.#moves.granularityPages;
  }

  /** Whether something was marked since the last call that the discarding thread must be woken for. */
  #takeMarked(): boolean {
    const { marked } = this.#moves;
    this.#moves.marked = false;
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
}
