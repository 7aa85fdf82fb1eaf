/**
 * The guest's memory as a migration counts it: pages by slot, from 0 on, region after region without the holes between
 * them. A slot means the same page on both sides for as long as both have the same regions. Bitmaps are indexed by
 * slot, and the stream names pages by it.
 */
import type { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { assert } from '../sys/error.ts';

/** Pages of one guest at most: 8 TiB. A slot is then a positive number in 32 bits. */
const SLOTS_MAX = 2 ** 31 - 1;

/**
 * How many times as long as passing over a page that is backed, it takes to read one that is not and to see that it is
 * empty: some 400 ns and 40 ns.
 */
const READ_TO_PASS = 10;

interface Part {
  readonly region: MemoryRegion;
  readonly firstSlot: number;
}

type SlotRun = (start: number, count: number) => void;

export class Ram {
  readonly memory: GuestMemory;
  /** Pages in all regions. */
  readonly slots: number;
  readonly #parts: readonly Part[];

  constructor(memory: GuestMemory) {
    this.memory = memory;
    let slots = 0;
    this.#parts = memory.regions.map(region => {
      const part = { region, firstSlot: slots };
      slots += region.pageCount;
      return part;
    });
    assert(slots <= SLOTS_MAX, `a guest of ${slots} pages`);
    this.slots = slots;
  }

  /** Visits the slots of `count` pages from page frame `pfn`, as runs; pages that are no memory have none. */
  forEachSlotOf(pfn: number, count: number, visit: SlotRun): void {
    for (const { region, firstSlot } of this.#parts) {
      const from = Math.max(pfn, region.firstPfn);
      const to = Math.min(pfn + count, region.firstPfn + region.pageCount);
      if (from < to) visit(firstSlot + from - region.firstPfn, to - from);
    }
  }

  /** The page frame of a slot. */
  pfnOf(slot: number): number {
    const { region, firstSlot } = this.#partOf(slot);
    return region.firstPfn + slot - firstSlot;
  }

  /** Copies `count` pages from slot `start` into `into` at `at`. The host backs no page that it did not back before. */
  read(start: number, count: number, into: Uint8Array, at: number): void {
    this.#forEachPart(start, count, ({ region, firstSlot }, first, pages) => {
      const to = at + (firstSlot + first - start) * PAGE_SIZE;
      region.backing.read(first * PAGE_SIZE, into, to, pages * PAGE_SIZE);
    });
  }

  /** Copies `from` at `at` into `count` pages from slot `start`. */
  write(start: number, count: number, from: Uint8Array, at: number): void {
    this.#forEachPart(start, count, ({ region, firstSlot }, first, pages) => {
      const source = at + (firstSlot + first - start) * PAGE_SIZE;
      region.backing.write(first * PAGE_SIZE, from, source, pages * PAGE_SIZE);
    });
  }

  /** Gives pages back to the host, as far as its units allow, and zeroes the rest. They read as 0 afterwards. */
  clear(start: number, count: number): void {
    this.#forEachPart(start, count, ({ region }, first, pages) =>
      region.backing.clear(first * PAGE_SIZE, pages * PAGE_SIZE),
    );
  }

  /**
   * The host backs so many pages that the few others are sooner read and found empty than found by {@link forEachBacked},
   * which passes over all that are backed.
   */
  get nearlyBacked(): boolean {
    let backed = 0;
    for (const { region } of this.#parts) {
      const { backing, pageCount } = region;
      backed +=
        backing.file === undefined ? pageCount : Math.min(pageCount, backing.residentBytes() / PAGE_SIZE);
    }
    return (this.slots - backed) * READ_TO_PASS < backed;
  }

  /**
   * Visits the pages among `count` from `start` that the host backs with memory; the others read as zeros and were
   * never written, or were discarded. Memory that is no file counts as backed.
   */
  forEachBacked(start: number, count: number, visit: SlotRun): void {
    this.#forEachPart(start, count, ({ region, firstSlot }, first, pages) =>
      region.backing.forEachBacked(first * PAGE_SIZE, pages * PAGE_SIZE, (offset, length) => {
        const from = Math.floor(offset / PAGE_SIZE);
        const to = Math.ceil((offset + length) / PAGE_SIZE);
        visit(firstSlot + from, to - from);
      }),
    );
  }

  #partOf(slot: number): Part {
    for (const part of this.#parts) {
      if (slot >= part.firstSlot && slot < part.firstSlot + part.region.pageCount) return part;
    }
    assert(false, `page ${slot} of a guest of ${this.slots}`);
  }

  /** Visits the regions that [start, start + count) touches, each with its first page and pages inside of it. */
  #forEachPart(
    start: number,
    count: number,
    visit: (part: Part, firstPage: number, pages: number) => void,
  ): void {
    for (const part of this.#parts) {
      const from = Math.max(start, part.firstSlot);
      const to = Math.min(start + count, part.firstSlot + part.region.pageCount);
      if (from < to) visit(part, from - part.firstSlot, to - from);
    }
  }
}
