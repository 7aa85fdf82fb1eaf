/**
 * The simplest kernel that a balloon driver can run in: one byte a page says whether it is in use, and a block is found
 * by looking from the bottom. It has no zones, no watermarks, no page cache and no processes. It is here to show that
 * the driver needs nothing of the embedded guest's kernel but `KernelMemory`, and it cannot be saved.
 */
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import {
  type AllocationPurpose,
  FIXED_PAGES,
  FREE_BLOCK,
  type FreeBlockReports,
  type KernelMemory,
  type MemoryStatistics,
  type OomNotifier,
  type PageOwner,
  type Shrinker,
  SPARE_PAGES,
  type UnusedPages,
} from '../../src/memory/kernel-memory.ts';
import { gpaOf, PAGE_SIZE, type PageSink } from '../../src/memory/page.ts';
import { NIL, ORDER_MAX, PAGEBLOCK_ORDER, PAGES_PER_PAGEBLOCK } from '../../src/memory/page-blocks.ts';
import { assert } from '../../src/sys/error.ts';

const FREE = 0;
const USED = 1;
const ASIDE = 2;

const ZEROS = new Uint8Array(PAGE_SIZE);

export class BitmapKernel implements KernelMemory, FreeBlockReports, UnusedPages {
  readonly memory: GuestMemory;
  readonly pages;
  readonly poison = undefined;
  readonly reports: FreeBlockReports = this;
  readonly unused: UnusedPages = this;
  onLargeFree: ((order: number) => void) | undefined;
  freePages: number;
  /** Pages that count as the guest's. */
  totalPages: number;
  oomRuns = 0;
  readonly #state: Uint8Array;
  readonly #reported: Uint8Array;
  /** Of the first page of an allocated block; -1 elsewhere. */
  readonly #order: Int8Array;
  readonly #owner: Uint16Array;
  readonly #owners: (PageOwner | undefined)[] = [undefined];
  readonly #notifiers = new Set<OomNotifier>();
  readonly #shrinkers = new Set<Shrinker>();
  /** Below it nothing is free. */
  #firstFree = 0;

  /** All of `memory` is free, and starts at 0. */
  constructor(memory: GuestMemory) {
    const length = memory.size / PAGE_SIZE;
    this.memory = memory;
    this.pages = {
      length,
      flags: new Uint8Array(length),
      index: new Uint32Array(length),
      next: new Int32Array(length),
      previous: new Int32Array(length),
    };
    this.freePages = length;
    this.totalPages = length;
    this.#state = new Uint8Array(length);
    this.#reported = new Uint8Array(length);
    this.#order = new Int8Array(length).fill(-1);
    this.#owner = new Uint16Array(length);
  }

  allocateFor(purpose: AllocationPurpose, order: number): number {
    let pfn = this.#take(order);
    if (pfn === NIL && purpose !== FREE_BLOCK && order === 0 && this.shrinkAll() > 0) pfn = this.#take(order);
    if (pfn === NIL && purpose === FIXED_PAGES && order === 0 && this.outOfMemory() > 0)
      pfn = this.#take(order);
    if (pfn === NIL || purpose === SPARE_PAGES) return pfn;
    for (let page = pfn; purpose === FIXED_PAGES && page < pfn + (1 << order); page++) {
      this.memory.write(gpaOf(page), ZEROS, 0, PAGE_SIZE);
    }
    return pfn;
  }

