/**
 * The guest kernel on the buddy allocator: everything in this room behind one face.
 *
 *     const kernel = new GuestKernel({ memory, clock });
 *     const pfn = kernel.allocate(0, GFP_MOVABLE);        // a frame number, or -1
 *     kernel.own(pfn, kernel.addOwner({ name, contents: 'none', migrate: (from, to) => … }), index);
 *     kernel.free(pfn, 0);
 *
 * A driver sees it as a `KernelMemory` (memory/kernel-memory.ts): pages for the balloon and for hints, owners whom
 * compaction asks, notifiers and shrinkers that give memory back, free page reporting, statistics. What is not the buddy
 * allocator's is kernel-core.ts's; here are compaction, reports, lists of free pages, and saving.
 */
import type { FreeBlockReports, SavedPages, UnusedPages, ZeroedPages } from '../memory/kernel-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { NIL, PAGES_PER_BLOCK_MAX } from '../memory/page-blocks.ts';
import { defined } from '../sys/defined.ts';
import { PageAllocator, spansOf } from './allocator.ts';
import { Compaction } from './compaction.ts';
import { type Census, checkAllocator } from './invariants.ts';
import { KernelCore } from './kernel-core.ts';
import type { GuestKernelOptions, GuestResumeOptions } from './kernel-options.ts';
import { SavedOwners, unusedPagesOf } from './kernel-parts.ts';
import { loadAllocator, saveAllocator } from './saved-allocator.ts';
import { SavedGuestError, type StateReader, type StateWriter } from './saved-state.ts';

const FOUR_GIB_PAGES = 2 ** 32 / PAGE_SIZE;
/** Files, and processes, may together be so many times as large as memory in a guest that is restored. */
const EXTENT_PER_PAGE_MAX = 16;

export class GuestKernel extends KernelCore<PageAllocator> {
  readonly compaction: Compaction;
  readonly reports: FreeBlockReports;
  readonly unused: UnusedPages;
  readonly saved: SavedPages;
  readonly zeroed: ZeroedPages;
  /** Where its counters stand in what it was restored from, in words. */
  countersPlace: readonly [start: number, end: number] = [0, 0];

  /** Boots; or, with `saved`, goes on from what {@link save} wrote. See {@link restore}. */
  constructor(options: GuestKernelOptions, saved?: StateReader) {
    super(
      options,
      new PageAllocator({
        spans: spansOf(options.memory, options.reservedPages),
        dma32End: options.dma32End ?? FOUR_GIB_PAGES,
        ...defined({ pages: options.pages }),
      }),
    );
    const { allocator, access, events } = this;
    this.reports = allocator;
    this.zeroed = allocator.zeroed;
    this.unused = unusedPagesOf(allocator, this);
    this.saved = new SavedOwners(allocator, () => this.totalPages);
    this.compaction = new Compaction(allocator, this, access, events);
    if (saved !== undefined) this.#load(saved);
    else this.#boot();
  }

  #boot(): void {
    this.allocator.populate();
    if (this.poison === undefined || this.poison === 0) return;
    for (const { start, end } of this.allocator.spans) this.access.fill(start, end - start, this.poison);
  }

  protected override makeBlock(order: number): void {
    this.compaction.makeRoom(order);
  }

  /** Compacts all zones (/proc/sys/vm/compact_memory). */
  compact(): void {
    this.withoutReclaim(() => {
      for (const zone of this.allocator.zones) this.compaction.compact(zone);
    });
  }

  // Saving and resuming.

  /** Writes all that {@link restore} needs to go on over the same memory contents. */
  save(into: StateWriter): void {
    const { allocator } = this;
    into.flag(this.coverage === 'whole');
    into.u32(this.poison ?? NIL);
    into.u32(allocator.spans[0].start - this.memory.regions[0].firstPfn);
    into.u32(allocator.dma32End);
    saveAllocator(allocator, into);
    this.saveCounters(into);
    this.processes.save(into);
    this.cache.save(into);
    this.slab.save(into);
  }

  /**
   * A guest that goes on where another was saved, over memory of the same layout with the same contents. What it
   * was booted with comes with it. Owners, notifiers and shrinkers beyond the kernel's own are registered anew;
   * an owner gets its pages back by its name, and the host is told of free pages again.
   * @throws SavedGuestError
   */
  static restore(options: GuestResumeOptions, from: StateReader): GuestKernel {
    const coverage = from.flag('coverage') ? 'whole' : 'edges';
    const poison = from.signed('the poison', 0xff);
    const reservedPages = from.u32('reserved pages', options.memory.size / PAGE_SIZE);
    const dma32End = from.u32('the end of the DMA32 zone', FOUR_GIB_PAGES);
    if (dma32End % PAGES_PER_BLOCK_MAX !== 0) throw new SavedGuestError('a zone border inside a block');
    return new GuestKernel(
      { ...options, coverage, reservedPages, dma32End, ...(poison === NIL ? {} : { poison }) },
      from,
    );
  }

  #load(from: StateReader): void {
    const { allocator, pages, cache, slab } = this;
    loadAllocator(allocator, from);
    const start = from.at;
    this.loadCounters(from);
    this.countersPlace = [start, from.at];
    const extentMax = EXTENT_PER_PAGE_MAX * allocator.managedPages;
    this.processes.load(from, allocator, extentMax);
    cache.load(from, pages, extentMax);
    slab.load(from, pages);
    allocator.forgetReports();
  }

  /**
   * Reads what stands at {@link countersPlace} of a saved guest: all of it that passes in a guest that does nothing. Of a newer
   * one that is the same otherwise it may be read again.
   */
  loadCounters(from: StateReader): void {
    this.readCounters(from);
  }

  /** Checks the allocator, page by page. @throws InvariantError */
  checkInvariants(): Census {
    return checkAllocator(this.allocator);
  }
}
