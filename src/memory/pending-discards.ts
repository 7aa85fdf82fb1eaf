/**
 * Memory that a guest has given away and that is not yet given back to the host: a bitmap in shared memory
 * between the thread that talks to the guest (it marks and retracts) and the thread that gives memory back
 * (it claims, discards, completes). Nothing here knows why the memory was given away.
 *
 * One bit stands for one discard unit of the region's backing (a 4 KiB page, or a whole huge page).
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
import { DurationHistogram } from '../sys/durations.ts';
import { AerostatError, assert, SystemError } from '../sys/error.ts';
import { monotonicMs } from '../sys/poll.ts';
import { maskOf, PageBitmap, popcount, wordsFor } from './page-bitmap.ts';

/** Words of the shared header; the bitmap follows. */
const LOCK = 0;
const CLOSED = 1;
const IN_FLIGHT_START = 2;
const IN_FLIGHT_END = 3;
const IN_FLIGHT_UNITS = 4;
const GENERATION = 5;
const PENDING_UNITS = 6;
const WAITING = 7;
const WATCHERS = 8;
const HASTE = 9;
const LAST_ERRNO = 10;
const CUT_UNITS = 11;
const HELD = 12;
/** An even number: 64-bit floats follow. */
const HEADER_WORDS = 14;

/** What the marking thread wants to be told of, in the word of watchers: the end of the run in flight, … */
const WATCHES_RUN = 1;
/** … that the set has become (nearly) empty, … */
const WATCHES_DRAIN = 2;
/** … that a closed set is left. */
const WATCHES_LOCK = 4;

/** Totals, 64-bit floats behind the header; written under the lock only. */
const DISCARDED_UNITS = 0;
const DISCARDS = 1;
const FAILURES = 2;
const LAST_DISCARD_MS = 3;
const DISCARD_MS = 4;
const TOTALS = 5;
/** How long each discard took, behind the totals and like them. */
const TIMES_AT = HEADER_WORDS * 4 + TOTALS * 8;
const SUMMARY_AT = TIMES_AT + DurationHistogram.words * 8;

/**
 * Bytes that one claim covers at most, or 32 units where those are more: punches of 1 MiB and more cost the same per
 * byte, and others have their turn after it.
 */
export const CLAIM_BYTES_MAX = 16 * 2 ** 20;

/** A claim ends with the run that is under way after so long; what is left of its stretch is claimed later. */
const CLAIM_MS_MAX = 5;

/**
 * How long one run should take at most: a guest that takes a unit of it back waits for its end. Longer runs are cut, in halves, as
 * long as they take longer; nothing is cut below {@link CUT_BYTES_MIN}, for a call that is slow whatever its length should
 * not be made more often.
 */
const RUN_MS_MAX = 5;
const CUT_BYTES_MIN = 256 * 2 ** 10;

/** A drain is reported no more often than this before it is over. */
const DRAIN_NEWS_MS = 2;

/**
 * Average length of a stretch's runs from which on it is dense. A punch costs the kernel, and a guest that runs
 * meanwhile, about as much as freeing four pages: runs of sixteen pay a fifth for that, single pages four fifths.
 */
export const DENSE_RUN_BYTES = 64 * 2 ** 10;

/** Units in one set at most: their numbers are 32-bit integers in the header. */
const UNITS_MAX = 2 ** 30;

/** Gives `count` units from `start` back to the host; throws an {@link AerostatError} when that fails. */
export type DiscardUnits = (start: number, count: number) => void;

/** What a claim may take: the next stretch that has anything, or only one whose pending units lie close together. */
type ClaimOf = 'any' | 'dense';

export interface DiscardResult {
  /** Something was claimed, so there may be more. */
  readonly more: boolean;
  /** The claim ended before it came to the end of its stretch, because it took long. */
  readonly partial: boolean;
  readonly failure: Error | undefined;
}

/** A run that was taken and is not discarded yet. */
export interface OpenRun {
  /** Discards it; returns the failure, if that failed. */
  end(discard: DiscardUnits): Error | undefined;
}

