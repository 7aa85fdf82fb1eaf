/**
 * What a balloon driver needs of the memory management of the kernel that it runs in, as an interface. The embedded
 * guest's kernel is one (guest/kernel.ts); a driver on another allocator brings its own. Nothing here waits: where
 * a real kernel would sleep, an allocation fails.
 *
 * Every kernel has the ten methods of {@link KernelMemory}. What not every allocator can do is in parts of its
 * own: a driver does not take the features that need a part that is not there.
 *
 * Pages are page frames of 4096 bytes, named by their numbers; a block is 2^order of them, aligned to as many
 * (page-blocks.ts). Only `memory` and the arrays of `pages` are touched for each page; the rest is for each block.
 */
import type { GuestMemory } from './guest-memory.ts';
import type { PageLinks } from './linked-pages.ts';
import type { PageSink } from './page.ts';

// What an allocation is for, and so how hard the kernel tries.

/** Pages that may be moved later. Tries what is free and what a look at the page cache brings; no process is ended. */
export const SPARE_PAGES = 0;
/** A block that is free anyway: nothing is reclaimed for it. */
export const FREE_BLOCK = 1;
/**
 * Pages that stay where they are, filled with zeros. For a single page the kernel does all that it can; for a larger
 * block it gives up early, because the caller does with smaller ones.
 */
export const FIXED_PAGES = 2;

export type AllocationPurpose = typeof SPARE_PAGES | typeof FREE_BLOCK | typeof FIXED_PAGES;

/** The owner of pages that can be moved. It sees its pages by page frame number. */
export interface PageOwner {
  readonly name: string;
  /**
   * Offers `to`, a fresh allocated page, in place of `from`. Returns whether the owner took it: then `to` is
   * its page (owner, flags and index are already copied, not the links) and `from` is still allocated, for
   * the owner to free: at once, or when it may (a balloon waits for the host to acknowledge the deflate).
   * Absent: the pages never move.
   */
  migrate?(from: number, to: number): boolean;
  /** Whether the bytes of a page matter and are copied before `migrate`; a balloon's do not. */
  readonly contents: 'kept' | 'none';
}

/** Holds memory that a process may have before it is killed for the lack of it, as the balloon does. */
export interface OomNotifier {
  readonly name: string;
  /**
   * Gives memory back; returns how many pages it freed, or asked back and will free as soon as the host
   * acknowledges. While that is not 0 no process is killed.
   */
  release(): number;
}

/** A cache that can be made smaller: Linux's shrinker. Counts are pages here. */
export interface Shrinker {
  readonly name: string;
  /** Pages that it could free. */
  count(): number;
  /** Frees up to `count` pages; returns how many it freed. May free, must not allocate with reclaim. */
  scan(count: number): number;
}

/** By page frame number; what belongs to the owner of a page while the page is allocated, and is nothing to the kernel. */
interface OwnersWords extends PageLinks {
  /** Page frames covered: the end of the guest's memory. */
  readonly length: number;
  /** 0 when a page is allocated; the free of its block clears that of the first page. */
  readonly flags: Uint8Array;
  readonly index: Uint32Array;
}

/** A kernel's figures about its memory: now, and counted since it booted. */
export interface MemoryStatistics {
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** What could be allocated without swapping: Linux's MemAvailable. */
  readonly availableBytes: number;
  /** The page cache. */
  readonly cacheBytes: number;
  readonly minorFaults: number;
  readonly majorFaults: number;
  /** Processes ended for want of memory. */
  readonly oomKills: number;
  /** Allocations that had to reclaim by themselves. */
  readonly allocStalls: number;
  /** Pages looked at and pages freed, by the background and by allocations themselves. */
  readonly asyncScans: number;
  readonly directScans: number;
  readonly asyncReclaims: number;
  readonly directReclaims: number;
}

export interface KernelMemory {
  readonly memory: GuestMemory;
  /** What the driver writes down about pages of its own. */
  readonly pages: OwnersWords;
  /** The byte that free pages are filled with and that the kernel counts on; undefined where it does not. */
  readonly poison: number | undefined;

