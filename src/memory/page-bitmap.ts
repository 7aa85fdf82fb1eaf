/**
 * One bit a page (or any other unit), in 32-bit words, in private or shared memory. Plain operations: who
 * shares the words between threads uses Atomics on {@link PageBitmap.words}.
 */

const WORD_SHIFT = 5;
const WORD_BITS = 32;

export const wordsFor = (bits: number): number => Math.ceil(bits / WORD_BITS);

export function popcount(word: number): number {
  word -= (word >>> 1) & 0x55555555;
  word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
  return Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** The bits of word `word` that lie in [start, end), as a mask. The range must reach into the word. */
export function maskOf(word: number, start: number, end: number): number {
  const first = word * WORD_BITS;
  const low = start > first ? start - first : 0;
  const high = end < first + WORD_BITS ? end - first : WORD_BITS;
  return (-1 << low) & (-1 >>> (WORD_BITS - high));
}

export class PageBitmap {
  readonly length: number;
  readonly words: Int32Array;

  /** A bitmap of `length` bits: on `words` when they are given, else on fresh zeroed memory. */
  constructor(length: number, words: Int32Array = new Int32Array(wordsFor(length))) {
    this.length = length;
    this.words = words;
  }

  /** A bitmap that other threads may read through its words: what they see may be a moment old. */
  static shared(length: number): PageBitmap {
    return new PageBitmap(length, new Int32Array(new SharedArrayBuffer(wordsFor(length) * 4)));
  }

  test(index: number): boolean {
    return (this.words[index >>> WORD_SHIFT] & (1 << (index & 31))) !== 0;
  }

  /** Sets `count` bits from `start`; returns how many of them were clear before. */
  set(start: number, count: number): number {
    const { words } = this;
    if (count === 1) {
      const bit = 1 << (start & 31);
      const before = words[start >>> WORD_SHIFT];
      words[start >>> WORD_SHIFT] = before | bit;
      return (before & bit) === 0 ? 1 : 0;
    }
    const end = start + count;
    let changed = 0;
    for (let word = start >>> WORD_SHIFT; word * WORD_BITS < end; word++) {
      const mask = maskOf(word, start, end);
      changed += popcount(mask & ~words[word]);
      words[word] |= mask;
    }
    return changed;
  }

  /** Clears `count` bits from `start`; returns how many of them were set before. */
  clear(start: number, count: number): number {
    const { words } = this;
    if (count === 1) {
      const bit = 1 << (start & 31);
      const before = words[start >>> WORD_SHIFT];
      words[start >>> WORD_SHIFT] = before & ~bit;
      return (before & bit) === 0 ? 0 : 1;
    }
    const end = start + count;
    let changed = 0;
    for (let word = start >>> WORD_SHIFT; word * WORD_BITS < end; word++) {
      const mask = maskOf(word, start, end);
      changed += popcount(mask & words[word]);
      words[word] &= ~mask;
    }
    return changed;
  }

  /** How many of the `count` bits from `start` are set. */
  countIn(start: number, count: number): number {
    const end = start + count;
    let total = 0;
    for (let word = start >>> WORD_SHIFT; word * WORD_BITS < end; word++) {
      total += popcount(maskOf(word, start, end) & this.words[word]);
    }
    return total;
  }

  count(): number {
    let total = 0;
    for (const word of this.words) total += popcount(word);
    return total;
  }

  clearAll(): void {
    this.words.fill(0);
  }

  /** Index of the first set bit at or after `from`, or `length`. */
  nextSet(from: number): number {
    return this.#next(from, 0);
  }

  /** Index of the first clear bit at or after `from`, or `length`. */
  nextClear(from: number): number {
    return this.#next(from, -1);
  }

  /** Visits the maximal runs of set bits that begin in [start, end), in rising order, cut at `end`. */
  forEachRun(visit: (start: number, count: number) => void, start = 0, end = this.length): void {
    let at = this.nextSet(start);
    while (at < end) {
      const stop = Math.min(this.nextClear(at), end);
      visit(at, stop - at);
      at = this.nextSet(stop);
    }
  }

  #next(from: number, flip: number): number {
    if (from >= this.length) return this.length;
    let word = from >>> WORD_SHIFT;
    let bits = (this.words[word] ^ flip) & (-1 << (from & 31));
    while (bits === 0) {
      word++;
      if (word >= this.words.length) return this.length;
      bits = this.words[word] ^ flip;
    }
    const index = word * WORD_BITS + (31 - Math.clz32(bits & -bits));
    return Math.min(index, this.length);
  }
}