const NOTHING_DISCARDED: DiscardResult = { more: false, partial: false, failure: undefined };

/** A waiter looks again after this long, so that a lost wake-up costs a moment and not the guest. */
const WAIT_SLICE_MS = 100;

function layoutOf(units: number, unitBytes: number) {
  // A power of two, so that a word's stretch is found by shifting: dividing is what marking a page would cost most beside
  // the atomic operations.
  const claimShift = 31 - Math.clz32(Math.max(1, wordsFor(CLAIM_BYTES_MAX / unitBytes)));
  const claimWords = 1 << claimShift;
  const words = wordsFor(units);
  const stretches = Math.ceil(words / claimWords);
  const summaryWords = wordsFor(stretches);
  const bitmapAt = SUMMARY_AT + summaryWords * 4;
  return { claimShift, claimWords, stretches, summaryWords, bitmapAt, bytes: bitmapAt + words * 4 };
}

export class PendingDiscards {
  /** What another thread needs to open the same set. */
  readonly shared: SharedArrayBuffer;
  readonly units: number;
  readonly #header: Int32Array;
  readonly #totals: Float64Array;
  /** How long discards took, one by one. */
  readonly discardTimes: DurationHistogram;
  /** One bit a stretch that a claim covers: whether it may hold pending units. */
  readonly #summary: Int32Array;
  readonly #words: Int32Array;
  /** Words of a stretch, as the number of bits to shift by. */
  readonly #claimShift: number;
  /** Stretches that the set consists of: as many claims go round it. */
  readonly stretches: number;
  /** What was taken of a run, from the beginning of its first word. */
  readonly #claimed: PageBitmap;
  readonly #denseRunUnits: number;
  readonly #cutUnitsMin: number;
  /** The stretch to look at next. */
  #cursor = 0;
  #lastNewsMs = 0;
  /** Something was marked here since nothing was seen to be outstanding. */
  #marked = false;
  /** How long a claim of this claimer's may take, for {@link CLAIM_MS_MAX}. */
  claimMsMax = CLAIM_MS_MAX;
  /** Called by a claimer when something happened that is watched for; see {@link watchRun}. */
  onNews: () => void = () => {};

  /** Opens the set in `shared`, as {@link PendingDiscards.create} made it. */
  constructor(shared: SharedArrayBuffer, units: number, unitBytes: number) {
    this.shared = shared;
    this.units = units;
    this.#header = new Int32Array(shared, 0, HEADER_WORDS);
    this.#totals = new Float64Array(shared, HEADER_WORDS * 4, TOTALS);
    this.discardTimes = new DurationHistogram(new Float64Array(shared, TIMES_AT, DurationHistogram.words));
    const layout = layoutOf(units, unitBytes);
    this.#claimShift = layout.claimShift;
    this.stretches = layout.stretches;
    this.#summary = new Int32Array(shared, SUMMARY_AT, layout.summaryWords);
    this.#words = new Int32Array(shared, layout.bitmapAt);
    this.#claimed = new PageBitmap(layout.claimWords * 32);
    this.#denseRunUnits = Math.ceil(DENSE_RUN_BYTES / unitBytes);
    this.#cutUnitsMin = Math.ceil(CUT_BYTES_MIN / unitBytes);
  }

  /** A set of `units` units of `unitBytes` bytes, none pending. */
  static create(units: number, unitBytes: number): PendingDiscards {
    assert(Number.isInteger(units) && units > 0 && units <= UNITS_MAX, `a set of ${units} discard units`);
    const shared = new SharedArrayBuffer(layoutOf(units, unitBytes).bytes);
    return new PendingDiscards(shared, units, unitBytes);
  }

