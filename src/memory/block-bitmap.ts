/**
 * One bit a page for all of a region, in shared memory, made for runs of any length: pages are counted by blocks, and a block
 * whose pages are all set or all clear has no words. So a run over terabytes of sparse memory costs a step for each block
 * and touches nothing else. Other threads may read; what they see may be a moment old.
 */
import { maskOf, popcount, wordsFor } from './page-bitmap.ts';

/** Pages in a block: 128 MiB of guest memory, and 4 KiB of words, a page of ours. */
export const BLOCK_PAGES = 2 ** 15;
const BLOCK_SHIFT = 15;
const BLOCK_WORDS = BLOCK_PAGES / 32;

/** What a block's words cost when they come into use: they are filled, and perhaps backed by the kernel only then. */
const FILL_WORK = 64;

/** The two parts of a bitmap, for another thread. */
export interface BlockWords {
  /** Set pages of each block. */
  readonly counts: Int32Array;
  /** 32 pages a word; of a block that is neither empty nor full. */
  readonly words: Int32Array;
}

export class BlockBitmap implements BlockWords {
  /** Pages. */
  readonly length: number;
  readonly counts: Int32Array;
  readonly words: Int32Array;
  /** Words and blocks that were gone through, all calls together; it only rises. */
  work = 0;
  #total = 0;
  /** Other threads read the words alone: full and empty blocks have them, too. */
  #exposed = false;

  /**
   * Opens what another thread made, for reading, or memory in which the bitmap is to be, for its one writer: empty, or to be
   * {@link recount}ed. Without `parts` it makes an empty one.
   */
  constructor(length: number, parts?: BlockWords) {
    this.length = length;
    this.counts = parts?.counts ?? sharedWords(Math.ceil(length / BLOCK_PAGES));
    this.words = parts?.words ?? sharedWords(wordsFor(length));
  }

  /** Set pages, for the thread that sets them. */
  get total(): number {
    return this.#total;
  }

  /** Whether none of these pages is set, as far as that can be told without looking at words. */
  emptyBlock(block: number): boolean {
    return this.counts[block] === 0;
  }

