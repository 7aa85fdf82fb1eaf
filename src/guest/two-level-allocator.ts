/**
 * The allocator of two levels (two-level.ts) as a guest kernel needs one: with watermarks, and with what is known of each
 * page. There is one zone; its pages cannot be moved, and no free block be set aside.
 * Free are only the frames that the host leaves: what it holds comes and goes without a word.
 */
import { FRAME_PAGES } from '../balloon/shared-frames.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { NIL, PAGEBLOCK_ORDER } from '../memory/page-blocks.ts';
import { assert } from '../sys/error.ts';
import { badFree, type FrameAllocator, type Mark, type Watermarks, watermarksOf } from './frame-allocator.ts';
import { GFP_MEMALLOC, GFP_MOVABLE, GFP_TYPE_MASK } from './gfp.ts';
import { PageOwners } from './owners.ts';
import { KIND_ALLOCATED, PageState } from './page-state.ts';
import { LASTING, PASSING, TwoLevelFrames } from './two-level.ts';

/** Free pages are counted anew after so many that came or went: the host takes some meanwhile, and says nothing. */
const RECOUNT_PAGES = 64;

export class TwoLevelAllocator implements FrameAllocator {
  readonly pages: PageState;
  readonly owners = new PageOwners();
  readonly frames: TwoLevelFrames;
  readonly managedPages: number;
  readonly keptPages: Watermarks;
  allocated = 0;
  freed = 0;
  /** As they were counted last, but for what the guest itself took and gave since. */
  #free: number;
  /** Pages that it took and gave since. */
  #since = 0;

  /** Uses the first region of `memory`, as far as it is whole huge frames. `pages` are of a guest of this size. */
  constructor(memory: GuestMemory, pages?: PageState) {
    const { firstPfn, pageCount } = memory.regions[0];
    const frames = Math.floor(pageCount / FRAME_PAGES);
    this.frames = new TwoLevelFrames(memory, firstPfn, frames);
    this.pages = pages ?? new PageState(firstPfn + frames * FRAME_PAGES);
    this.managedPages = frames * FRAME_PAGES - this.frames.reservedPages;
    this.keptPages = watermarksOf(this.managedPages, this.managedPages);
    this.#free = this.managedPages;
  }

  allocate(order: number, flags: number, mark: Mark = 'low'): number {
    const count = 1 << order;
    if ((flags & GFP_MEMALLOC) === 0 && !this.#leaves(count, this.keptPages[mark])) return NIL;
    const kind = (flags & GFP_TYPE_MASK) === GFP_MOVABLE ? PASSING : LASTING;
    const pfn = this.frames.allocate(order, kind);
    if (pfn === NIL) return NIL;
    this.pages.state[pfn] = KIND_ALLOCATED | order;
    this.allocated += count;
    this.#free -= count;
    this.#since += count;
    return pfn;
  }

  /** Whether so many are free beside `kept`. Never said to be so few without a look. */
  #leaves(count: number, kept: number): boolean {
    if (this.#since < RECOUNT_PAGES && this.#free - count >= kept) return true;
    this.#free = this.frames.countedPages;
    this.#since = 0;
    return this.#free - count >= kept;
  }

  free(pfn: number, order: number): void {
    const { state, owner, flags } = this.pages;
    if (state[pfn] !== (KIND_ALLOCATED | order)) throw badFree(pfn, order, state[pfn]);
    // In this order: a frame whose last page is freed is the host's to take.
    state[pfn] = 0;
    owner[pfn] = 0;
    flags[pfn] = 0;
    this.frames.free(pfn, order);
    const count = 1 << order;
    this.freed += count;
    this.#free += count;
    this.#since += count;
  }

  split(pfn: number, order: number): void {
    const { state, owner, flags } = this.pages;
    assert(
      state[pfn] === (KIND_ALLOCATED | order),
      `split of frame ${pfn}, not an allocated block of that order`,
    );
    if (order >= PAGEBLOCK_ORDER) this.frames.split(pfn, order);
    const end = pfn + (1 << order);
    state.fill(KIND_ALLOCATED, pfn, end);
    owner.fill(owner[pfn], pfn, end);
    flags.fill(flags[pfn], pfn, end);
  }

  own(pfn: number, owner: number, index = 0): void {
    this.pages.owner[pfn] = owner;
    this.pages.index[pfn] = index;
  }

  readsAsZeros(): boolean {
    return this.frames.zeroed;
  }

  get freePages(): number {
    return this.frames.freePages;
  }

  missingPages(): number {
    return Math.max(0, this.keptPages.high - this.freePages);
  }

  hasRoom(): boolean {
    return this.#leaves(1, this.keptPages.high);
  }

  /** Every page that is free is so for all. */
  drainPerCpu(): void {}
}
