/**
 * The guest kernel: everything in this room behind one face.
 *
 *     const kernel = new GuestKernel({ memory, clock });
 *     const pfn = kernel.allocate(0, GFP_MOVABLE);        // a frame number, or -1
 *     kernel.own(pfn, kernel.addOwner({ name, contents: 'none', migrate: (from, to) => … }), index);
 *     kernel.free(pfn, 0);
 *
 * A driver sees it as a `KernelMemory` (memory/kernel-memory.ts): pages for the balloon and for hints, owners whom
 * compaction asks, notifiers and shrinkers that give memory back, free page reporting, statistics.
 *
 * Nothing here waits. Where Linux would sleep, an allocation fails or the embedder calls {@link runBackground}.
 */

import type { GuestMemory } from '../memory/guest-memory.ts';
import {
  type AllocationPurpose,
  type FreeBlockReports,
  type KernelMemory,
  type MemoryStatistics,
  type OomNotifier,
  type PageOwner,
  type SavedPages,
  type Shrinker,
  SPARE_PAGES,
  type UnusedPages,
  type ZeroedPages,
} from '../memory/kernel-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { NIL, PAGES_PER_BLOCK_MAX } from '../memory/page-blocks.ts';
import { defined } from '../sys/defined.ts';
import { assert } from '../sys/error.ts';
import { PageAllocator, type PageSupply, spansOf } from './allocator.ts';
import { type GuestClock, ManualClock } from './clock.ts';
import { Compaction } from './compaction.ts';
import type { Coverage } from './contents.ts';
import { GFP_BALLOON, GFP_MEMALLOC, GFP_NORECLAIM, GFP_NORETRY, GFP_NOWARN, GFP_ZERO, gfpOf } from './gfp.ts';
import { type Census, checkAllocator } from './invariants.ts';
import type { GuestKernelOptions, GuestResumeOptions } from './kernel-options.ts';
import { SavedOwners, unusedPagesOf } from './kernel-parts.ts';
import { type MemInfo, meminfoOf } from './meminfo.ts';
import { OutOfMemory } from './oom.ts';
import { PageAccess } from './page-access.ts';
import { PageCache } from './page-cache.ts';
import type { PageState } from './page-state.ts';
import type { Process, ProcessOptions } from './process.ts';
import { Processes } from './processes.ts';
import { Reclaim } from './reclaim.ts';
import { loadAllocator, saveAllocator } from './saved-allocator.ts';
import { SavedGuestError, type StateReader, type StateWriter } from './saved-state.ts';
import { Slab } from './slab.ts';
import { VM_EVENTS, type VmEventCounts, VmEvents } from './vm-events.ts';
import { pagesWithoutZeros } from './zeroed-frames.ts';

const FOUR_GIB_PAGES = 2 ** 32 / PAGE_SIZE;
/** Dirty pages are written out so often (Linux's dirty_writeback_centisecs). */
const WRITEBACK_INTERVAL_MS = 5_000;
/** An allocation gives up after so many rounds of reclaim that each freed something (MAX_RECLAIM_RETRIES). */
const RECLAIM_ROUNDS_MAX = 16;
/** Above this order no process is killed: there is memory, it is merely in pieces (PAGE_ALLOC_COSTLY_ORDER). */
const COSTLY_ORDER = 3;
/** Files, and processes, may together be so many times as large as memory in a guest that is restored. */
const EXTENT_PER_PAGE_MAX = 16;

export class GuestKernel implements PageSupply, KernelMemory {
  readonly memory: GuestMemory;
  readonly access: PageAccess;
  readonly allocator: PageAllocator;
  readonly pages: PageState;
  readonly cache: PageCache;
  readonly slab: Slab;
  readonly reclaim: Reclaim;
  readonly compaction: Compaction;
  readonly oom: OutOfMemory;
  readonly processes: Processes;
  readonly events = new VmEvents();
  readonly clock: GuestClock;
  readonly coverage: Coverage;
  readonly poison: number | undefined;
  readonly reports: FreeBlockReports;
  readonly unused: UnusedPages;
  readonly saved: SavedPages;
  readonly zeroed: ZeroedPages;
  /** Free pages that the host said are zeros, and that held something else when they were allocated. */
  zeroFaults = 0;
  /** Where its counters stand in what it was restored from, in words. */
  countersPlace: readonly [start: number, end: number] = [0, 0];
  readonly #warn: (message: string) => void;
  readonly #checksZeros: boolean;
  #totalPages: number;
  #writebackAt: number;
  /** Reclaim is at work: who allocates inside of it gets what is free, for reclaim must not wait for itself. */
  #reclaiming = false;

