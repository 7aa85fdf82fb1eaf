/**
 * Blocks of pages: 2^order page frames, aligned to as many. What guests allocate, and what drivers name to the host as
 * a whole. The orders are those of Linux on x86.
 */

/** The largest order: 2^10 pages, 4 MiB. */
export const ORDER_MAX = 10;
export const ORDERS = ORDER_MAX + 1;
export const PAGES_PER_BLOCK_MAX = 1 << ORDER_MAX;
/** A huge page: the unit in which memory has a migrate type, and the smallest free block that is reported. */
export const PAGEBLOCK_ORDER = 9;
export const PAGES_PER_PAGEBLOCK = 1 << PAGEBLOCK_ORDER;

/** No page frame: the end of a list, and the answer of an allocator that has none. */
export const NIL = -1;
