/**
 * Memory that a guest has given away and that is not yet given back to the host: a bitmap in shared memory
 * between the thread that talks to the guest (it marks and retracts) and the thread that gives memory back
 * (it claims, discards, completes). Nothing here knows why the memory was given away.
 *
 * The layout of that memory is pending-state.ts's, the claiming side discard-claims.ts's; here are the marking side, and
 * the whole.
 *
 * One bit stands for one discard unit of the region's backing (a 4 KiB page, or a whole huge page), or for a stretch of them
 * that was marked as a whole (whole-stretches.ts). What is said of bits here is true of both.
 *
 * The protocol that makes "retracted units keep their memory" true without a lock on the marking side:
 * - A claimer goes through a stretch run by run. It publishes the run that it is about to take, takes the run's bits with
 *   atomic operations, discards what it got, withdraws the run and bumps the generation. Units that are not taken yet stay
 *   in the set, where they can be retracted.
 * - A retracter clears the bit with an atomic AND. From then on no claimer takes it. One that had taken it before
 *   had published its run before that, so looking at the run now finds it (or finds it withdrawn, and the
 *   discard is over). It looks also where the bit was not set, for a unit may have been marked again while it was being
 *   discarded.
 * - One run is in flight at a time. A thread that has found one in flight, having read the generation before, knows that it is
 *   over as soon as the generation is another: what is in flight then was published later, and takes no bit that was
 *   cleared before. The guest may not touch the unit until then.
 * - No thread has to sleep for that. A retracter that wants to be told sets its bit in the word of watchers and looks once
 *   more; a claimer looks at that word after it has bumped the generation. One of the two sees the other.
 * - Claimers exclude each other by the lock word. A set is closed first and its lock looked at then, a claimer locks first
 *   and looks whether the set is closed then; so no thread discards through the region's descriptor, now or later, when a
 *   closed set's lock is free.
 * - Holding keeps what is marked from being taken: a claimer publishes a run first and looks whether the set is held then, a
 *   holder holds first and looks what is in flight then.
 */
import type { DurationHistogram } from '../sys/durations.ts';
import { assert } from '../sys/error.ts';
import { DiscardClaims } from './discard-claims.ts';
import type { HugeUnits } from './huge-units.ts';
import { maskOf, popcount } from './page-bitmap.ts';
import { noteStretch, PendingState, TOTAL, WAIT_SLICE_MS, WATCHES, WORD } from './pending-state.ts';
import { WholeStretches } from './whole-stretches.ts';

/** Units in one set at most: their numbers are 32-bit integers in the header. */
const UNITS_MAX = 2 ** 30;

export class PendingDiscards {
  readonly units: number;
  readonly #state: PendingState;
  readonly #claims: DiscardClaims;
  readonly #header: Int32Array;
  readonly #totals: Float64Array;
  readonly #summary: Int32Array;
  readonly #words: Int32Array;
  readonly #claimShift: number;
  readonly #whole: WholeStretches;
  // The claiming side, for any thread; bound, so that no function lies between.
  readonly discardSome: DiscardClaims['discardSome'];
  readonly beginRun: DiscardClaims['beginRun'];
  readonly discardAll: DiscardClaims['discardAll'];
  /** Something was marked here since nothing was seen to be outstanding. */
  #marked = false;
  /** Words and stretches that {@link mark} and {@link retract} went through; it only rises. */
  work = 0;

  /** Opens the set in `shared`, as {@link PendingDiscards.create} made it; `fresh` when nothing was marked in it yet. */
  constructor(shared: SharedArrayBuffer, units: number, unitBytes: number, fresh = false) {
    const state = new PendingState(shared, units, unitBytes);
    this.units = units;
    this.#state = state;
    const claims = new DiscardClaims(state, unitBytes);
    this.#claims = claims;
    this.discardSome = claims.discardSome.bind(claims);
    this.beginRun = claims.beginRun.bind(claims);
    this.discardAll = claims.discardAll.bind(claims);
    this.#header = state.header;
    this.#totals = state.totals;
    this.#summary = state.summary;
    this.#words = state.words;
    this.#claimShift = state.claimShift;
    this.#whole = new WholeStretches(state, fresh);
  }

  /** A set of `units` units of `unitBytes` bytes, none pending. */
  static create(units: number, unitBytes: number): PendingDiscards {
    assert(Number.isInteger(units) && units > 0 && units <= UNITS_MAX, `a set of ${units} discard units`);
    const shared = new SharedArrayBuffer(PendingState.bytes(units, unitBytes));
    return new PendingDiscards(shared, units, unitBytes, true);
  }

  /** What another thread needs to open the same set. */
  get shared(): SharedArrayBuffer {
    return this.#state.shared;
  }

  /** Stretches that the set consists of: as many claims go round it. */
  get stretches(): number {
    return this.#state.stretches;
  }

  /** How long discards took, one by one. */
  get discardTimes(): DurationHistogram {
    return this.#state.times;
  }

