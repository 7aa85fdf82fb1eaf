/**
 * What the guest kernel has for drivers beside its pages: lists of all that is free, and what a guest that was saved
 * knows of the pages of a driver (memory/kernel-memory.ts). Free page reporting is the allocator's own.
 */
import type { SavedPages, UnusedPages } from '../memory/kernel-memory.ts';
import type { PageSink } from '../memory/page.ts';
import { NIL, ORDER_MAX } from '../memory/page-blocks.ts';
import { forEachPart, type PageAllocator } from './allocator.ts';
import { KIND_ISOLATED, KIND_MASK, ORDER_MASK } from './page-state.ts';

/** `caches` frees memory where it is not free yet. */
export const unusedPagesOf = (
  allocator: PageAllocator,
  caches: Pick<UnusedPages, 'dropCaches' | 'shrinkAll'>,
): UnusedPages => ({
  listFree: (into: PageSink, orderMin: number) => allocator.listFree(into, orderMin),
  dropCaches: () => caches.dropCaches(),
  shrinkAll: () => caches.shrinkAll(),
});

export class SavedOwners implements SavedPages {
  readonly #allocator: PageAllocator;
  readonly #totalPages: () => number;

  /** `totalPages` is what counts as the guest's memory now. */
  constructor(allocator: PageAllocator, totalPages: () => number) {
    this.#allocator = allocator;
    this.#totalPages = totalPages;
  }

  get unmanagedPages(): number {
    return this.#allocator.managedPages - this.#totalPages();
  }

  awaits(name: string): boolean {
    return this.#allocator.owners.awaits(name);
  }

  forEachOwned(owner: number, visit: (pfn: number, order: number) => void): void {
    this.#allocator.forEachOwned(owner, visit);
  }

  ownedOrderAt(pfn: number, owner: number): number {
    const allocator = this.#allocator;
    for (let order = 0; order <= ORDER_MAX; order++) {
      const head = pfn - (pfn % (1 << order));
      if (!allocator.isAllocated(head) || allocator.orderOf(head) !== order) continue;
      return allocator.pages.owner[head] === owner ? order : NIL;
    }
    return NIL;
  }

  putBackIsolated(): void {
    const allocator = this.#allocator;
    for (const { start, end } of allocator.spans) {
      forEachPart(start, end, (from, to) => putBackIsolatedIn(allocator, from, to));
    }
  }
}

function putBackIsolatedIn(allocator: PageAllocator, start: number, end: number): void {
  const { state } = allocator.pages;
  for (let pfn = start; pfn < end; ) {
    const order = state[pfn] & ORDER_MASK;
    const pages = state[pfn] === 0 ? 1 : 1 << order;
    if ((state[pfn] & KIND_MASK) === KIND_ISOLATED) allocator.putBack(pfn, order, false);
    pfn += pages;
  }
}
