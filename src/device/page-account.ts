/**
 * The host's own account of one memory region: which pages the guest has given away, and which of those still
 * wait to be given back to the host. The guest's word (`actual`) plays no part in it.
 *
 * A backing of huge pages can only give back whole ones. Their 4 KiB pages are collected here until a huge
 * page is complete; it is never rounded outwards, for the rest of it may be in use.
 */

import { BLOCK_PAGES, BlockBitmap, type BlockWords } from '../memory/block-bitmap.ts';
import type { MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { PendingDiscards } from '../memory/pending-discards.ts';

/**
 * A huge page of the host's pool is given back in a microsecond, as four small pages are, whatever its size (docs/benchmarks.md).
 * It counts more, for a slow host.
 */
const UNIT_WORK_MAX = 16;

export class PageAccount {
  readonly region: MemoryRegion;
  /** Of {@link region}, where each run of pages looks for them. */
  readonly firstPfn: number;
  readonly pageCount: number;
  /** Given away by the guest and not taken back. */
  readonly ballooned: BlockBitmap;
  /** Discarded because the guest reported them as free; it may have used some again since. */
  readonly reported: BlockBitmap;
  readonly pending: PendingDiscards;
  /** Reported pages that other threads discard before their buffers are returned; there once any were reported. */
  #reports: PendingDiscards | undefined;
  /** 4 KiB pages in a discard unit. */
  readonly unitPages: number;
  /** Pages of each unit that are ballooned, where a unit has several. */
  readonly #filled: Uint32Array;
  /** Units that are ballooned whole, where a unit has several pages. */
  #wholeUnits = 0;
  /** Whether the account is on the list of those that have something pending (`PageAccounts`). */
  listed = false;
  /** Units of several pages that were gone through. */
  #unitWork = 0;

  /** `words`: where the account is to be, if it is to outlive this process. */
  constructor(region: MemoryRegion, words?: BlockWords) {
    const unit = region.backing.discardUnit;
    this.region = region;
    this.firstPfn = region.firstPfn;
    this.pageCount = region.pageCount;
    this.unitPages = unit / PAGE_SIZE;
    this.ballooned = new BlockBitmap(region.pageCount, words);
    this.reported = new BlockBitmap(region.pageCount);
    this.#filled = new Uint32Array(this.unitPages === 1 ? 0 : region.size / unit);
    this.pending = PendingDiscards.create(region.size / unit, unit);
  }

  /**
   * Goes on with the account that another process left in its words, and marks as pending with `discard` what of it can be
   * discarded: whether that process came to it is not known.
   */
  recover(discard: boolean): void {
    const { ballooned, unitPages } = this;
    ballooned.recount();
    this.#filled.fill(0);
    this.#wholeUnits = 0;
    ballooned.forEachRun((start, count) => {
      if (unitPages === 1) {
        if (discard) this.pending.mark(start, count);
        return;
      }
      for (let at = start; at < start + count; ) {
        const unit = Math.floor(at / unitPages);
        const part = Math.min(start + count, (unit + 1) * unitPages) - at;
        this.#filled[unit] += part;
        if (this.#filled[unit] === unitPages) {
          this.#wholeUnits++;
          if (discard) this.pending.mark(unit, 1);
        }
        at += part;
      }
    });
  }

  /** Pages that were given away and not taken back. */
  get balloonedPages(): number {
    return this.ballooned.total;
  }

  /** Ballooned pages that the host keeps, because the guest has not given the rest of their units. */
  get incompletePages(): number {
    return this.unitPages === 1 ? 0 : this.ballooned.total - this.#wholeUnits * this.unitPages;
  }

  /** Words of bitmaps that were gone through so far: what giving and taking cost beside the call. */
  get work(): number {
    return this.ballooned.work + this.reported.work + this.pending.work + this.#unitWork;
  }

  /** Pages that are pending. */
  get pendingPages(): number {
    return this.pending.outstanding * this.unitPages;
  }

  /** The same as so many small pages as take the kernel as long. */
  get pendingWork(): number {
    return this.pending.outstanding * Math.min(this.unitPages, UNIT_WORK_MAX);
  }

  /** Notes that the guest gave pages away, and marks what of them can be discarded when `discard` is set. */
  give(page: number, count: number, discard: boolean): void {
    if (this.unitPages === 1) {
      this.ballooned.set(page, count);
      if (discard) this.pending.mark(page, count);
      return;
    }
    const end = page + count;
    const firstWhole = Math.ceil(page / this.unitPages);
    const behindWhole = Math.floor(end / this.unitPages);
    const headEnd = Math.min(end, firstWhole * this.unitPages);
    const tail = Math.max(headEnd, behindWhole * this.unitPages);
    this.#givePart(page, headEnd - page, discard);
    if (tail > headEnd) this.#giveUnits(firstWhole, behindWhole - firstWhole, discard);
    this.#givePart(tail, end - tail, discard);
  }

  /** Pages of one unit, or none. */
  #givePart(page: number, count: number, discard: boolean): void {
    if (count === 0) return;
    const unit = Math.floor(page / this.unitPages);
    const given = this.ballooned.set(page, count);
    this.#unitWork++;
    this.#filled[unit] += given;
    if (this.#filled[unit] !== this.unitPages) return;
    if (given > 0) this.#wholeUnits++;
    if (discard) this.pending.mark(unit, 1);
  }

  /** Units as wholes: a run of thousands is marked at once, so that it can be discarded at once. */
  #giveUnits(unit: number, count: number, discard: boolean): void {
    this.ballooned.set(unit * this.unitPages, count * this.unitPages);
    this.#unitWork += count;
    for (let index = unit; index < unit + count; index++) {
      if (this.#filled[index] !== this.unitPages) this.#wholeUnits++;
      this.#filled[index] = this.unitPages;
    }
    if (discard) this.pending.mark(unit, count);
  }

  /** {@link give} with `discard`, for one page; false, and nothing is done, where that has to be called. */
  giveOne(page: number): boolean {
    if (this.unitPages !== 1 || this.ballooned.changeOne(page, true) < 0) return false;
    this.pending.markOne(page);
    return true;
  }

  /** Notes pages that were discarded because the guest reported them as free. */
  noteReported(page: number, count: number): void {
    this.reported.set(page, count);
  }

  get reports(): PendingDiscards | undefined {
    return this.#reports;
  }

  /** The same, made now if need be. */
  openReports(): PendingDiscards {
    const unit = this.region.backing.discardUnit;
    this.#reports ??= PendingDiscards.create(this.region.size / unit, unit);
    // Its guest waits for it.
    this.#reports.haste = true;
    return this.#reports;
  }

  /**
   * Notes that the guest takes pages back. Returns how many of them had been given away. What may be under way on them is
   * waited out, or noted by `inFlight`, which is called then: the guest may not be told before it is over.
   */
  take(page: number, count: number, inFlight?: (pending: PendingDiscards) => void): number {
    const first = Math.floor(page / this.unitPages);
    const units = Math.ceil((page + count) / this.unitPages) - first;
    const taken =
      this.unitPages === 1 ? this.#takeSmall(page, count) : this.#takeHuge(page, count, first, units);
    // Also when all were pending: a guest that gives a page twice can have it pending and in flight at once.
    if (inFlight === undefined) this.pending.waitWhileInFlight(first, units);
    else if (this.pending.inFlight(first, units)) inFlight(this.pending);
    return taken;
  }

  /** {@link take} for one page: 1 when it had been given away, else 0; -1, and nothing is done, where that has to be called. */
  takeOne(page: number, inFlight?: (pending: PendingDiscards) => void): -1 | 0 | 1 {
    if (this.unitPages !== 1) return -1;
    const { pending } = this;
    const { idle } = pending;
    const taken = this.ballooned.changeOne(page, false);
    if (taken < 0 || idle) return taken;
    this.keptUnits += pending.retract(page, 1);
    if (inFlight === undefined) pending.waitWhileInFlight(page, 1);
    else if (pending.inFlight(page, 1)) inFlight(pending);
    return taken;
  }

  /** Units that were taken back while they were pending, since the region was added. */
  keptUnits = 0;

  /** Discards everything that is pending, in this thread. Returns the last failure. */
  drain(): Error | undefined {
    return this.pending.discardAll(this.discardUnits);
  }

  /**
   * The guest starts over: all is its own again, and what is pending keeps its memory. What is under way is waited out, or
   * noted, as in {@link take}.
   */
  forget(inFlight?: (pending: PendingDiscards) => void): void {
    for (const set of this.#reports === undefined ? [this.pending] : [this.pending, this.#reports]) {
      set.retractAll();
      if (inFlight === undefined) set.waitWhileInFlight(0, set.units);
      else if (set.inFlight(0, set.units)) inFlight(set);
    }
    // Every driver that starts comes by here, and a front-end may come again and again: what has no bit set is not
    // gone through, which would take its time and give the bitmap its memory.
    if (this.ballooned.total > 0) {
      this.ballooned.clearAll();
      this.#filled.fill(0);
      this.#wholeUnits = 0;
    }
    if (this.reported.total > 0) this.reported.clearAll();
  }

  readonly discardUnits = (start: number, count: number): void => {
    const { backing } = this.region;
    backing.discard(start * backing.discardUnit, count * backing.discardUnit);
  };

  /** A page that is pending is ballooned: where a whole block has no ballooned page, nothing is to be retracted. */
  #takeSmall(page: number, count: number): number {
    // Only this thread marks: where nothing is outstanding, no page of this region is pending or in flight.
    if (this.pending.idle) return this.ballooned.clear(page, count);
    let taken = 0;
    const end = page + count;
    for (let at = page; at < end; ) {
      const block = Math.floor(at / BLOCK_PAGES);
      const part = Math.min(end, (block + 1) * BLOCK_PAGES) - at;
      const empty = this.ballooned.emptyBlock(block);
      taken += this.ballooned.clear(at, part);
      if (!empty) this.keptUnits += this.pending.retract(at, part);
      at += part;
    }
    return taken;
  }

  #takeHuge(page: number, count: number, first: number, units: number): number {
    this.keptUnits += this.pending.retract(first, units);
    this.#unitWork += units;
    let taken = 0;
    const end = page + count;
    for (let at = page; at < end; ) {
      const unit = Math.floor(at / this.unitPages);
      const part = Math.min(end, (unit + 1) * this.unitPages) - at;
      const cleared = this.ballooned.clear(at, part);
      if (cleared > 0 && this.#filled[unit] === this.unitPages) this.#wholeUnits--;
      this.#filled[unit] -= cleared;
      taken += cleared;
      at += part;
    }
    return taken;
  }
}
