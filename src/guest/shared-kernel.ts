/**
 * A small kernel on the allocator that a host may share (two-level.ts): what a balloon driver and programs of tests and
 * measurements need of one, and the part by which the driver lends the allocator's state to the host. It has no zones, no
 * page cache and no processes, and cannot be saved; the guest with all of these is kernel.ts's.
 */
import type { FrameTable } from '../balloon/shared-frames.ts';
import { FRAME_PAGES } from '../balloon/shared-frames.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import {
  type AllocationPurpose,
  FIXED_PAGES,
  FREE_BLOCK,
  type KernelMemory,
  type MemoryStatistics,
  type OomNotifier,
  type PageOwner,
  type SharedFrames,
  type Shrinker,
} from '../memory/kernel-memory.ts';
import { gpaOf, PAGE_SIZE } from '../memory/page.ts';
import { NIL, PAGEBLOCK_ORDER } from '../memory/page-blocks.ts';
import { assert } from '../sys/error.ts';
import { PageOwners } from './owners.ts';
import { TwoLevelFrames } from './two-level.ts';

/** No block starts here. */
const NO_BLOCK = -1;

export class SharedKernel implements KernelMemory, SharedFrames {
  readonly memory: GuestMemory;
  readonly frames: TwoLevelFrames;
  readonly pages;
  readonly poison = undefined;
  readonly shared: SharedFrames = this;
  /** How often the notifiers were asked for memory. */
  oomRuns = 0;
  /** Of the first page of an allocated block. */
  readonly #order: Int8Array;
  readonly #owner: Uint16Array;
  readonly #owners = new PageOwners();
  readonly #notifiers = new Set<OomNotifier>();
  readonly #shrinkers = new Set<Shrinker>();
  #totalPages: number;

  /** Uses the first region of `memory`, as far as it is whole huge frames. */
  constructor(memory: GuestMemory) {
    const { firstPfn, pageCount } = memory.regions[0];
    const frames = Math.floor(pageCount / FRAME_PAGES);
    const length = firstPfn + frames * FRAME_PAGES;
    this.memory = memory;
    this.frames = new TwoLevelFrames(memory, firstPfn, frames);
    this.pages = {
      length,
      flags: new Uint8Array(length),
      index: new Uint32Array(length),
      next: new Int32Array(length),
      previous: new Int32Array(length),
    };
    this.#order = new Int8Array(length).fill(NO_BLOCK);
    this.#owner = new Uint16Array(length);
    this.#totalPages = frames * FRAME_PAGES - this.frames.reservedPages;
  }

  allocateFor(purpose: AllocationPurpose, order: number): number {
    const { frames } = this;
    let pfn = frames.allocate(order);
    const single = order === 0 && purpose !== FREE_BLOCK;
    if (pfn === NIL && single && this.#shrink() > 0) pfn = frames.allocate(order);
    if (pfn === NIL && single && purpose === FIXED_PAGES && this.outOfMemory() > 0)
      pfn = frames.allocate(order);
    if (pfn === NIL) return NIL;
    this.#order[pfn] = order;
    // What the host has taken the memory of reads as zeros.
    if (purpose === FIXED_PAGES && !frames.zeroed) this.memory.fill(gpaOf(pfn), 0, PAGE_SIZE << order);
    return pfn;
  }

  free(pfn: number, order: number): void {
    assert(this.#order[pfn] === order, `free of frame ${pfn}, which is no allocated block of order ${order}`);
    this.#order[pfn] = NO_BLOCK;
    this.#owner[pfn] = 0;
    this.pages.flags[pfn] = 0;
    this.frames.free(pfn, order);
  }

  split(pfn: number, order: number): void {
    assert(this.#order[pfn] === order, `split of frame ${pfn}, which is no block of order ${order}`);
    if (order >= PAGEBLOCK_ORDER) this.frames.split(pfn, order);
    const end = pfn + (1 << order);
    this.#order.fill(0, pfn, end);
    this.#owner.fill(this.#owner[pfn], pfn, end);
    this.pages.flags.fill(this.pages.flags[pfn], pfn, end);
  }

  addOwner(owner: PageOwner): number {
    return this.#owners.add(owner);
  }

  removeOwner(id: number): void {
    this.#owners.remove(id);
  }

  own(pfn: number, owner: number): void {
    this.#owner[pfn] = owner;
  }

  addOomNotifier(notifier: OomNotifier): () => void {
    this.#notifiers.add(notifier);
    return () => this.#notifiers.delete(notifier);
  }

  addShrinker(shrinker: Shrinker): () => void {
    this.#shrinkers.add(shrinker);
    return () => this.#shrinkers.delete(shrinker);
  }

  adjustManaged(pages: number): void {
    this.#totalPages += pages;
  }

  statistics(): MemoryStatistics {
    const freeBytes = this.frames.freePages * PAGE_SIZE;
    return {
      totalBytes: this.#totalPages * PAGE_SIZE,
      freeBytes,
      availableBytes: freeBytes,
      cacheBytes: 0,
      minorFaults: 0,
      majorFaults: 0,
      oomKills: 0,
      allocStalls: this.oomRuns,
      asyncScans: 0,
      directScans: 0,
      asyncReclaims: 0,
      directReclaims: 0,
    };
  }

  /** Asks every notifier for memory; returns the pages that they gave or promised. */
  outOfMemory(): number {
    this.oomRuns++;
    let released = 0;
    for (const notifier of this.#notifiers) released += notifier.release();
    return released;
  }

  #shrink(): number {
    let freed = 0;
    for (const shrinker of this.#shrinkers) freed += shrinker.scan(shrinker.count());
    return freed;
  }

  // What the driver lends to the host.

  get table(): FrameTable {
    return this.frames.table;
  }

  get busyPages(): number {
    return this.frames.busyPages;
  }

  hostGone(): void {
    this.frames.hostGone();
  }
}
