/**
 * Which pages of a region's file the host holds, found by asking the kernel for the pages that are in memory. Asking takes
 * some 8 ms for a GiB, so memory is gone through block by block, those first that were not looked at for longest, and no
 * longer at a time than the caller grants.
 */
import { PAGE_SIZE } from '../memory/page.ts';
import { PageBitmap } from '../memory/page-bitmap.ts';
import type { Descriptor } from '../sys/fd.ts';
import { HeldPages } from '../sys/mapping.ts';
import { monotonicMs } from '../sys/poll.ts';

/** Pages of a block, looked at in one go: 16 MiB, about 0.1 ms. */
const BLOCK_PAGES = 4096;

/** A block that was looked at no longer ago is not looked at again, however many ask. */
const FRESH_MS = 200;

export interface ResidencyFile {
  readonly fd: Descriptor;
  /** Where the region begins in the file, in bytes. */
  readonly fileOffset: number;
}

export class Residency {
  readonly pages: PageBitmap;
  /** When each block was looked at; -Infinity for never. */
  readonly #lookedMs: Float64Array;

  constructor(pageCount: number) {
    this.pages = new PageBitmap(pageCount);
    this.#lookedMs = new Float64Array(Math.ceil(pageCount / BLOCK_PAGES)).fill(Number.NEGATIVE_INFINITY);
  }

  /** When the block of these that was looked at least recently was; -Infinity if one never was. */
  oldestMs(start: number, count: number): number {
    let oldest = Number.POSITIVE_INFINITY;
    for (const block of this.#blocks(start, count)) oldest = Math.min(oldest, this.#lookedMs[block]);
    return oldest;
  }

  /** Blocks within these pages that are not fresh, and when each was looked at. */
  stale(start: number, count: number): { block: number; lookedMs: number }[] {
    const before = monotonicMs() - FRESH_MS;
    return this.#blocks(start, count)
      .map(block => ({ block, lookedMs: this.#lookedMs[block] }))
      .filter(({ lookedMs }) => lookedMs < before);
  }

  look(block: number, { fd, fileOffset }: ResidencyFile): void {
    const first = block * BLOCK_PAGES;
    const count = Math.min(BLOCK_PAGES, this.pages.length - first);
    held ??= new HeldPages(BLOCK_PAGES);
    held.ask(fd.number, fileOffset + first * PAGE_SIZE, count * PAGE_SIZE);
    held.bytes.fill(0, count);
    packBits(held.bytes, this.pages.words.subarray(first / 32, Math.ceil((first + count) / 32)));
    this.#lookedMs[block] = monotonicMs();
  }

  #blocks(start: number, count: number): number[] {
    const first = Math.floor(start / BLOCK_PAGES);
    const last = Math.ceil((start + count) / BLOCK_PAGES);
    return Array.from({ length: last - first }, (_, index) => first + index);
  }
}

/** Made when somebody looks for the first time. */
let held: HeldPages | undefined;

/** The lowest bit of each byte, 32 of them to a word, the first in its lowest bit. */
function packBits(bytes: Uint8Array, words: Int32Array): void {
  const fours = new Uint32Array(bytes.buffer, bytes.byteOffset);
  for (let word = 0; word < words.length; word++) {
    let bits = 0;
    for (let four = 0; four < 8; four++) {
      // The factor moves the bits of the four bytes next to each other, to the top.
      bits |= (Math.imul(fours[word * 8 + four] & 0x01010101, 0x10204080) >>> 28) << (four * 4);
    }
    words[word] = bits;
  }
}
