/**
 * Memory that a guest has given away and that is not yet given back to the host: a bitmap in shared memory
 * between the thread that talks to the guest (it marks and retracts) and the thread that gives memory back
 * (it claims, discards, completes). Nothing here knows why the memory was given away.
 *
 * One bit stands for one discard unit of the region's backing (a 4 KiB page, or a whole huge page).
 *
 * The protocol that makes "retracted units keep their memory" true without a lock on the marking side:
 * - A claimer publishes the range it is about to claim, then takes the bits with atomic exchanges, then
 *   discards, then withdraws the range and bumps the generation.
 * - A retracter clears the bit with an atomic AND. From then on no claimer takes it. One that had taken it before
 *   had published its range before that, so looking at the range now finds it (or finds it withdrawn, and the
 *   discard is over). The retracter waits that discard out before the guest may touch the unit. It looks also
 *   where the bit was set, for a unit may have been marked again while it was being discarded.
 * - Claimers exclude each other by the lock word. Closing takes the lock, so once it returns nobody discards
 *   through the region's descriptor any more. Holding does so too: what is marked stays marked and is not claimed.
 */
import { DurationHistogram } from '../sys/durations.ts';
import { AerostatError, assert } from '../sys/error.ts';
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
const HELD = 8;
/** An even number: 64-bit floats follow. */
const HEADER_WORDS = 10;

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
 * Bytes that one claim covers at most, or 32 units where those are more (a word of the bitmap is claimed whole, and
 * freeing a huge page costs no more than freeing a small one). Who retracts a claimed unit waits for its claim to
 * complete, so the claim bounds that wait (about 2 ms of shmem); punches of 1 MiB and more cost the same per byte.
 */
export const CLAIM_BYTES_MAX = 16 * 2 ** 20;

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
export type ClaimOf = 'any' | 'dense';

export interface DiscardResult {
  /** Something was claimed, so there may be more. */
  readonly more: boolean;
  readonly failure: Error | undefined;
}

const NOTHING_DISCARDED: DiscardResult = { more: false, failure: undefined };

/** A waiter looks again after this long, so that a lost wake-up costs a moment and not the guest. */
const WAIT_SLICE_MS = 100;

