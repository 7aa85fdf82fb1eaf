/**
 * Where inflated pages come from: what compaction gave in exchange for a page that it moved, and what the guest's
 * allocator has for the target. It asks for large blocks first where the lists can name them briefly, and for smaller
 * ones when there are none.
 */

import { type KernelMemory, SPARE_PAGES } from '../memory/kernel-memory.ts';
import { NIL } from '../memory/page-blocks.ts';
import type { BalloonPages } from './balloon-pages.ts';
import type { Batch } from './batch.ts';
import type { DriverCounters } from './counters.ts';
import type { PageSource } from './page-channel.ts';
import type { Scheduler } from './scheduler.ts';

/**
 * The first batch for a target has so many pages, and each one after it so many times as many: the host gives the first ones
 * back while the guest still looks for the others. 64 MiB take the host a while even where they are a few huge pages, and a guest
 * whose code has not run before as long as a quarter of a millisecond.
 */
const FIRST_PAGES = 2 ** 14;
const GROWTH = 8;

interface FillOptions {
  readonly kernel: KernelMemory;
  readonly pages: BalloonPages;
  readonly scheduler: Scheduler;
  readonly counters: DriverCounters;
  /** The largest blocks that are asked for. */
  readonly orderMax: number;
  /** Pages of one batch, if it need not have fewer blocks than it has room for. */
  readonly batchPagesMax: number;
  /** The guest had not a single page to give. */
  readonly onShortage: () => void;
}

export class Fill implements PageSource {
  /** The guest has no memory for now. */
  paused = false;
  /** The guest is at work where it must not be asked for memory. */
  quiet = false;
  /** The guest is about to stand still: nothing is begun. */
  halted = false;
  readonly #options: FillOptions;
  /** The target that was followed last, and how many pages the next batch for it has at most. */
  #target = 0;
  #pagesMax = FIRST_PAGES;

  constructor(options: FillOptions) {
    this.#options = options;
  }

  gather(batch: Batch): void {
    const { pages, scheduler, counters } = this.#options;
    if (pages.target !== this.#target) this.#pagesMax = FIRST_PAGES;
    this.#target = pages.target;
    pages.admitArrivals(batch);
    if (this.quiet || this.halted) return;
    pages.admitRecalled(batch);
    if (this.paused || pages.missing === 0) return;
    const started = scheduler.now();
    const whole = this.#allocate(batch);
    this.#pagesMax *= GROWTH;
    if (!whole) {
      counters.allocationFailures++;
      this.#options.onShortage();
    }
    counters.allocatingMs += scheduler.now() - started;
  }

  /** Fills the batch; false when the guest's memory ran out before. */
  #allocate(batch: Batch): boolean {
    const { kernel, pages, orderMax } = this.#options;
    const batchPagesMax = Math.min(this.#pagesMax, this.#options.batchPagesMax);
    let { missing } = pages;
    let order = orderMax;
    while (missing > 0 && !batch.full && batch.pages < batchPagesMax) {
      while (1 << order > missing) order--;
      const pfn = kernel.allocateFor(SPARE_PAGES, order);
      if (pfn === NIL) {
        if (order === 0) return false;
        order--;
        continue;
      }
      pages.admit(batch, pfn, order);
      missing -= 1 << order;
    }
    return true;
  }

  withdrawn(batch: Batch): void {
    this.#options.pages.withdraw(batch);
  }

  settled(batch: Batch): void {
    const { pages, counters } = this.#options;
    counters.inflatedPages += batch.pages;
    pages.inflated(batch);
  }
}
