/**
 * A set of pending discards as it lies in shared memory: a header, totals, a summary of stretches, the stretches that are
 * marked as a whole, and one bit a unit for the others. Both
 * sides work on it, the thread that marks (pending-discards.ts, which states the protocol) and those that claim
 * (discard-claims.ts). Here is only what both do.
 */
import { DurationHistogram } from '../sys/durations.ts';
import type { HugeUnits } from './huge-units.ts';
import { maskOf, popcount, wordsFor } from './page-bitmap.ts';

/** Words of the header. */
export const WORD = {
  lock: 0,
  closed: 1,
  inFlightStart: 2,
  inFlightEnd: 3,
  inFlightUnits: 4,
  generation: 5,
  pendingUnits: 6,
  waiting: 7,
  watchers: 8,
  haste: 9,
  lastErrno: 10,
  cutUnits: 11,
  held: 12,
} as const;
/** An even number: 64-bit floats follow. */
const HEADER_WORDS = 14;

/** What the marking thread wants to be told of, in the word of watchers. */
export const WATCHES = {
  /** The end of the run in flight. */
  run: 1,
  /** The set has become (nearly) empty. */
  drain: 2,
  /** A closed set is left. */
  lock: 4,
} as const;

/** Totals, 64-bit floats behind the header; written under the lock only. */
export const TOTAL = {
  discardedUnits: 0,
  discards: 1,
  failures: 2,
  lastDiscardMs: 3,
  discardMs: 4,
  /** Huge pages of which a part was discarded. */
  hugePagesCut: 5,
} as const;
const TOTALS = 6;
/** How long each discard took, behind the totals and like them. */
const TIMES_AT = HEADER_WORDS * 4 + TOTALS * 8;
const SUMMARY_AT = TIMES_AT + DurationHistogram.words * 8;

/**
 * Bytes that one claim covers at most, or 32 units where those are more: punches of 1 MiB and more cost the same per
 * byte, and others have their turn after it.
 */
export const CLAIM_BYTES_MAX = 16 * 2 ** 20;

/** A waiter looks again after this long, so that a lost wake-up costs a moment and not the guest. */
export const WAIT_SLICE_MS = 100;

function layoutOf(units: number, unitBytes: number) {
  // A power of two, so that a word's stretch is found by shifting: dividing is what marking a page would cost most beside
  // the atomic operations.
  const claimShift = 31 - Math.clz32(Math.max(1, wordsFor(CLAIM_BYTES_MAX / unitBytes)));
  const claimWords = 1 << claimShift;
  const words = wordsFor(units);
  const stretches = Math.ceil(words / claimWords);
  const summaryWords = wordsFor(stretches);
  const wholeAt = SUMMARY_AT + summaryWords * 4;
  const bitmapAt = wholeAt + summaryWords * 4;
  return { claimShift, claimWords, stretches, summaryWords, wholeAt, bitmapAt, bytes: bitmapAt + words * 4 };
}

/** Sets the stretch's bit in the summary, after the bits that it stands for. */
export function noteStretch(summary: Int32Array, stretch: number): void {
  const bit = 1 << (stretch & 31);
  if ((Atomics.load(summary, stretch >>> 5) & bit) === 0) Atomics.or(summary, stretch >>> 5, bit);
}

export class PendingState {
  readonly shared: SharedArrayBuffer;
  readonly header: Int32Array;
  readonly totals: Float64Array;
  /** How long discards took, one by one. */
  readonly times: DurationHistogram;
  /** One bit a stretch that a claim covers: whether it may hold pending units. */
  readonly summary: Int32Array;
  /** One bit a stretch: all of its units are pending, and its words are empty (whole-stretches.ts). */
  readonly whole: Int32Array;
  readonly words: Int32Array;
  /** Units of a stretch. */
  readonly stretchUnits: number;
  /** Words of a stretch, and as the number of bits to shift by. */
  readonly claimWords: number;
  readonly claimShift: number;
  readonly stretches: number;
  /** Where the host holds units in larger pages, as far as that is known. */
  huge: HugeUnits | undefined;
  /** Called by a claimer when something happened that is watched for. */
  onNews: () => void = () => {};