  /** Where the host holds the set's units in larger pages; said where it is discarded. */
  get huge(): HugeUnits | undefined {
    return this.#state.huge;
  }

  set huge(huge: HugeUnits | undefined) {
    this.#state.huge = huge;
  }

  /** How long a claim of this claimer's may take. */
  set claimMsMax(ms: number) {
    this.#claims.claimMsMax = ms;
  }

  /** How long one run of a claim may take before later ones are cut. */
  set runMsMax(ms: number) {
    this.#claims.lengths.runMsMax = ms;
  }

  /** Called by a claimer when something happened that is watched for; see {@link watchRun}. */
  set onNews(listener: () => void) {
    this.#state.onNews = listener;
  }

  /** Units marked and neither retracted nor discarded yet. */
  get outstanding(): number {
    return this.#state.outstanding;
  }

  /**
   * Whether nothing is marked and nothing in flight; to be asked by the thread that marks. It costs no look at memory that
   * other threads write, unless something was marked since it was so last.
   */
  get idle(): boolean {
    if (!this.#marked) return true;
    if (this.outstanding > 0) return false;
    this.#marked = false;
    return true;
  }

  /** Whether the discarding thread leaves sparse units alone for a while, in the hope of neighbours. */
  get waiting(): boolean {
    return Atomics.load(this.#header, WORD.waiting) !== 0;
  }

  set waiting(waiting: boolean) {
    Atomics.store(this.#header, WORD.waiting, Number(waiting));
  }

  /** Whether the end of all discards is waited for: then no unit is left to wait for neighbours. */
  get haste(): boolean {
    return Atomics.load(this.#header, WORD.haste) !== 0;
  }

  set haste(haste: boolean) {
    Atomics.store(this.#header, WORD.haste, Number(haste));
  }

  /** The error of the discard that failed last, as the kernel's number; 0 when none did. */
  get lastErrno(): number {
    return Atomics.load(this.#header, WORD.lastErrno);
  }

  /** Units discarded since the set was made. */
  get discardedUnits(): number {
    return this.#totals[TOTAL.discardedUnits];
  }

  /** Discards made, each of one maximal run. */
  get discards(): number {
    return this.#totals[TOTAL.discards];
  }

  /** Discards that failed; their units keep their memory. */
  get failures(): number {
    return this.#totals[TOTAL.failures];
  }

  /** Huge pages of the host of which a part was discarded, so that it had to split them; where that is known. */
  get hugePagesCut(): number {
    return this.#totals[TOTAL.hugePagesCut];
  }

  /** When the last discard ended, on {@link monotonicMs}'s clock; 0 when there was none. */
  get lastDiscardMs(): number {
    return this.#totals[TOTAL.lastDiscardMs];
  }

  /** Milliseconds that all discards together took. */
  get discardMs(): number {
    return this.#totals[TOTAL.discardMs];
  }

  /** Marks `count` units from `start`; returns how many were not marked before. */
  mark(start: number, count: number): number {
    if (count === 1) return this.markOne(start);
    const { stretchUnits } = this.#state;
    const end = start + count;
    let marked = 0;
    this.#marked = true;
    if (count >= stretchUnits) this.#whole.look();
    for (let at = start; at < end; ) {
      const stretch = (at >>> 5) >>> this.#claimShift;
      const to = Math.min(end, (stretch + 1) * stretchUnits);
      marked += this.#markIn(stretch, at, to);
      at = to;
    }
    if (marked > 0) Atomics.add(this.#header, WORD.pendingUnits, marked);
    return marked;
  }

  #markIn(stretch: number, start: number, end: number): number {
    this.work++;
    if (this.#whole.has(stretch)) return 0;
    let marked = end - start;
    if (marked < this.#state.stretchUnits || !this.#whole.mark(stretch)) {
      this.#whole.noteWords(stretch);
      this.work += (end - start) >>> 5;
      marked = this.#state.setBits(start, end);
    }
    // Noted once, after all of its bits.
    noteStretch(this.#summary, stretch);
    return marked;
  }

  /** The same for one unit. */
  markOne(unit: number): 0 | 1 {
    const word = unit >>> 5;
    const bit = 1 << (unit & 31);
    const stretch = word >>> this.#claimShift;
    this.#marked = true;
    this.work++;
    if (this.#whole.any && this.#whole.has(stretch)) return 0;
    this.#whole.noteWords(stretch);
    const before = Atomics.or(this.#words, word, bit);
    noteStretch(this.#summary, stretch);
    if ((before & bit) !== 0) return 0;
    Atomics.add(this.#header, WORD.pendingUnits, 1);
    return 1;
  }

  /**
   * Takes `count` units from `start` out of the set; returns how many were in it, and keep the memory that they have.
   * Any of them may be in flight still: the caller asks {@link inFlight}, or waits, before it lets the guest use them.
   */
  retract(start: number, count: number): number {
    if (count === 1 && !this.#whole.any) return this.#retractOne(start);
    const { stretchUnits } = this.#state;
    const end = start + count;
    let retracted = 0;
    for (let at = start; at < end; ) {
      const stretch = (at >>> 5) >>> this.#claimShift;
      const to = Math.min(end, (stretch + 1) * stretchUnits);
      if (this.#whole.has(stretch)) retracted += this.#whole.take(stretch, at, to);
      else if (this.#whole.hasWords(stretch)) retracted += this.#clearBits(at, to);
      this.work++;
      at = to;
    }
    if (retracted > 0) Atomics.sub(this.#header, WORD.pendingUnits, retracted);
    return retracted;
  }

  #retractOne(unit: number): 0 | 1 {
    const word = unit >>> 5;
    const bit = 1 << (unit & 31);
    this.work++;
    if ((Atomics.load(this.#words, word) & bit) === 0) return 0;
    if ((Atomics.and(this.#words, word, ~bit) & bit) === 0) return 0;
    Atomics.sub(this.#header, WORD.pendingUnits, 1);
    return 1;
  }

  #clearBits(start: number, end: number): number {
    let cleared = 0;
    this.work += (end - start) >>> 5;
    for (let word = start >>> 5; word * 32 < end; word++) {
      const mask = maskOf(word, start, end);
      // Most pages that are taken back were discarded long ago: looking costs less than taking the cache line. A zero seen
      // here is as good as one that AND would return.
      if ((Atomics.load(this.#words, word) & mask) === 0) continue;
      cleared += popcount(mask & Atomics.and(this.#words, word, ~mask));
    }
    return cleared;
  }

  /**
   * Whether units were taken out of a stretch that was marked as a whole, so that claimers may have missed the rest of it and
   * are to be woken; asked once.
   */
  takeRest(): boolean {
    return this.#whole.takeRest();
  }

  /**
   * Forgets all that is marked: those units keep their memory. A claim in flight goes on. To be called by the thread
   * that marks, which is why nothing outstanding means that no bit is set.
   */
  retractAll(): number {
    return this.outstanding === 0 ? 0 : this.retract(0, this.units);
  }

  /** How many of the `count` units from `start` are marked, those of a claim in flight left out. */
  countIn(start: number, count: number): number {
    const { stretchUnits } = this.#state;
    const end = start + count;
    let total = 0;
    for (let at = start; at < end; ) {
      const stretch = (at >>> 5) >>> this.#claimShift;
      const to = Math.min(end, (stretch + 1) * stretchUnits);
      if (this.#state.isWhole(stretch)) total += to - at;
      else total += this.#state.countBits(at, to);
      at = to;
    }
    return total;
  }

  /** Whether a discard that touches [start, start + count) may be under way in another thread. */
  inFlight(start: number, count: number): boolean {
    // The end first: a claimer withdraws by zeroing the end, and publishes the start before the end.
    const end = Atomics.load(this.#header, WORD.inFlightEnd);
    return end > start && Atomics.load(this.#header, WORD.inFlightStart) < start + count;
  }

  /** Another number after each run that was in flight. */
  get generation(): number {
    return Atomics.load(this.#header, WORD.generation);
  }

  /** {@link onNews} is called where the set is discarded, once, after the run that is in flight when this returns. */
  watchRun(): void {
    Atomics.or(this.#header, WORD.watchers, WATCHES.run);
  }

  /** The same now and then as the set becomes smaller, and in any case when nothing is outstanding. Once. */
  watchDrain(): void {
    Atomics.or(this.#header, WORD.watchers, WATCHES.drain);
  }

  /** Returns when no discard that touches [start, start + count) is under way. */
  waitWhileInFlight(start: number, count: number): void {
    for (;;) {
      const { generation } = this;
      if (!this.inFlight(start, count)) return;
      this.watchRun();
      Atomics.wait(this.#header, WORD.generation, generation, WAIT_SLICE_MS);
    }
  }

  get closed(): boolean {
    return this.#state.closed;
  }

  get held(): boolean {
    return this.#state.held;
  }

  /** While held, nothing is taken any more. What is in flight when this returns goes on. */
  set held(held: boolean) {
    Atomics.store(this.#header, WORD.held, Number(held));
  }

  /** Forgets what is marked and waits for a discard under way; afterwards no thread claims any more. */
  close(): void {
    if (this.closeNow()) return;
    this.#claims.waitForClaim();
  }

  /**
   * The same without waiting: false when a discard is under way. {@link onNews} is called where it is when it is over, and
   * this is to be asked again.
   */
  closeNow(): boolean {
    if (!this.closed) {
      Atomics.store(this.#header, WORD.closed, 1);
      this.retractAll();
    }
    Atomics.or(this.#header, WORD.watchers, WATCHES.lock);
    return Atomics.load(this.#header, WORD.lock) === 0;
  }
}
