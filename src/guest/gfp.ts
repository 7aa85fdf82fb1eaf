/**
 * What an allocation asks for, as a sum of these. The names are Linux's; the two low bits are the migrate type.
 */
import { type AllocationPurpose, FIXED_PAGES, FREE_BLOCK, SPARE_PAGES } from '../memory/kernel-memory.ts';
import { MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE } from './page-state.ts';

export const GFP_UNMOVABLE = MIGRATE_UNMOVABLE;
export const GFP_MOVABLE = MIGRATE_MOVABLE;
export const GFP_RECLAIMABLE = MIGRATE_RECLAIMABLE;
/** At most one pass of reclaim, for single pages only; no compaction, no out-of-memory path. */
export const GFP_NORETRY = 0x04;
/** The free lists or nothing. */
export const GFP_NORECLAIM = 0x08;
/** A failure is expected: it is not logged. */
export const GFP_NOWARN = 0x10;
export const GFP_ZERO = 0x20;
/** Only from memory below 4 GiB. */
export const GFP_DMA32 = 0x40;
/** May take the last page: watermarks do not count. For those who free more than they take. */
export const GFP_MEMALLOC = 0x80;
/** The migrate type in the flags. */
export const GFP_TYPE_MASK = 0x03;

/** A balloon inflating: it takes what is there and what a look at the page cache brings, and takes no process's memory. */
export const GFP_BALLOON = GFP_MOVABLE | GFP_NORETRY | GFP_NOWARN;
/** A free page hint: only what is free anyway. */
export const GFP_HINT = GFP_MOVABLE | GFP_NORECLAIM | GFP_NOWARN;

/** How a driver's allocation is made that says what it is for. */
export function gfpOf(purpose: AllocationPurpose, order: number): number {
  switch (purpose) {
    case SPARE_PAGES:
      return GFP_BALLOON;
    case FREE_BLOCK:
      return GFP_HINT;
    case FIXED_PAGES:
      // A page is insisted on; for larger blocks there are smaller ones to fall back to.
      return GFP_UNMOVABLE | GFP_NOWARN | GFP_ZERO | (order === 0 ? 0 : GFP_NORETRY);
  }
}
