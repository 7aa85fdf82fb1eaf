/**
 * Blocks of pages that travel to the host together, in one flat array: what was allocated and is being inflated, or
 * what is being taken back. How a list of them is written is the formats' business.
 */
import type { PageRanges } from '../memory/page-ranges.ts';
import { assert } from '../sys/error.ts';

/** A block is kept as `pfn * 16 + order`: one number that sorts by address, exact up to 2^49 page frames. */
const ORDERS = 16;

export class Batch {
  readonly #blocks: Float64Array;
  #count = 0;
  #pages = 0;
  /** A buffer that names pages of this batch was sent. */
  told = false;
  /** Such buffers that did not come back yet. */
  outstanding = 0;
  /** Those that did. */
  returned = 0;
  /** The host that returned some of them is gone: the next one has to hear of all pages once more. */
  repeated = false;

  constructor(capacity: number) {
    this.#blocks = new Float64Array(capacity);
  }

  /** Blocks in it. */
  get count(): number {
    return this.#count;
  }

  get pages(): number {
    return this.#pages;
  }

  get full(): boolean {
    return this.#count === this.#blocks.length;
  }

  clear(): void {
    this.#count = 0;
    this.#pages = 0;
    this.told = false;
    this.returned = 0;
    this.repeated = false;
  }

  add(pfn: number, order: number): void {
    assert(this.#count < this.#blocks.length, 'a block more than a batch has room for');
    this.#blocks[this.#count++] = pfn * ORDERS + order;
    this.#pages += 1 << order;
  }

  forEach(visit: (pfn: number, order: number) => void): void {
    for (let index = 0; index < this.#count; index++) {
      const block = this.#blocks[index];
      const pfn = Math.floor(block / ORDERS);
      visit(pfn, block - pfn * ORDERS);
    }
  }

  /** Orders the blocks by address, so that neighbours become one run. */
  sort(): void {
    this.#blocks.subarray(0, this.#count).sort();
  }

  /**
   * Replaces `ranges` by the runs of this batch. Blocks that follow each other upwards are joined; pages that were
   * handed out downwards stay apart, for their order is what an unsorted list has to show.
   */
  listIn(ranges: PageRanges): void {
    ranges.clear();
    let start = 0;
    let count = 0;
    for (let index = 0; index < this.#count; index++) {
      const block = this.#blocks[index];
      const pfn = Math.floor(block / ORDERS);
      const pages = 1 << (block - pfn * ORDERS);
      if (count > 0 && start + count === pfn) {
        count += pages;
        continue;
      }
      if (count > 0) ranges.append(start, count);
      start = pfn;
      count = pages;
    }
    if (count > 0) ranges.append(start, count);
  }
}