function layoutOf(units: number, unitBytes: number) {
  const claimWords = Math.max(1, wordsFor(CLAIM_BYTES_MAX / unitBytes));
  const words = wordsFor(units);
  const stretches = Math.ceil(words / claimWords);
  const summaryWords = wordsFor(stretches);
  const bitmapAt = SUMMARY_AT + summaryWords * 4;
  return { claimWords, stretches, summaryWords, bitmapAt, bytes: bitmapAt + words * 4 };
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
  /** Stretches that the set consists of: as many claims go round it. */
  readonly stretches: number;
  readonly #claimed: PageBitmap;
  readonly #denseRunUnits: number;
  #claimStart = 0;
  /** The stretch to look at next. */
  #cursor = 0;

  /** Opens the set in `shared`, as {@link PendingDiscards.create} made it. */
  constructor(shared: SharedArrayBuffer, units: number, unitBytes: number) {
    this.shared = shared;
    this.units = units;
    this.#header = new Int32Array(shared, 0, HEADER_WORDS);
    this.#totals = new Float64Array(shared, HEADER_WORDS * 4, TOTALS);
    this.discardTimes = new DurationHistogram(new Float64Array(shared, TIMES_AT, DurationHistogram.words));
    const layout = layoutOf(units, unitBytes);
    this.stretches = layout.stretches;
    this.#summary = new Int32Array(shared, SUMMARY_AT, layout.summaryWords);
    this.#words = new Int32Array(shared, layout.bitmapAt);
    this.#claimed = new PageBitmap(layout.claimWords * 32);
    this.#denseRunUnits = Math.ceil(DENSE_RUN_BYTES / unitBytes);
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

  /** Whether whoever discards leaves sparse units alone for a while, in the hope of neighbours. */
  get waiting(): boolean {
    return Atomics.load(this.#header, WAITING) !== 0;
  }

  set waiting(waiting: boolean) {
    Atomics.store(this.#header, WAITING, Number(waiting));
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
    const end = start + count;
    let marked = 0;
    for (let word = start >>> 5; word * 32 < end; word++) {
      const mask = maskOf(word, start, end);
      marked += popcount(mask & ~Atomics.or(this.#words, word, mask));
      this.#noteStretch(Math.floor(word / this.#claimed.words.length));
    }
    if (marked > 0) Atomics.add(this.#header, PENDING_UNITS, marked);
    return marked;
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

  /** Returns when no discard that touches [start, start + count) is under way. */
  waitWhileInFlight(start: number, count: number): void {
    for (;;) {
      const generation = Atomics.load(this.#header, GENERATION);
      if (!this.inFlight(start, count)) return;
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
  }

  get closed(): boolean {
    return Atomics.load(this.#header, CLOSED) !== 0;
  }

  get held(): boolean {
    return Atomics.load(this.#header, HELD) !== 0;
  }

  /** While held, nothing is claimed. A discard under way is over when holding returns. */
  set held(held: boolean) {
    Atomics.store(this.#header, HELD, Number(held));
    if (!held) return;
    this.#lock();
    this.#unlock();
  }

  /** Forgets what is marked and waits for a discard under way; afterwards nobody claims any more. */
  close(): void {
    Atomics.store(this.#header, CLOSED, 1);
    this.retractAll();
    this.#lock();
    this.#unlock();
  }

  /**
   * Claims the next stretch with pending units, at most {@link CLAIM_BYTES_MAX} bytes of it, going round the
   * region, and discards its maximal runs. May be called from any thread.
   */
  discardSome(discard: DiscardUnits, claim: ClaimOf = 'any'): DiscardResult {
    this.#lock();
    try {
      if (this.closed || this.held || !this.#claim(claim)) return NOTHING_DISCARDED;
      try {
        return { more: true, failure: this.#discardClaimed(discard) };
      } finally {
        this.#complete();
      }
    } finally {
      this.#unlock();
    }
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

  #claim(claim: ClaimOf): boolean {
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
      if ((noted & (1 << (stretch & 31))) === 0) continue;
      if (claim === 'dense' && !this.#isDense(stretch)) continue;
      if (this.#take(stretch)) return true;
    }
    return false;
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

  #take(stretch: number): boolean {
    const first = stretch * this.#claimed.words.length;
    const last = Math.min(first + this.#claimed.words.length, this.#words.length);
    // First the summary, then the bits: who marks after we took its word notes the stretch again.
    Atomics.and(this.#summary, stretch >>> 5, ~(1 << (stretch & 31)));
    Atomics.store(this.#header, IN_FLIGHT_START, first * 32);
    Atomics.store(this.#header, IN_FLIGHT_END, last * 32);
    let units = 0;
    for (let word = first; word < last; word++) {
      const bits = Atomics.load(this.#words, word) === 0 ? 0 : Atomics.exchange(this.#words, word, 0);
      this.#claimed.words[word - first] = bits;
      if (bits !== 0) units += popcount(bits);
    }
    this.#claimed.words.fill(0, last - first);
    this.#claimStart = first * 32;
    Atomics.store(this.#header, IN_FLIGHT_UNITS, units);
    Atomics.sub(this.#header, PENDING_UNITS, units);
    if (units > 0) return true;
    this.#complete();
    return false;
  }

  #discardClaimed(discard: DiscardUnits): Error | undefined {
    const totals = this.#totals;
    const startedMs = monotonicMs();
    let failure: Error | undefined;
    this.discardTimes.begin();
    this.#claimed.forEachRun((offset, count) => {
      try {
        discard(this.#claimStart + offset, count);
        totals[DISCARDED_UNITS] += count;
        totals[DISCARDS]++;
        this.discardTimes.end(1);
      } catch (error) {
        if (!(error instanceof AerostatError)) throw error;
        totals[FAILURES]++;
        failure = error;
        this.discardTimes.begin();
      }
    });
    const endedMs = monotonicMs();
    totals[DISCARD_MS] += endedMs - startedMs;
    totals[LAST_DISCARD_MS] = endedMs;
    return failure;
  }

  /** Ends a claim: its units are discarded (or given up), and whoever waits for them goes on. */
  #complete(): void {
    Atomics.store(this.#header, IN_FLIGHT_UNITS, 0);
    Atomics.store(this.#header, IN_FLIGHT_END, 0);
    Atomics.add(this.#header, GENERATION, 1);
    Atomics.notify(this.#header, GENERATION);
  }
}