  /** Boots; or, with `saved`, goes on from what {@link save} wrote. See {@link restore}. */
  constructor(options: GuestKernelOptions, saved?: StateReader) {
    const { memory, clock = new ManualClock(), writeLog, coverage = 'edges', poison } = options;
    this.memory = memory;
    this.clock = clock;
    this.coverage = coverage;
    this.poison = poison;
    this.#warn = options.warn ?? (() => {});
    this.#checksZeros = options.checkZeros ?? false;
    this.access = new PageAccess(memory, writeLog);
    this.allocator = new PageAllocator({
      spans: spansOf(memory, options.reservedPages),
      dma32End: options.dma32End ?? FOUR_GIB_PAGES,
      ...defined({ pages: options.pages }),
    });
    this.pages = this.allocator.pages;
    this.reports = this.allocator;
    this.zeroed = this.allocator.zeroed;
    this.unused = unusedPagesOf(this.allocator, this);
    this.saved = new SavedOwners(this.allocator, () => this.#totalPages);
    this.#totalPages = this.allocator.managedPages;
    const { allocator, pages, access, events } = this;
    this.cache = new PageCache(this, pages, access, events, coverage);
    this.slab = new Slab(this, pages, access, coverage);
    this.reclaim = new Reclaim(allocator, this.cache, events);
    this.reclaim.addShrinker(this.slab);
    this.compaction = new Compaction(allocator, this, access, events);
    this.processes = new Processes({ supply: this, pages, access, events }, coverage);
    this.oom = new OutOfMemory(() => this.processes, events);
    this.#writebackAt = clock.now() + WRITEBACK_INTERVAL_MS;
    if (saved !== undefined) this.#load(saved);
    else this.#boot();
  }

  #boot(): void {
    this.allocator.populate();
    if (this.poison === undefined || this.poison === 0) return;
    for (const { start, end } of this.allocator.spans) this.access.fill(start, end - start, this.poison);
  }

  /**
   * 2^order pages, or NIL (-1). What is tried when memory is short depends on `flags`: see `GFP_…`. The
   * contents are whatever they are, unless GFP_ZERO is among the flags.
   */
  allocate(order: number, flags: number): number {
    let pfn = this.allocator.allocate(order, flags, 'low');
    if (pfn === NIL) {
      pfn = this.#allocateSlowly(order, flags);
      if (pfn === NIL) {
        if ((flags & GFP_NOWARN) === 0) this.#failed(order);
        return NIL;
      }
    }
    if (this.poison !== undefined) this.#checkPoison(pfn, order, this.poison);
    const zeroed = this.allocator.zeroed.covers(pfn, 1 << order);
    if (zeroed && this.#checksZeros) this.zeroFaults += pagesWithoutZeros(this.access, pfn, 1 << order);
    if ((flags & GFP_ZERO) !== 0 && !zeroed) this.access.fill(pfn, 1 << order, 0);
    return pfn;
  }

  allocateFor(purpose: AllocationPurpose, order: number): number {
    // Asked for each page of an inflation.
    return this.allocate(order, purpose === SPARE_PAGES ? GFP_BALLOON : gfpOf(purpose, order));
  }

  #allocateSlowly(order: number, flags: number): number {
    const { allocator } = this;
    const mayReclaim = (flags & (GFP_NORECLAIM | GFP_MEMALLOC)) === 0 && !this.#reclaiming;
    if (mayReclaim) this.reclaim.wake();
    let pfn = allocator.allocate(order, flags, 'min');
    const noRetry = (flags & GFP_NORETRY) !== 0;
    if (pfn !== NIL || !mayReclaim || (noRetry && order > 0)) return pfn;
    this.events.allocStalls++;
    for (let round = 0; round < RECLAIM_ROUNDS_MAX; round++) {
      const freed = this.#makeRoom(order);
      pfn = allocator.allocate(order, flags, 'min');
      if (pfn !== NIL || noRetry) return pfn;
      if (freed > 0) continue;
      if (order > COSTLY_ORDER) return NIL;
      const { released, killed } = this.#withoutReclaim(() => this.oom.run());
      if (killed !== undefined) this.#warn(`out of memory: killed process ${killed.name}`);
      allocator.drainPerCpu();
      pfn = allocator.allocate(order, flags, 'min');
      if (pfn !== NIL || released > 0 || killed === undefined) return pfn;
    }
    return NIL;
  }

