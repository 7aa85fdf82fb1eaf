/**
 * What a guest kernel is on any allocator of page frames: page cache, slab, processes, reclaim and the end of memory, with
 * what drivers and workloads ask of it. {@link ./kernel.ts} is the kernel on the buddy allocator, {@link ./shared-kernel.ts} the one
 * on the allocator that a host may share; each adds what its allocator can do.
 *
 * Nothing here waits. Where Linux would sleep, an allocation fails or the embedder calls {@link KernelCore.runBackground}.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import {
  type AllocationPurpose,
  type KernelMemory,
  type MemoryStatistics,
  type OomNotifier,
  type PageOwner,
  type Shrinker,
  SPARE_PAGES,
} from '../memory/kernel-memory.ts';
import { NIL } from '../memory/page-blocks.ts';
import { assert } from '../sys/error.ts';
import { type GuestClock, ManualClock } from './clock.ts';
import type { Coverage } from './contents.ts';
import type { FrameAllocator, PageSupply } from './frame-allocator.ts';
import { GFP_BALLOON, GFP_MEMALLOC, GFP_NORECLAIM, GFP_NORETRY, GFP_NOWARN, GFP_ZERO, gfpOf } from './gfp.ts';
import type { GuestKernelOptions } from './kernel-options.ts';
import { type MemInfo, meminfoOf } from './meminfo.ts';
import { OutOfMemory } from './oom.ts';
import { PageAccess } from './page-access.ts';
import { PageCache } from './page-cache.ts';
import type { PageState } from './page-state.ts';
import type { Process, ProcessOptions } from './process.ts';
import { Processes } from './processes.ts';
import { Reclaim } from './reclaim.ts';
import type { StateReader, StateWriter } from './saved-state.ts';
import { Slab } from './slab.ts';
import { VM_EVENTS, type VmEventCounts, VmEvents } from './vm-events.ts';
import { pagesWithoutZeros } from './zeroed-frames.ts';

/** Dirty pages are written out so often (Linux's dirty_writeback_centisecs). */
const WRITEBACK_INTERVAL_MS = 5_000;
/** An allocation gives up after so many rounds of reclaim that each freed something (MAX_RECLAIM_RETRIES). */
const RECLAIM_ROUNDS_MAX = 16;
/** Above this order no process is killed: there is memory, it is merely in pieces (PAGE_ALLOC_COSTLY_ORDER). */
const COSTLY_ORDER = 3;

/** Pages by where they are, as far as every allocator has them. */
interface PageCensus {
  readonly free: number;
  readonly allocated: number;
}

export abstract class KernelCore<Allocator extends FrameAllocator = FrameAllocator>
  implements PageSupply, KernelMemory
{
  readonly memory: GuestMemory;
  readonly access: PageAccess;
  readonly allocator: Allocator;
  readonly pages: PageState;
  readonly cache: PageCache;
  readonly slab: Slab;
  readonly reclaim: Reclaim;
  readonly oom: OutOfMemory;
  readonly processes: Processes;
  readonly events = new VmEvents();
  readonly clock: GuestClock;
  readonly coverage: Coverage;
  readonly poison: number | undefined;
  /** Free pages that are said to be zeros, and that held something else when they were allocated. */
  zeroFaults = 0;
  readonly #warn: (message: string) => void;
  readonly #checksZeros: boolean;
  #totalPages: number;
  #writebackAt: number;
  /** Reclaim is at work: who allocates inside of it gets what is free, for reclaim must not wait for itself. */
  #reclaiming = false;

  constructor(options: GuestKernelOptions, allocator: Allocator) {
    const { memory, clock = new ManualClock(), writeLog, coverage = 'edges', poison } = options;
    this.memory = memory;
    this.clock = clock;
    this.coverage = coverage;
    this.poison = poison;
    this.#warn = options.warn ?? (() => {});
    this.#checksZeros = options.checkZeros ?? false;
    this.access = new PageAccess(memory, writeLog);
    this.allocator = allocator;
    this.pages = allocator.pages;
    this.#totalPages = allocator.managedPages;
    const { pages, access, events } = this;
    this.cache = new PageCache(this, pages, access, events, coverage);
    this.slab = new Slab(this, pages, access, coverage);
    this.reclaim = new Reclaim(allocator, this.cache, events);
    this.reclaim.addShrinker(this.slab);
    this.processes = new Processes({ supply: this, pages, access, events }, coverage);
    this.oom = new OutOfMemory(() => this.processes, events);
    this.#writebackAt = clock.now() + WRITEBACK_INTERVAL_MS;
  }

  /** Tries to make a free block of this order out of what is free in pieces, where the allocator's pages can be moved. */
  protected makeBlock(_order: number): void {}

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
    const zeroed = this.allocator.readsAsZeros(pfn, 1 << order);
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
      const { released, killed } = this.withoutReclaim(() => this.oom.run());
      if (killed !== undefined) this.#warn(`out of memory: killed process ${killed.name}`);
      allocator.drainPerCpu();
      pfn = allocator.allocate(order, flags, 'min');
      if (pfn !== NIL || released > 0 || killed === undefined) return pfn;
    }
    return NIL;
  }

  #makeRoom(order: number): number {
    return this.withoutReclaim(() => {
      const freed = this.reclaim.reclaim(Math.max(32, 1 << order), 'direct');
      this.allocator.drainPerCpu();
      if (order > 0) this.makeBlock(order);
      return freed;
    });
  }

  protected withoutReclaim<T>(work: () => T): T {
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
    return this.withoutReclaim(() => this.reclaim.background());
  }

  /** Frees the whole page cache (/proc/sys/vm/drop_caches); returns pages. */
  dropCaches(): number {
    const dropped = this.cache.drop();
    this.allocator.drainPerCpu();
    return dropped;
  }

  /** Runs the shrinkers until they have no more to give; returns pages. */
  shrinkAll(): number {
    const freed = this.withoutReclaim(() => this.reclaim.shrinkAll());
    this.allocator.drainPerCpu();
    return freed;
  }

  // Figures.

  /** What counts as this guest's memory, in pages. */
  get totalPages(): number {
    return this.#totalPages;
  }

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

  // Saving and resuming: what every kernel counts.

  protected saveCounters(into: StateWriter): void {
    for (const name of VM_EVENTS) into.integer(this.events[name]);
    into.u32(this.#totalPages);
    into.u32(Math.max(0, Math.ceil(this.#writebackAt - this.clock.now())));
    into.flag(this.reclaim.wanted);
  }

  protected readCounters(from: StateReader): void {
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
  abstract checkInvariants(): PageCensus;
}