  test(page: number): boolean {
    const block = page >>> BLOCK_SHIFT;
    const count = Atomics.load(this.counts, block);
    if (count === 0) return false;
    if (count === this.#pagesIn(block)) return true;
    return (this.words[page >>> 5] & (1 << (page & 31))) !== 0;
  }

  /** Sets `count` pages from `start`; returns how many of them were clear before. */
  set(start: number, count: number): number {
    return this.#change(start, count, true);
  }

  /** Clears `count` pages from `start`; returns how many of them were set before. */
  clear(start: number, count: number): number {
    return this.#change(start, count, false);
  }

  /**
   * Sets or clears one page, of those that lie far apart and come one by one: 1 when it was not so before, else 0. -1, and
   * nothing is done, where its block is empty or full and {@link set} or {@link clear} has to be called.
   */
  changeOne(page: number, set: boolean): -1 | 0 | 1 {
    const { counts, words } = this;
    const block = page >>> BLOCK_SHIFT;
    const before = counts[block];
    if (before === 0 || before === BLOCK_PAGES || before === this.#pagesIn(block)) return -1;
    const bit = 1 << (page & 31);
    const word = words[page >>> 5];
    this.work += 2;
    if (((word & bit) !== 0) === set) return 0;
    words[page >>> 5] = word ^ bit;
    counts[block] = set ? before + 1 : before - 1;
    this.#total += set ? 1 : -1;
    return 1;
  }

  clearAll(): void {
    if (this.#exposed) this.words.fill(0);
    this.counts.fill(0);
    this.#total = 0;
  }

  /** How many of the `count` pages from `start` are set. */
  countIn(start: number, count: number): number {
    const end = start + count;
    let total = 0;
    for (let at = start; at < end; ) {
      const block = at >>> BLOCK_SHIFT;
      const blockEnd = (block + 1) * BLOCK_PAGES;
      const to = Math.min(end, blockEnd);
      const set = Atomics.load(this.counts, block);
      const pages = this.#pagesIn(block);
      if (to - at === pages) total += set;
      else if (set === pages) total += to - at;
      else if (set > 0) {
        for (let word = at >>> 5; word * 32 < to; word++)
          total += popcount(maskOf(word, at, to) & this.words[word]);
      }
      at = to;
    }
    return total;
  }

  /** The pages of word `word`, whatever its block is. */
  wordAt(word: number): number {
    const block = (word * 32) >>> BLOCK_SHIFT;
    const count = Atomics.load(this.counts, block);
    if (count === 0) return 0;
    if (count === this.#pagesIn(block)) return maskOf(word, 0, this.length);
    return this.words[word];
  }

  /** Visits the maximal runs of set pages in rising order. */
  forEachRun(visit: (start: number, count: number) => void): void {
    let open = -1;
    for (let block = 0; block < this.counts.length; block++) {
      const first = block * BLOCK_PAGES;
      const pages = this.#pagesIn(block);
      const set = this.counts[block];
      if (set === 0 || set === pages) {
        if (set > 0 && open < 0) open = first;
        if (set === 0 && open >= 0) {
          visit(open, first - open);
          open = -1;
        }
        continue;
      }
      for (let word = first >>> 5; word * 32 < first + pages; word++) {
        let differing = this.words[word] ^ (open < 0 ? 0 : -1);
        while (differing !== 0) {
          const page = word * 32 + (31 - Math.clz32(differing & -differing));
          if (page >= this.length) break;
          if (open < 0) open = page;
          else {
            visit(open, page - open);
            open = -1;
          }
          differing = ~differing & (-1 << (page & 31));
        }
      }
    }
    if (open >= 0) visit(open, this.length - open);
  }

  /** The words of all blocks, for a reader that looks at nothing else; from now on they are kept for it. */
  expose(): Int32Array {
    if (!this.#exposed) {
      this.#exposed = true;
      for (let block = 0; block < this.counts.length; block++) {
        const count = this.counts[block];
        if (count === 0 || count === this.#pagesIn(block)) this.#fill(block, count > 0);
      }
    }
    return this.words;
  }

  /**
   * Counts anew what a process left that may have ended at any moment: between a word and its block's count, or between the
   * filling of a block's words and the count from which on they are looked at.
   */
  recount(): void {
    this.#total = 0;
    for (let block = 0; block < this.counts.length; block++) {
      const pages = this.#pagesIn(block);
      if (this.counts[block] > 0 && this.counts[block] < pages) {
        const first = block * BLOCK_WORDS;
        let count = 0;
        for (let word = first; word * 32 < block * BLOCK_PAGES + pages; word++)
          count += popcount(this.words[word]);
        this.counts[block] = count;
      }
      this.#total += this.counts[block];
    }
  }

  /** The same pages in memory of its own. */
  copy(): BlockBitmap {
    const copy = new BlockBitmap(this.length);
    this.forEachRun((start, count) => copy.set(start, count));
    return copy;
  }

  #pagesIn(block: number): number {
    const first = block * BLOCK_PAGES;
    return Math.min(this.length - first, BLOCK_PAGES);
  }

  #change(start: number, count: number, set: boolean): number {
    if (count === 1) {
      const changed = this.changeOne(start, set);
      if (changed >= 0) return changed;
    }
    const end = start + count;
    let changed = 0;
    for (let at = start; at < end; ) {
      const block = at >>> BLOCK_SHIFT;
      const blockEnd = (block + 1) * BLOCK_PAGES;
      const to = Math.min(end, blockEnd);
      changed += this.#changeIn(block, at, to, set);
      at = to;
    }
    this.#total += set ? changed : -changed;
    return changed;
  }

  /** Sets or clears pages of one block; returns how many were not so before. */
  #changeIn(block: number, start: number, end: number, set: boolean): number {
    const { counts, words } = this;
    const before = counts[block];
    const pages = this.#pagesIn(block);
    this.work++;
    if (before === (set ? pages : 0)) return 0;
    if (end - start === pages) {
      if (this.#exposed) this.#fill(block, set);
      Atomics.store(counts, block, set ? pages : 0);
      return set ? pages - before : before;
    }
    const whole = before === (set ? 0 : pages);
    if (!this.#exposed && whole) this.#fill(block, !set);
    let changed = 0;
    const flip = set ? -1 : 0;
    const first = start >>> 5;
    const behind = (end + 31) >>> 5;
    for (let word = first; word < behind; word++) {
      const bits = maskOf(word, start, end) & (words[word] ^ flip);
      changed += popcount(bits);
      words[word] ^= bits;
    }
    this.work += behind - first;
    const after = set ? before + changed : before - changed;
    // The words count from now on, so they are to be seen first. Elsewhere a reader sees the one or the other a moment late.
    if (whole) Atomics.store(counts, block, after);
    else counts[block] = after;
    return changed;
  }

  #fill(block: number, set: boolean): void {
    const first = block * BLOCK_WORDS;
    const last = Math.min(first + BLOCK_WORDS, this.words.length);
    this.words.fill(set ? -1 : 0, first, last);
    // Behind the last page there is none.
    if (set && last === this.words.length) this.words[last - 1] = maskOf(last - 1, 0, this.length);
    this.work += FILL_WORK;
  }
}

const sharedWords = (words: number): Int32Array => new Int32Array(new SharedArrayBuffer(words * 4));