  #makeRoom(order: number): number {
    return this.#withoutReclaim(() => {
      const freed = this.reclaim.reclaim(Math.max(32, 1 << order), 'direct');
      this.allocator.drainPerCpu();
      if (order > 0) this.compaction.makeRoom(order);
      return freed;
    });
  }

  #withoutReclaim<T>(work: () => T): T {
    const outer = this.#reclaiming;
    this.#reclaiming = true;
    try {
      return work();
    } finally {
      this.#reclaiming = outer;
    }
  }

  #failed(order: number): void {
    this.events.allocFailures++;
    this.#warn(`page allocation failure: order ${order}`);
  }

  /** @throws InvariantError when these pages are not allocated, or not as one block of this order */
  free(pfn: number, order: number): void {
    this.allocator.free(pfn, order);
    if (this.poison !== undefined) this.access.fill(pfn, 1 << order, this.poison);
  }

  #checkPoison(pfn: number, order: number, poison: number): void {
    for (let page = pfn; page < pfn + (1 << order); page++) {
      if (this.access.isFilledWith(page, poison)) continue;
      this.events.poisonFaults++;
      this.#warn(`free frame ${page} was written to: it is not poisoned any more`);
    }
  }

  /** Makes one allocated block many single pages, each to be freed by itself. */
  split(pfn: number, order: number): void {
    this.allocator.split(pfn, order);
  }

  own(pfn: number, owner: number, index = 0): void {
    this.allocator.own(pfn, owner, index);
  }

  addOwner(owner: PageOwner): number {
    return this.allocator.owners.add(owner);
  }

  removeOwner(id: number): void {
    this.allocator.owners.remove(id);
  }

  /** Registers a notifier that gives memory back before a process dies; the result takes it out again. */
  addOomNotifier(notifier: OomNotifier): () => void {
    return this.oom.addNotifier(notifier);
  }

  /** Registers a cache that reclaim may shrink; the result takes it out again. */
  addShrinker(shrinker: Shrinker): () => void {
    return this.reclaim.addShrinker(shrinker);
  }

  /** Starts a process that runs `command`. */
  spawn(command: string, options: Partial<Omit<ProcessOptions, 'command'>> = {}): Process {
    return this.processes.spawn(command, options);
  }

  // Housekeeping.

  /**
   * What the kernel's own threads do: kswapd if an allocation woke it, and writing dirty pages out every five
   * seconds. To be called between steps of the workloads. Returns pages freed.
   */
  runBackground(): number {
    const now = this.clock.now();
    if (now >= this.#writebackAt) {
      this.cache.sync();
      this.#writebackAt = now + WRITEBACK_INTERVAL_MS;
    }
    return this.#withoutReclaim(() => this.reclaim.background());
  }

  /** Frees the whole page cache (/proc/sys/vm/drop_caches); returns pages. */
  dropCaches(): number {
    const dropped = this.cache.drop();
    this.allocator.drainPerCpu();
    return dropped;
  }

  /** Runs the shrinkers until they have no more to give; returns pages. */
  shrinkAll(): number {
    const freed = this.#withoutReclaim(() => this.reclaim.shrinkAll());
    this.allocator.drainPerCpu();
    return freed;
  }

  /** Compacts all zones (/proc/sys/vm/compact_memory). */
  compact(): void {
    this.#withoutReclaim(() => {
      for (const zone of this.allocator.zones) this.compaction.compact(zone);
    });
  }

  // Figures.

  /** Adds (or with a negative count takes) pages to what counts as this guest's memory. */
  adjustManaged(pages: number): void {
    this.#totalPages += pages;
    assert(this.#totalPages >= 0, 'a guest with less than no memory');
  }

  meminfo(): MemInfo {
    return meminfoOf(this.allocator, this.cache, this.slab, this.#totalPages);
  }

  vmstat(): VmEventCounts & { readonly pagesAllocated: number; readonly pagesFreed: number } {
    return { ...this.events, pagesAllocated: this.allocator.allocated, pagesFreed: this.allocator.freed };
  }

  statistics(): MemoryStatistics {
    return { ...this.meminfo(), ...this.events };
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
    for (const name of VM_EVENTS) into.integer(this.events[name]);
    into.u32(this.#totalPages);
    into.u32(Math.max(0, Math.ceil(this.#writebackAt - this.clock.now())));
    into.flag(this.reclaim.wanted);
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
    for (const name of VM_EVENTS) this.events[name] = from.integer(name);
    this.#totalPages = from.u32('total pages', this.allocator.managedPages);
    this.#writebackAt = this.clock.now() + from.u32('the time to writeback', WRITEBACK_INTERVAL_MS);
    if (from.flag('kswapd')) this.reclaim.wake();
  }

  // Checks.

  /** Checks what every page that was written to holds; returns how many. @throws ContentError */
  verify(): number {
    let checked = this.cache.verify() + this.slab.verify();
    for (const process of this.processes) checked += process.verifyAll();
    return checked;
  }

  /** Checks the allocator, page by page. @throws InvariantError */
  checkInvariants(): Census {
    return checkAllocator(this.allocator);
  }
}