  constructor(shared: SharedArrayBuffer, units: number, unitBytes: number) {
    const layout = layoutOf(units, unitBytes);
    this.shared = shared;
    this.header = new Int32Array(shared, 0, HEADER_WORDS);
    this.totals = new Float64Array(shared, HEADER_WORDS * 4, TOTALS);
    this.times = new DurationHistogram(new Float64Array(shared, TIMES_AT, DurationHistogram.words));
    this.claimWords = layout.claimWords;
    this.claimShift = layout.claimShift;
    this.stretches = layout.stretches;
    this.summary = new Int32Array(shared, SUMMARY_AT, layout.summaryWords);
    this.whole = new Int32Array(shared, layout.wholeAt, layout.summaryWords);
    this.words = new Int32Array(shared, layout.bitmapAt);
    this.stretchUnits = layout.claimWords * 32;
  }

  /** Bytes of shared memory that a set of `units` units takes. */
  static bytes(units: number, unitBytes: number): number {
    return layoutOf(units, unitBytes).bytes;
  }

  /** Units marked and neither retracted nor discarded yet. */
  get outstanding(): number {
    const pending =
      Atomics.load(this.header, WORD.pendingUnits) + Atomics.load(this.header, WORD.inFlightUnits);
    return Math.max(0, pending);
  }

  get closed(): boolean {
    return Atomics.load(this.header, WORD.closed) !== 0;
  }

  get held(): boolean {
    return Atomics.load(this.header, WORD.held) !== 0;
  }

  /** Whether a run has less than a stretch, because discards take long. */
  get cuts(): boolean {
    const units = Atomics.load(this.header, WORD.cutUnits);
    return units > 0 && units < this.stretchUnits;
  }

  isWhole(stretch: number): boolean {
    return (Atomics.load(this.whole, stretch >>> 5) & (1 << (stretch & 31))) !== 0;
  }

  /** Clears the bit of a stretch that is marked as a whole; only one thread gets true. */
  takeWhole(stretch: number): boolean {
    const bit = 1 << (stretch & 31);
    return (Atomics.and(this.whole, stretch >>> 5, ~bit) & bit) !== 0;
  }

  /** Sets the bits of units [start, end); returns how many were clear, and leaves the summary alone. */
  setBits(start: number, end: number): number {
    let set = 0;
    for (let word = start >>> 5; word * 32 < end; word++) {
      const mask = maskOf(word, start, end);
      set += popcount(mask & ~Atomics.or(this.words, word, mask));
    }
    return set;
  }

  /** How many bits of units [start, end) are set. */
  countBits(start: number, end: number): number {
    let set = 0;
    for (let word = start >>> 5; word * 32 < end; word++) {
      set += popcount(maskOf(word, start, end) & Atomics.load(this.words, word));
    }
    return set;
  }

  /** The units of a stretch, up to the end of its last word. */
  bounds(stretch: number): { readonly start: number; readonly end: number } {
    const first = stretch * this.claimWords;
    const last = Math.min(first + this.claimWords, this.words.length);
    return { start: first * 32, end: last * 32 };
  }

  /** The first unit from `at` on whose bit is set (`flip` 0) or clear (`flip` -1), or `end`, a multiple of 32. */
  next(at: number, end: number, flip: number): number {
    if (at >= end) return end;
    let word = at >>> 5;
    let bits = (Atomics.load(this.words, word) ^ flip) & (-1 << (at & 31));
    while (bits === 0) {
      word++;
      if (word * 32 >= end) return end;
      bits = Atomics.load(this.words, word) ^ flip;
    }
    return word * 32 + (31 - Math.clz32(bits & -bits));
  }

  /** Says so once, if that is watched for. */
  notify(watcher: number): void {
    if ((Atomics.load(this.header, WORD.watchers) & watcher) === 0) return;
    Atomics.and(this.header, WORD.watchers, ~watcher);
    this.onNews();
  }
}
