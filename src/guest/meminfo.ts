/** The guest's figures about its memory, in bytes, as /proc/meminfo has them. */
import { PAGE_SIZE } from '../memory/page.ts';
import type { FrameAllocator } from './frame-allocator.ts';
import type { PageCache } from './page-cache.ts';
import type { Slab } from './slab.ts';

export interface MemInfo {
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** What could be allocated without swapping: Linux's MemAvailable. */
  readonly availableBytes: number;
  /** The page cache. */
  readonly cacheBytes: number;
  readonly dirtyBytes: number;
  readonly slabBytes: number;
}

/**
 * Available is what is free above the high watermarks, and of the page cache and the reclaimable slab what is
 * left when half of each, but no more than the low watermarks, stays.
 */
export function meminfoOf(
  allocator: FrameAllocator,
  cache: PageCache,
  slab: Slab,
  totalPages: number,
): MemInfo {
  const free = allocator.freePages;
  const { low, high } = allocator.keptPages;
  const reclaimable = (pages: number) => pages - Math.min(pages >>> 1, low);
  const available = free - high + reclaimable(cache.pages) + reclaimable(slab.pages);
  return {
    totalBytes: totalPages * PAGE_SIZE,
    freeBytes: free * PAGE_SIZE,
    availableBytes: Math.max(0, available) * PAGE_SIZE,
    cacheBytes: cache.pages * PAGE_SIZE,
    dirtyBytes: cache.dirtyPages * PAGE_SIZE,
    slabBytes: slab.pages * PAGE_SIZE,
  };
}
