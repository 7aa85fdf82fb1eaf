/**
 * The migration's own bitmap: pages still to send. It gains pages from the write log at a sync, and loses them by
 * being drained for sending or by being cleared. It is shared memory under Atomics, because the device's thread clears
 * while the senders' threads drain.
 */
import { maskOf, popcount, wordsFor } from '../memory/page-bitmap.ts';
import { forEachFilled } from '../memory/word-stretches.ts';

export class SlotBitmap {
  /** Pages that it covers, by slot. */
  readonly slots: number;
  readonly words: Int32Array;
  /** What the last {@link drain} found. */
  start = 0;
  count = 0;

  /** On `words`, which other threads may share, or on fresh shared memory with no page in it. */
  constructor(slots: number, words: Int32Array = new Int32Array(new SharedArrayBuffer(wordsFor(slots) * 4))) {
    this.slots = slots;
    this.words = words;
  }

  /** All pages are to be sent: the state before the first round. */
  setAll(): void {
    this.set(0, this.slots);
  }

  set(start: number, count: number): void {
    const end = start + count;
    for (let word = start >>> 5; word * 32 < end; word++) {
      Atomics.or(this.words, word, maskOf(word, start, end));
    }
  }

  /**
   * These pages need not be sent as they are now. Returns how many of them would have been. What is written to them
   * afterwards is in the log, which this does not touch.
   */
  clear(start: number, count: number): number {
    const end = start + count;
    let skipped = 0;
    for (let word = start >>> 5; word * 32 < end; word++) {
      const mask = maskOf(word, start, end);
      if ((Atomics.load(this.words, word) & mask) === 0) continue;
      skipped += popcount(Atomics.and(this.words, word, ~mask) & mask);
    }
    return skipped;
  }

  /**
   * Takes out the first run of pages in [from, end), at most `countMax` of them, into {@link start} and {@link count}.
   * False when there is none. A page that is skipped at the same moment may be taken all the same, which costs a
   * transfer and nothing else.
   */
  drain(from: number, end: number, countMax: number): boolean {
    if (!this.find(from, end, countMax)) return false;
    this.clear(this.start, this.count);
    return true;
  }

  /** The same, and leaves it in. */
  find(from: number, end: number, countMax: number): boolean {
    const start = this.#next(from, end, 0);
    if (start >= end) return false;
    const stop = this.#next(start, Math.min(end, start + countMax), -1);
    this.start = start;
    this.count = stop - start;
    return true;
  }

  has(slot: number): boolean {
    return (Atomics.load(this.words, slot >>> 5) & (1 << (slot & 31))) !== 0;
  }

  /** Pages still to send, in [start, end). */
  countIn(start = 0, end: number = this.slots): number {
    let total = 0;
    forEachFilled(this.words, start >>> 5, wordsFor(end), (from, to) => {
      for (let word = from; word < to; word++) {
        const bits = Atomics.load(this.words, word);
        if (bits !== 0) total += popcount(bits & maskOf(word, start, end));
      }
    });
    return total;
  }

  /** The first slot in [from, end) whose bit is set (`flip` 0) or clear (`flip` -1), or `end`. */
  #next(from: number, end: number, flip: number): number {
    if (from >= end) return end;
    let word = from >>> 5;
    let bits = (Atomics.load(this.words, word) ^ flip) & (-1 << (from & 31));
    while (bits === 0) {
      word++;
      if (word * 32 >= end) return end;
      bits = Atomics.load(this.words, word) ^ flip;
    }
    return Math.min(end, word * 32 + (31 - Math.clz32(bits & -bits)));
  }
}
