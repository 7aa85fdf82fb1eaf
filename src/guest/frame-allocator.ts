/**
 * What the parts of a guest kernel ask of its allocator of page frames, whichever that is: the buddy allocator of zones
 * (allocator.ts), or the allocator of two levels whose state a host may share (two-level-allocator.ts). What only one of
 * them can do (compaction, reports, saving) is not here; the kernel on that allocator has it.
 */
import type { PageOwner } from '../memory/kernel-memory.ts';
import { InvariantError } from '../sys/error.ts';
import type { PageOwners } from './owners.ts';
import type { PageState } from './page-state.ts';

/** Where the parts of the guest kernel and its workloads get pages: the allocator with reclaim around it. */
export interface PageSupply {
  /** 2^order pages, or NIL (-1). `flags` is a sum of `GFP_…`. */
  allocate(order: number, flags: number): number;
  free(pfn: number, order: number): void;
  own(pfn: number, owner: number, index?: number): void;
  addOwner(owner: PageOwner): number;
  removeOwner(id: number): void;
}

/** Which watermark an allocation must leave intact. */
export type Mark = 'min' | 'low' | 'high';

/** Pages that must stay free (`min`), below which reclaim wakes (`low`), and at which it rests (`high`). */
export type Watermarks = Readonly<Record<Mark, number>>;

/** Never waits and never reclaims: kernel-core.ts does that around it. */
export interface FrameAllocator {
  /** What is known of every page. A block that is handed out is marked as such in its first page's state. */
  readonly pages: PageState;
  readonly owners: PageOwners;
  /** Frames that it manages. */
  readonly managedPages: number;
  readonly freePages: number;
  /** Pages below which reclaim wakes, and what is left free where the guest has all that it can have: of all zones. */
  readonly keptPages: { readonly low: number; readonly high: number };
  /** Pages handed out and taken back since boot, as in /proc/vmstat. */
  readonly allocated: number;
  readonly freed: number;

  /** Takes 2^order pages, leaving watermark `mark` intact; NIL (-1) if it cannot. */
  allocate(order: number, flags: number, mark: Mark): number;
  /** @throws InvariantError when these pages are not allocated, or not as one block of this order */
  free(pfn: number, order: number): void;
  /** Makes one allocated block many single pages, each to be freed by itself; owner and flags go to each. */
  split(pfn: number, order: number): void;
  /** Says who owns an allocated page (0: no owner), and which of its pages it is. */
  own(pfn: number, owner: number, index?: number): void;
  /** Whether the block that was handed out last, which starts at `pfn`, is known to be zeros. */
  readsAsZeros(pfn: number, count: number): boolean;

  /** Pages that reclaim has to free until it may rest. */
  missingPages(): number;
  /** Whether there is more than has to be left free. */
  hasRoom(): boolean;
  /** Makes single pages that are kept at hand part of what is free to all. */
  drainPerCpu(): void;
}

/**
 * Linux's rule: sqrt(16 * KiB of memory) KiB must stay free, shared out by size; the marks above it are a
 * quarter of that or a thousandth of the zone apart.
 */
export function watermarksOf(zonePages: number, managedPages: number): Watermarks {
  const freeKiBMin = Math.min(262_144, Math.max(128, Math.floor(Math.sqrt(managedPages * 4 * 16))));
  const min = Math.floor(((freeKiBMin / 4) * zonePages) / managedPages);
  const step = Math.max(min >>> 2, Math.floor(zonePages / 1000));
  return { min, low: min + step, high: min + 2 * step };
}

/** Freed twice, never allocated, or freed with another order than it was allocated with. */
export function badFree(pfn: number, order: number, state: number): InvariantError {
  return new InvariantError(
    `free of ${1 << order} pages at frame ${pfn}, whose state is 0x${state.toString(16)}`,
  );
}