  #take(order: number): number {
    const pfn = this.#find(order);
    if (pfn === NIL) return NIL;
    this.#mark(pfn, order, USED);
    this.#order[pfn] = order;
    return pfn;
  }

  free(pfn: number, order: number): void {
    assert(this.#order[pfn] === order, `free of frame ${pfn}, which is no allocated block of order ${order}`);
    this.#order[pfn] = -1;
    this.#owner[pfn] = 0;
    this.pages.flags[pfn] = 0;
    this.#mark(pfn, order, FREE);
    const block = pfn - (pfn % PAGES_PER_PAGEBLOCK);
    if (order >= PAGEBLOCK_ORDER || this.#isFree(block, PAGEBLOCK_ORDER)) this.onLargeFree?.(PAGEBLOCK_ORDER);
  }

  split(pfn: number, order: number): void {
    assert(
      this.#order[pfn] === order,
      `split of frame ${pfn}, which is no allocated block of order ${order}`,
    );
    const end = pfn + (1 << order);
    this.#order.fill(0, pfn, end);
    this.#owner.fill(this.#owner[pfn], pfn, end);
    this.pages.flags.fill(this.pages.flags[pfn], pfn, end);
  }

  addOwner(owner: PageOwner): number {
    return this.#owners.push(owner) - 1;
  }

  removeOwner(id: number): void {
    assert(!this.#owner.includes(id), `${this.#owners[id]?.name} has pages still`);
    this.#owners[id] = undefined;
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
    this.totalPages += pages;
  }

  statistics(): MemoryStatistics {
    const freeBytes = this.freePages * PAGE_SIZE;
    return {
      totalBytes: this.totalPages * PAGE_SIZE,
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

  // Free page reporting.

  isolateUnreported(order: number): number {
    for (let pfn = 0; pfn < this.pages.length; pfn += 1 << order) {
      const reported = this.#reported.subarray(pfn, pfn + (1 << order));
      if (!this.#isFree(pfn, order) || !reported.includes(0)) continue;
      this.#mark(pfn, order, ASIDE);
      return pfn;
    }
    return NIL;
  }

  putBack(pfn: number, order: number, reported: boolean): void {
    assert(this.#state[pfn] === ASIDE, `frame ${pfn} was not set aside`);
    this.#mark(pfn, order, FREE);
    this.#reported.fill(reported ? 1 : 0, pfn, pfn + (1 << order));
  }

  forgetReports(): void {
    this.#reported.fill(0);
  }

  // Requests for unused pages.

  listFree(into: PageSink, orderMin: number): void {
    const step = 1 << orderMin;
    for (let pfn = 0; pfn < this.pages.length; pfn += step)
      if (this.#isFree(pfn, orderMin)) into.add(pfn, step);
  }

  dropCaches(): number {
    return 0;
  }

  shrinkAll(): number {
    let freed = 0;
    for (const shrinker of this.#shrinkers) freed += shrinker.scan(shrinker.count());
    return freed;
  }

  // What a test has the kernel do.

  /** Asks every notifier for memory; returns the pages that they gave or promised. */
  outOfMemory(): number {
    this.oomRuns++;
    let released = 0;
    for (const notifier of this.#notifiers) released += notifier.release();
    return released;
  }

  /** Moves single pages whose owners let them move from the bottom to a page above that is free. */
  compact(): void {
    for (let from = 0, to = this.pages.length - 1; from < to; from++) {
      const owner = this.#owners[this.#owner[from]];
      if (this.#order[from] !== 0 || owner?.migrate === undefined) continue;
      while (to > from && this.#state[to] !== FREE) to--;
      if (to === from) return;
      this.#mark(to, 0, USED);
      this.#order[to] = 0;
      this.#owner[to] = this.#owner[from];
      if (!owner.migrate(from, to)) this.free(to, 0);
    }
  }

  /** The name of the owner of the block that page `pfn` is part of. */
  ownerNameOf(pfn: number): string | undefined {
    let head = pfn;
    while (head >= 0 && this.#order[head] < 0) head--;
    return this.#state[pfn] === USED ? this.#owners[this.#owner[head]]?.name : undefined;
  }

  #find(order: number): number {
    const { length } = this.pages;
    while (this.#firstFree < length && this.#state[this.#firstFree] !== FREE) this.#firstFree++;
    const step = 1 << order;
    const start = Math.ceil(this.#firstFree / step) * step;
    for (let pfn = start; pfn < length; pfn += step) if (this.#isFree(pfn, order)) return pfn;
    return NIL;
  }

  #isFree(pfn: number, order: number): boolean {
    for (let page = pfn; page < pfn + (1 << order); page++) if (this.#state[page] !== FREE) return false;
    return true;
  }

  #mark(pfn: number, order: number, state: number): void {
    assert(order <= ORDER_MAX && pfn % (1 << order) === 0, `no block of order ${order} starts at ${pfn}`);
    const count = 1 << order;
    if (this.#state[pfn] === FREE) this.freePages -= count;
    if (state === FREE) {
      this.freePages += count;
      this.#firstFree = Math.min(this.#firstFree, pfn);
    } else this.#reported.fill(0, pfn, pfn + count);
    this.#state.fill(state, pfn, pfn + count);
  }
}
