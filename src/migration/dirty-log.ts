/**
 * The write log: which pages were written since the last sync. A log only ever gains pages by writes and only
 * loses them by {@link DirtyLog.take}; a hint, a discard or a send never touches it. That is one of the rules that
 * make it safe to skip pages (docs/hint-safety.md).
 *
 * Pages are named by slot: their number in {@link ./ram.ts}'s order, without the holes between regions.
 */
import type { PageSink } from '../memory/page.ts';
import { maskOf, popcount, wordsFor } from '../memory/page-bitmap.ts';
import { forEachFilled } from '../memory/word-stretches.ts';
import type { SlotBitmap } from './slot-bitmap.ts';

export interface DirtyLog {
  readonly name: string;
  /**
   * Moves what was written among `count` slots from `start` into `into`, clearing and re-arming the log in the same
   * step: a write that races with this is in `into` or still in the log, never in neither. Returns how many pages the
   * log held.
   */
  collect(start: number, count: number, into: SlotBitmap): number;
  close(): void;
}

/**
 * A log that the guest's own stores keep, one bit a page in shared memory. It sees no writer but those that report to
 * it, each **after** its store: a mark set before the store could be taken between the two, and the store be lost.
 */
export class SoftwareDirtyLog implements DirtyLog, PageSink {
  readonly name = 'software';
  readonly slots: number;
  readonly words: Int32Array;

  /** A log of `slots` pages: on `words`, which other threads may share, or on fresh shared memory. */
  constructor(slots: number, words: Int32Array = new Int32Array(new SharedArrayBuffer(wordsFor(slots) * 4))) {
    this.slots = slots;
    this.words = words;
  }

  /** Pages were written. */
  add(start: number, count: number): void {
    const end = start + count;
    for (let word = start >>> 5; word * 32 < end; word++) {
      // A locked instruction even where the bit is set already. To look first would be cheaper and wrong: processors
      // may do a load before an earlier store is visible, so the bit seen could be one that is being taken, by
      // a reader that then reads the page without that store.
      Atomics.or(this.words, word, maskOf(word, start, end));
    }
  }

  collect(start: number, count: number, into: SlotBitmap): number {
    const end = start + count;
    let taken = 0;
    forEachFilled(this.words, start >>> 5, wordsFor(end), (from, to) => {
      for (let word = from; word < to; word++) {
        const mask = maskOf(word, start, end);
        if ((Atomics.load(this.words, word) & mask) === 0) continue;
        const bits = Atomics.and(this.words, word, ~mask) & mask;
        Atomics.or(into.words, word, bits);
        taken += popcount(bits);
      }
    });
    return taken;
  }

  /**
   * Drops what was written among `count` slots from `start`, and returns how many pages that was. A migration that is under
   * way would lose them.
   */
  forget(start: number, count: number): number {
    const end = start + count;
    let pages = 0;
    for (let word = start >>> 5; word * 32 < end; word++) {
      const mask = maskOf(word, start, end);
      if ((Atomics.load(this.words, word) & mask) === 0) continue;
      pages += popcount(Atomics.and(this.words, word, ~mask) & mask);
    }
    return pages;
  }

  close(): void {}
}
