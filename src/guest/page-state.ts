/**
 * What the guest kernel knows of every page, in flat arrays indexed by page frame number (Linux's
 * `struct page`, 16 bytes instead of 64). Zero means "nothing is known", so memory that is free in large
 * blocks leaves nearly all of the arrays untouched and the host never backs them.
 *
 * The two links belong to the page's holder: the free lists while it is free, its owner while it is
 * allocated (the LRU, the balloon's list of pages). So do `flags`, which a free clears, and `index`.
 */
import { PAGEBLOCK_ORDER, PAGES_PER_BLOCK_MAX } from '../memory/page-blocks.ts';

export const MIGRATE_UNMOVABLE = 0;
export const MIGRATE_MOVABLE = 1;
export const MIGRATE_RECLAIMABLE = 2;
export const MIGRATE_TYPES = 3;
export type MigrateType = typeof MIGRATE_UNMOVABLE | typeof MIGRATE_MOVABLE | typeof MIGRATE_RECLAIMABLE;

// The state byte of a block's first page: order in bits 0-3, kind in bits 4-6, reported in bit 7. It is 0 for
// every other page of the block and for frames that the allocator does not manage.
export const ORDER_MASK = 0x0f;
export const KIND_MASK = 0x70;
/** On a free list. */
export const KIND_FREE = 0x10;
/** Handed out. */
export const KIND_ALLOCATED = 0x20;
/** Free, on a per-cpu list (order 0). */
export const KIND_PER_CPU = 0x30;
/** Free, but taken off its list while it is reported to the host. */
export const KIND_ISOLATED = 0x40;
/** The host was told that this free block is free and has not been used since. */
export const REPORTED = 0x80;

/** Links are 32-bit; 8 TiB of guest physical addresses is far beyond what one process simulates. */
export const PFN_MAX = 2 ** 31 - PAGES_PER_BLOCK_MAX;

export class PageState {
  /** Frames covered, a multiple of the largest block so that a buddy is always in bounds. */
  readonly length: number;
  readonly state: Uint8Array;
  /** Owner id of an allocated page; 0 is no owner, and such a page never moves. */
  readonly owner: Uint16Array;
  /** For the owner. */
  readonly flags: Uint8Array;
  /** For the owner: which of its pages this is. */
  readonly index: Uint32Array;
  readonly next: Int32Array;
  readonly previous: Int32Array;
  /** Migrate type of each pageblock. */
  readonly blockType: Uint8Array;

  constructor(pfnEnd: number) {
    this.length = Math.ceil(pfnEnd / PAGES_PER_BLOCK_MAX) * PAGES_PER_BLOCK_MAX;
    this.state = new Uint8Array(this.length);
    this.owner = new Uint16Array(this.length);
    this.flags = new Uint8Array(this.length);
    this.index = new Uint32Array(this.length);
    this.next = new Int32Array(this.length);
    this.previous = new Int32Array(this.length);
    this.blockType = new Uint8Array(this.length >>> PAGEBLOCK_ORDER).fill(MIGRATE_MOVABLE);
  }

  /** Nothing is known of any page again. A guest may wait for it, so it is no loop over all pages. */
  reset(): void {
    // Links and numbers are of no meaning without these.
    for (const marks of [this.state, this.owner, this.flags]) marks.fill(0);
    this.blockType.fill(MIGRATE_MOVABLE);
  }

  /**
   * One whose free lists the host backs already. A guest touches all of that when it puts its memory on the lists; one
   * that stands still until it has should not wait for thousands of page faults.
   */
  static backed(pfnEnd: number): PageState {
    const pages = new PageState(pfnEnd);
    for (const array of [pages.state, pages.next, pages.previous]) array.fill(0);
    return pages;
  }
}