  /** 2^order pages that nothing else uses, or NIL (-1). Their contents are whatever they are, but for FIXED_PAGES. */
  allocateFor(purpose: AllocationPurpose, order: number): number;
  /** @throws InvariantError when these pages are not allocated, or not as one block of this order */
  free(pfn: number, order: number): void;
  /** Makes one allocated block many single pages, each to be freed by itself; owner and flags go to each. */
  split(pfn: number, order: number): void;

  /** Registers an owner of pages; returns its id. In a guest that was restored it has the pages of its name at once. */
  addOwner(owner: PageOwner): number;
  /** Forgets an owner, which has no pages left. */
  removeOwner(id: number): void;
  /** The allocated block that starts at `pfn` is this owner's. */
  own(pfn: number, owner: number): void;

  /** Registers a notifier that gives memory back before a process dies; the result takes it out again. */
  addOomNotifier(notifier: OomNotifier): () => void;
  /** Registers a cache that reclaim may shrink; the result takes it out again. */
  addShrinker(shrinker: Shrinker): () => void;

  /** Adds (or with a negative count takes) pages to what counts as this guest's memory. */
  adjustManaged(pages: number): void;
  statistics(): MemoryStatistics;

  /** Free blocks can be set aside while the host is told of them. */
  readonly reports?: FreeBlockReports;
  /** Memory can be freed on request, and all that is free be listed. */
  readonly unused?: UnusedPages;
  /** An allocation that wants zeros need not fill pages that hold them. */
  readonly zeroed?: ZeroedPages;
  /** Guests of this kernel can be saved, and restored elsewhere with a driver that knows nothing of its pages. */
  readonly saved?: SavedPages;
  /** The allocator's own state is in guest memory, and a host may change it. */
  readonly shared?: SharedFrames;
}

/** An allocator whose state host and guest share: a word for each huge frame of 2 MiB (docs/shared-allocator.md). */
export interface SharedFrames {
  /** Where that state is: an address, and the page frames that it is of. */
  readonly table: { readonly address: number; readonly firstPfn: number; readonly frames: number };
  /** Free pages that the host is discarding: they can be had when it is done. */
  readonly busyPages: number;
  /** No host touches the state any more, nor discards anything: what one has left there is void. */
  hostGone(): void;
}

/** Free page reporting. Blocks have order PAGEBLOCK_ORDER (9) at least. */
export interface FreeBlockReports {
  /** Pages that are free; those set aside are not among them. */
  readonly freePages: number;
  /** Called when a block of at least 2 MiB becomes free. */
  onLargeFree: ((order: number) => void) | undefined;
  /**
   * Sets an unreported free block of exactly `order` aside, or returns NIL. Nothing uses it until {@link putBack}.
   * Never leaves the kernel with less than its low watermark.
   */
  isolateUnreported(order: number): number;
  /** Returns a block that was set aside; `reported` if the host now knows that it is free. */
  putBack(pfn: number, order: number, reported: boolean): void;
  /** The host knows of none any more. */
  forgetReports(): void;
}

/** What a kernel may know of free pages that the host made zeros. */
export interface ZeroedPages {
  /** These pages are free and hold zeros. To be called as soon as they are freed, or put back. */
  note(pfn: number, count: number): void;
}

/** What requests of the host for unused pages are answered with. */
export interface UnusedPages {
  /** A snapshot of the free blocks of at least `orderMin`, largest first. */
  listFree(into: PageSink, orderMin: number): void;
  /** Frees the whole page cache; returns pages. */
  dropCaches(): number;
  /** Runs the shrinkers until they have no more to give; returns pages. */
  shrinkAll(): number;
}

/** What a driver finds again in a guest that was saved. */
export interface SavedPages {
  /** Pages that {@link KernelMemory.adjustManaged} has taken out of what counts as the guest's memory. */
  readonly unmanagedPages: number;
  /** Whether an owner of that name was saved with the guest and is still to come back. */
  awaits(name: string): boolean;
  /** Visits the blocks that `owner` owns, in rising order. A walk over all of memory. */
  forEachOwned(owner: number, visit: (pfn: number, order: number) => void): void;
  /** The order of the owner's block that page `pfn` is part of, or NIL. No such walk. */
  ownedOrderAt(pfn: number, owner: number): number;
  /** Returns all blocks that were set aside, as unreported. */
  putBackIsolated(): void;
}