  /** Units marked and neither retracted nor discarded yet. */
  get outstanding(): number {
    const pending = Atomics.load(this.#header, PENDING_UNITS) + Atomics.load(this.#header, IN_FLIGHT_UNITS);
    return Math.max(0, pending);
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
    return Atomics.load(this.#header, WAITING) !== 0;
  }

  set waiting(waiting: boolean) {
    Atomics.store(this.#header, WAITING, Number(waiting));
  }

  /** Whether the end of all discards is waited for: then no unit is left to wait for neighbours. */
  get haste(): boolean {
    return Atomics.load(this.#header, HASTE) !== 0;
  }

  set haste(haste: boolean) {
    Atomics.store(this.#header, HASTE, Number(haste));
  }

  /** The error of the discard that failed last, as the kernel's number; 0 when none did. */
  get lastErrno(): number {
    return Atomics.load(this.#header, LAST_ERRNO);
  }

  /** Units discarded since the set was made. */
  get discardedUnits(): number {
    return this.#totals[DISCARDED_UNITS];
  }

  /** Discards made, each of one maximal run. */
  get discards(): number {
    return this.#totals[DISCARDS];
  }

  /** Discards that failed; their units keep their memory. */
  get failures(): number {
    return this.#totals[FAILURES];
  }

  /** When the last discard ended, on {@link monotonicMs}'s clock; 0 when there was none. */
  get lastDiscardMs(): number {
    return this.#totals[LAST_DISCARD_MS];
  }

  /** Milliseconds that all discards together took. */
  get discardMs(): number {
    return this.#totals[DISCARD_MS];
  }

  /** Marks `count` units from `start`; returns how many were not marked before. */
  mark(start: number, count: number): number {
    if (count === 1) return this.markOne(start);
    const end = start + count;
    let marked = 0;
    let stretch = (start >>> 5) >>> this.#claimShift;
    this.#marked = true;
    for (let word = start >>> 5; word * 32 < end; word++) {
      // A stretch is noted once, after all of its bits.
      if (word >>> this.#claimShift !== stretch) this.#noteStretch(stretch++);
      const mask = maskOf(word, start, end);
      marked += popcount(mask & ~Atomics.or(this.#words, word, mask));
    }
    this.#noteStretch(stretch);
    if (marked > 0) Atomics.add(this.#header, PENDING_UNITS, marked);
    return marked;
  }

  /** The same for one unit. */
  markOne(unit: number): 0 | 1 {
    const word = unit >>> 5;
    const bit = 1 << (unit & 31);
    this.#marked = true;
    const before = Atomics.or(this.#words, word, bit);
    this.#noteStretch(word >>> this.#claimShift);
    if ((before & bit) !== 0) return 0;
    Atomics.add(this.#header, PENDING_UNITS, 1);
    return 1;
  }

  /**
   * Takes `count` units from `start` out of the set; returns how many were in it, and keep the memory that they have.
   * Any of them may be in flight still: the caller asks {@link inFlight}, or waits, before it lets the guest use them.
   */
  retract(start: number, count: number): number {
    const end = start + count;
    let retracted = 0;
    for (let word = start >>> 5; word * 32 < end; word++) {
      const mask = maskOf(word, start, end);
      // Most pages that are taken back were discarded long ago: looking costs less than taking the cache line, and
      // memory that was never marked stays untouched. A zero seen here is as good as one that AND would return.
      if ((Atomics.load(this.#words, word) & mask) === 0) continue;
      retracted += popcount(mask & Atomics.and(this.#words, word, ~mask));
    }
    if (retracted > 0) Atomics.sub(this.#header, PENDING_UNITS, retracted);
    return retracted;
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
    const end = start + count;
    let total = 0;
    for (let word = start >>> 5; word * 32 < end; word++) {
      total += popcount(maskOf(word, start, end) & Atomics.load(this.#words, word));
    }
    return total;
  }

  /** Whether a discard that touches [start, start + count) may be under way in another thread. */
  inFlight(start: number, count: number): boolean {
    // The end first: a claimer withdraws by zeroing the end, and publishes the start before the end.
    const end = Atomics.load(this.#header, IN_FLIGHT_END);
    return end > start && Atomics.load(this.#header, IN_FLIGHT_START) < start + count;
  }

  /** Another number after each run that was in flight. */
  get generation(): number {
    return Atomics.load(this.#header, GENERATION);
  }

  /** {@link onNews} is called where the set is discarded, once, after the run that is in flight when this returns. */
  watchRun(): void {
    Atomics.or(this.#header, WATCHERS, WATCHES_RUN);
  }

  /** The same now and then as the set becomes smaller, and in any case when nothing is outstanding. Once. */
  watchDrain(): void {
    Atomics.or(this.#header, WATCHERS, WATCHES_DRAIN);
  }

  /** Returns when no discard that touches [start, start + count) is under way. */
  waitWhileInFlight(start: number, count: number): void {
    for (;;) {
      const { generation } = this;
      if (!this.inFlight(start, count)) return;
      this.watchRun();
      Atomics.wait(this.#header, GENERATION, generation, WAIT_SLICE_MS);
    }
  }

  #lock(): void {
    while (Atomics.compareExchange(this.#header, LOCK, 0, 1) !== 0) {
      Atomics.wait(this.#header, LOCK, 1, WAIT_SLICE_MS);
    }
  }

  #unlock(): void {
    Atomics.store(this.#header, LOCK, 0);
    Atomics.notify(this.#header, LOCK);
    this.#tell(WATCHES_LOCK);
  }

  get closed(): boolean {
    return Atomics.load(this.#header, CLOSED) !== 0;
  }

  get held(): boolean {
    return Atomics.load(this.#header, HELD) !== 0;
  }

  /** While held, nothing is taken any more. What is in flight when this returns goes on. */
  set held(held: boolean) {
    Atomics.store(this.#header, HELD, Number(held));
  }

  /** Forgets what is marked and waits for a discard under way; afterwards no thread claims any more. */
  close(): void {
    if (this.closeNow()) return;
    this.#lock();
    this.#unlock();
  }

  /**
   * The same without waiting: false when a discard is under way. {@link onNews} is called where it is when it is over, and
   * this is to be asked again.
   */
  closeNow(): boolean {
    if (!this.closed) {
      Atomics.store(this.#header, CLOSED, 1);
      this.retractAll();
    }
    Atomics.or(this.#header, WATCHERS, WATCHES_LOCK);
    return Atomics.load(this.#header, LOCK) === 0;
  }

  /**
   * Claims the next stretch with pending units, at most {@link CLAIM_BYTES_MAX} bytes of it, going round the
   * region, and discards its maximal runs, for {@link CLAIM_MS_MAX} or little more. May be called from any thread.
   */
  discardSome(discard: DiscardUnits, claim: ClaimOf = 'any'): DiscardResult {
    // A guest has sets of terabytes that nothing is in, and a thread that marks something wakes a claimer after that.
    if (this.outstanding === 0) {
      this.#tellOfDrain();
      return NOTHING_DISCARDED;
    }
    this.#lock();
    try {
      if (this.closed || this.held) return NOTHING_DISCARDED;
      const stretch = this.#nextStretch(claim);
      if (stretch < 0) return NOTHING_DISCARDED;
      return this.#discardStretch(stretch, discard);
    } finally {
      this.#unlock();
      this.#tellOfDrain();
    }
  }

  /**
   * Takes the next run alone, for a caller that discards it in a while: until {@link OpenRun.end} it is in flight, and no thread
   * else claims. Undefined when there is none.
   */
  beginRun(): OpenRun | undefined {
    this.#lock();
    const stretch = this.closed || this.held ? -1 : this.#nextStretch('any');
    if (stretch < 0) {
      this.#unlock();
      this.#tellOfDrain();
      return undefined;
    }
    const { start: first, end: last } = this.#bounds(stretch);
    const start = this.#next(first, last, 0);
    const stop = this.#next(start, last, -1);
    if (this.#next(stop, last, 0) < last) this.#noteStretch(stretch);
    this.#take(start, stop);
    return {
      end: discard => {
        try {
          this.discardTimes.begin();
          return this.#discardRun(discard, start, stop - start);
        } finally {
          this.#totals[LAST_DISCARD_MS] = this.discardTimes.sinceMs;
          this.#withdraw();
          this.#unlock();
          this.#tellOfDrain();
        }
      },
    };
  }

  /** Discards until nothing is pending; returns the last failure, if any discard failed. */
  discardAll(discard: DiscardUnits): Error | undefined {
    let failure: Error | undefined;
    for (;;) {
      const result = this.discardSome(discard);
      failure = result.failure ?? failure;
      if (!result.more) return failure;
    }
  }

  /** Sets the stretch's bit in the summary, after the bits that it stands for. */
  #noteStretch(stretch: number): void {
    const bit = 1 << (stretch & 31);
    if ((Atomics.load(this.#summary, stretch >>> 5) & bit) === 0) {
      Atomics.or(this.#summary, stretch >>> 5, bit);
    }
  }

  /** The number of the next stretch that has anything pending, if it may be claimed; -1 when there is none. */
  #nextStretch(claim: ClaimOf): number {
    for (let looked = 0; looked < this.stretches; ) {
      if (this.#cursor >= this.stretches) this.#cursor = 0;
      const stretch = this.#cursor;
      const noted = Atomics.load(this.#summary, stretch >>> 5);
      if (noted === 0) {
        // Nothing in this stretch, nor in those up to the end of the summary's word.
        const next = Math.min(this.stretches, (stretch | 31) + 1);
        looked += next - stretch;
        this.#cursor = next;
        continue;
      }
      this.#cursor = stretch + 1;
      looked++;
      const bit = 1 << (stretch & 31);
      if ((noted & bit) === 0) continue;
      if (claim === 'dense' && !this.#isDense(stretch)) continue;
      // First the summary, then the bits: who marks after we looked at its word notes the stretch again.
      Atomics.and(this.#summary, stretch >>> 5, ~bit);
      const { start, end } = this.#bounds(stretch);
      if (this.#next(start, end, 0) < end) return stretch;
    }
    return -1;
  }

  /** The units of a stretch, up to the end of its last word. */
  #bounds(stretch: number): { readonly start: number; readonly end: number } {
    const first = stretch * this.#claimed.words.length;
    const last = Math.min(first + this.#claimed.words.length, this.#words.length);
    return { start: first * 32, end: last * 32 };
  }

  /** The first unit from `at` on whose bit is set (`flip` 0) or clear (`flip` -1), or `end`, a multiple of 32. */
  #next(at: number, end: number, flip: number): number {
    if (at >= end) return end;
    let word = at >>> 5;
    let bits = (Atomics.load(this.#words, word) ^ flip) & (-1 << (at & 31));
    while (bits === 0) {
      word++;
      if (word * 32 >= end) return end;
      bits = Atomics.load(this.#words, word) ^ flip;
    }
    return word * 32 + (31 - Math.clz32(bits & -bits));
  }

  /** Of what is pending now; it may be more a moment later. */
  #isDense(stretch: number): boolean {
    const first = stretch * this.#claimed.words.length;
    const last = Math.min(first + this.#claimed.words.length, this.#words.length);
    let units = 0;
    let runs = 0;
    let carry = 0;
    for (let word = first; word < last; word++) {
      const bits = this.#words[word];
      if (bits !== 0) {
        units += popcount(bits);
        // A run begins where a bit is set and the one below it is not.
        runs += popcount(bits & ~((bits << 1) | carry));
      }
      carry = bits >>> 31;
    }
    return units >= runs * this.#denseRunUnits;
  }

  #discardStretch(stretch: number, discard: DiscardUnits): DiscardResult {
    const { start, end } = this.#bounds(stretch);
    const startedMs = monotonicMs();
    let partial = false;
    let failure: Error | undefined;
    this.discardTimes.begin();
    const first = this.#next(start, end, 0);
    for (let at = first; at < end; at = this.#next(at, end, 0)) {
      // At least one run, however late it is.
      if (this.held || (at > first && this.discardTimes.sinceMs - startedMs > this.claimMsMax)) {
        // The bits that are left are still there.
        this.#noteStretch(stretch);
        partial = true;
        break;
      }
      const cut = Atomics.load(this.#header, CUT_UNITS);
      let stop = this.#next(at, end, -1);
      if (cut > 0 && stop - at > cut) stop = at + cut;
      // Retracted since it was seen.
      if (stop === at) continue;
      let taken = 0;
      try {
        taken = this.#take(at, stop);
        if (taken === stop - at) failure = this.#discardRun(discard, at, taken) ?? failure;
        else if (taken > 0) failure = this.#discardRest(discard, at, stop) ?? failure;
      } finally {
        this.#withdraw();
      }
      if (taken > 0) this.#adjustCut(stop - at);
      at = stop;
    }
    const totals = this.#totals;
    totals[LAST_DISCARD_MS] = this.discardTimes.sinceMs;
    totals[DISCARD_MS] += totals[LAST_DISCARD_MS] - startedMs;
    return { more: true, partial, failure };
  }

  /** Publishes [start, stop) and takes what of it is pending; returns how many units that is. */
  #take(start: number, stop: number): number {
    Atomics.store(this.#header, IN_FLIGHT_START, start);
    Atomics.store(this.#header, IN_FLIGHT_END, stop);
    const first = start >>> 5;
    let units = 0;
    if (this.held) return 0;
    for (let word = first; word * 32 < stop; word++) {
      const mask = maskOf(word, start, stop);
      const bits = Atomics.and(this.#words, word, ~mask) & mask;
      this.#claimed.words[word - first] = bits;
      units += popcount(bits);
    }
    Atomics.store(this.#header, IN_FLIGHT_UNITS, units);
    Atomics.sub(this.#header, PENDING_UNITS, units);
    return units;
  }

  #discardRun(discard: DiscardUnits, start: number, count: number): Error | undefined {
    const totals = this.#totals;
    try {
      discard(start, count);
      totals[DISCARDED_UNITS] += count;
      totals[DISCARDS]++;
      this.discardTimes.end(1);
      return undefined;
    } catch (error) {
      if (!(error instanceof AerostatError)) throw error;
      totals[FAILURES]++;
      Atomics.store(this.#header, LAST_ERRNO, error instanceof SystemError ? error.errno : -1);
      this.discardTimes.begin();
      return error;
    }
  }

  /** Of a run from which something was retracted just when it was taken: what was got of it. */
  #discardRest(discard: DiscardUnits, start: number, stop: number): Error | undefined {
    const base = start & ~31;
    let failure: Error | undefined;
    this.#claimed.forEachRun(
      (offset, count) => {
        failure = this.#discardRun(discard, base + offset, count) ?? failure;
      },
      start - base,
      stop - base,
    );
    return failure;
  }

  /** Ends a run: its units are discarded (or given up), and threads that wait for them go on. */
  #withdraw(): void {
    Atomics.store(this.#header, IN_FLIGHT_UNITS, 0);
    Atomics.store(this.#header, IN_FLIGHT_END, 0);
    Atomics.add(this.#header, GENERATION, 1);
    if ((Atomics.load(this.#header, WATCHERS) & WATCHES_RUN) === 0) return;
    Atomics.notify(this.#header, GENERATION);
    this.#tell(WATCHES_RUN);
  }

  #adjustCut(units: number): void {
    const cut = Atomics.load(this.#header, CUT_UNITS);
    const ms = this.discardTimes.tookMs;
    if (ms > RUN_MS_MAX && units > this.#cutUnitsMin) {
      Atomics.store(this.#header, CUT_UNITS, Math.max(this.#cutUnitsMin, units >>> 1));
    } else if (cut > 0 && units === cut && ms < RUN_MS_MAX / 4) {
      Atomics.store(this.#header, CUT_UNITS, cut * 2);
    }
  }

  #tell(watcher: number): void {
    if ((Atomics.load(this.#header, WATCHERS) & watcher) === 0) return;
    Atomics.and(this.#header, WATCHERS, ~watcher);
    this.onNews();
  }

  #tellOfDrain(): void {
    if ((Atomics.load(this.#header, WATCHERS) & WATCHES_DRAIN) === 0) return;
    const nowMs = monotonicMs();
    if (this.outstanding > 0 && nowMs - this.#lastNewsMs < DRAIN_NEWS_MS) return;
    this.#lastNewsMs = nowMs;
    this.#tell(WATCHES_DRAIN);
  }
}
