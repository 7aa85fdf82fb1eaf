/**
 * Which pages of a region's file the host holds, found by asking the kernel for the pages that are in memory. Asking takes
 * some 8 ms for a GiB, so memory is gone through block by block, those first that were not looked at for longest, and no
 * longer at a time than the caller grants.
 */
import { PAGE_SIZE } from '../memory/page.ts';
import { PageBitmap, popcount } from '../memory/page-bitmap.ts';
import type { Descriptor } from '../sys/fd.ts';
import { ResidentPages } from '../sys/mapping.ts';
import { monotonicMs } from '../sys/poll.ts';

/** Pages of a block, looked at in one go: 16 MiB, about 0.1 ms. */
const BLOCK_PAGES = 4096;

/** Blocks that are counted together: 16 GiB. Memory of terabytes of which little was looked at is passed over by these. */
const GROUP_BLOCKS = 1024;
/** When a block was looked at that never was. Nothing is written for it, so that untouched memory stays so. */
const NEVER_MS = 0;

/** A block that was looked at no longer ago is not looked at again, however many ask. */
const FRESH_MS = 200;

interface ResidencyFile {
  readonly fd: Descriptor;
  /** Where the region begins in the file, in bytes. */
  readonly fileOffset: number;
}

export class Residency {
  readonly pageCount: number;
  /** Pages that are held, of blocks that have any: a region of terabytes that is nearly empty costs nearly nothing. */
  readonly #pages: PageBitmap;
  /** Held pages of each block. */
  readonly #counts: Int32Array;
  /** When each block was looked at. */
  readonly #lookedMs: Float64Array;
  /** How many blocks of each group were ever looked at. */
  readonly #seen: Uint16Array;
  /** The block to look at again next. */
  #cursor = 0;

  constructor(pageCount: number) {
    const blocks = Math.ceil(pageCount / BLOCK_PAGES);
    this.pageCount = pageCount;
    // Shared memory is the kernel's until it is touched, and does not hurry the collector.
    this.#pages = PageBitmap.shared(pageCount);
    this.#counts = new Int32Array(blocks);
    this.#lookedMs = new Float64Array(blocks);
    this.#seen = new Uint16Array(Math.ceil(blocks / GROUP_BLOCKS));
  }

  /** How many of the `count` pages from `start` are held, as far as they were looked at. */
  countIn(start: number, count: number): number {
    const end = start + count;
    let total = 0;
    for (let at = start; at < end; ) {
      const block = Math.floor(at / BLOCK_PAGES);
      const to = Math.min(end, (block + 1) * BLOCK_PAGES);
      const held = this.#counts[block];
      if (to - at === BLOCK_PAGES) total += held;
      else if (held > 0) total += this.#pages.countIn(at, to - at);
      at = to;
    }
    return total;
  }

  /** The held pages of word `word`. */
  wordAt(word: number): number {
    return this.#counts[Math.floor((word * 32) / BLOCK_PAGES)] === 0 ? 0 : this.#pages.words[word];
  }

  /** When the block of these that was looked at least recently was; -Infinity if one never was. */
  oldestMs(start: number, count: number): number {
    if (this.nextUnseen(0, start, count) !== undefined) return Number.NEGATIVE_INFINITY;
    const last = blockAfter(start + count);
    let oldest = Number.POSITIVE_INFINITY;
    for (let block = blockOf(start); block < last; block++) oldest = Math.min(oldest, this.#lookedMs[block]);
    return oldest;
  }

  /** How many of these pages lie in blocks that were not looked at. */
  unseenIn(start: number, count: number): number {
    const end = start + count;
    let unseen = 0;
    for (let block = blockOf(start); block < blockAfter(end); ) {
      const last = Math.min(this.#lastAlike(block), blockAfter(end));
      if (this.#lookedMs[block] === NEVER_MS) {
        unseen += Math.min(end, last * BLOCK_PAGES) - Math.max(start, block * BLOCK_PAGES);
      }
      block = last;
    }
    return unseen;
  }

  /** The first of the blocks of these pages, from `from` on, that were not looked at; undefined when there is none. */
  nextUnseen(from: number, start: number, count: number): number | undefined {
    const end = blockAfter(start + count);
    for (let block = Math.max(from, blockOf(start)); block < end; block = this.#lastAlike(block)) {
      if (this.#lookedMs[block] === NEVER_MS) return block;
    }
    return undefined;
  }

  /** The block behind those, from `block` on, that were all looked at, or all not, as far as that is known at once. */
  #lastAlike(block: number): number {
    const group = Math.floor(block / GROUP_BLOCKS);
    const end = Math.min((group + 1) * GROUP_BLOCKS, this.#lookedMs.length);
    const seen = this.#seen[group];
    return seen === 0 || seen === end - group * GROUP_BLOCKS ? end : block + 1;
  }

  /** The block of these pages whose turn it is to be looked at again; undefined when all are fresh. */
  nextStale(start: number, count: number): number | undefined {
    const first = blockOf(start);
    const blocks = blockAfter(start + count) - first;
    const before = monotonicMs() - FRESH_MS;
    const skipped = Math.max(0, this.#cursor - first) % blocks;
    for (let step = 0; step < blocks; step++) {
      const block = first + ((skipped + step) % blocks);
      if (this.#lookedMs[block] >= before) continue;
      this.#cursor = block + 1;
      return block;
    }
    return undefined;
  }

  look(block: number, { fd, fileOffset }: ResidencyFile): void {
    const first = block * BLOCK_PAGES;
    const count = Math.min(BLOCK_PAGES, this.pageCount - first);
    held ??= new ResidentPages(BLOCK_PAGES);
    held.ask(fd.number, fileOffset + first * PAGE_SIZE, count * PAGE_SIZE);
    held.bytes.fill(0, count);
    const words = this.#pages.words.subarray(first / 32, Math.ceil((first + count) / 32));
    this.#counts[block] = packBits(held.bytes, words, this.#counts[block] > 0);
    if (this.#lookedMs[block] === NEVER_MS) this.#seen[Math.floor(block / GROUP_BLOCKS)]++;
    this.#lookedMs[block] = monotonicMs();
  }
}

const blockOf = (page: number): number => Math.floor(page / BLOCK_PAGES);
const blockAfter = (page: number): number => Math.ceil(page / BLOCK_PAGES);

/** Made at the first look. */
let held: ResidentPages | undefined;

/**
 * The lowest bit of each byte, 32 of them to a word, the first in its lowest bit. Returns how many are set. Where none is,
 * words that are not in use stay untouched.
 */
function packBits(bytes: Uint8Array, words: Int32Array, inUse: boolean): number {
  const fours = new Uint32Array(bytes.buffer, bytes.byteOffset);
  let total = 0;
  for (let word = 0; word < words.length; word++) {
    let bits = 0;
    for (let four = 0; four < 8; four++) {
      // The factor moves the bits of the four bytes next to each other, to the top.
      bits |= (Math.imul(fours[word * 8 + four] & 0x01010101, 0x10204080) >>> 28) << (four * 4);
    }
    total += popcount(bits);
    if (bits !== 0 || inUse) words[word] = bits;
  }
  return total;
}
