/**
 * What must be true of the allocator of two levels at any time, checked from scratch: words, bit fields and what is known of
 * the pages say the same. The host may be at work meanwhile; the words of frames that are in use it never changes.
 */
import { FRAME_HELD, FRAME_HUGE, FRAME_PAGES, freePagesOf } from '../balloon/shared-frames.ts';
import { ORDER_MAX, PAGEBLOCK_ORDER } from '../memory/page-blocks.ts';
import { assert, InvariantError } from '../sys/error.ts';
import { KIND_ALLOCATED, KIND_MASK, ORDER_MASK } from './page-state.ts';
import type { TwoLevelAllocator } from './two-level-allocator.ts';

/** Pages by where they are. */
export interface SharedCensus {
  free: number;
  allocated: number;
  /** Of frames that the host holds. */
  held: number;
}

// Not `assert`, whose message would be made for every page though it is hardly ever read.
function fail(message: string): never {
  throw new InvariantError(message);
}

/** @throws InvariantError that names the first page or huge frame at fault */
export function checkTwoLevel(allocator: TwoLevelAllocator): SharedCensus {
  const { frames, pages } = allocator;
  const { firstPfn, frames: count } = frames.table;
  const census: SharedCensus = { free: 0, allocated: 0, held: 0 };
  checkUnmanaged(allocator, 0, firstPfn + frames.reservedPages);
  let blockEnd = firstPfn + frames.reservedPages;
  for (let frame = 0; frame < count; frame++) {
    const word = frames.wordOf(frame);
    const start = firstPfn + frame * FRAME_PAGES;
    let used = 0;
    for (let pfn = start; pfn < start + FRAME_PAGES; pfn++) {
      if (pages.state[pfn] !== 0) blockEnd = checkBlock(allocator, pfn, blockEnd);
      const inUse = pfn < blockEnd;
      if (inUse) used++;
      if (word !== FRAME_HUGE && frames.isMarked(pfn) !== inUse) fail(`frame ${pfn}: its bit is wrong`);
    }
    const huge = blockEnd >= start + FRAME_PAGES && (pages.state[start] & ORDER_MASK) >= PAGEBLOCK_ORDER;
    const tail = pages.state[start] === 0 && blockEnd === start + FRAME_PAGES;
    if (word === FRAME_HUGE && !huge && !tail) fail(`huge frame ${frame} is no block`);
    const held = word === FRAME_HELD ? FRAME_PAGES : 0;
    if (used + freePagesOf(word) + held !== FRAME_PAGES) fail(`huge frame ${frame}: ${used} pages in use`);
    census.allocated += used;
    census.held += held;
    census.free += freePagesOf(word);
  }
  checkUnmanaged(allocator, firstPfn + count * FRAME_PAGES, pages.length);
  census.allocated -= frames.reservedPages;
  assert(census.allocated === allocator.allocated - allocator.freed, 'the count of allocated pages is wrong');
  return census;
}

/** The end of the allocated block that starts at `pfn`. */
function checkBlock({ pages, owners }: TwoLevelAllocator, pfn: number, blockEnd: number): number {
  const state = pages.state[pfn];
  const order = state & ORDER_MASK;
  if (pfn < blockEnd) fail(`frame ${pfn} starts a block inside another`);
  if ((state & KIND_MASK) !== KIND_ALLOCATED) fail(`frame ${pfn} is nowhere`);
  if (order > ORDER_MAX || pfn % (1 << order) !== 0) fail(`frame ${pfn}: a crooked block`);
  if (pages.owner[pfn] !== 0 && owners.get(pages.owner[pfn]) === undefined)
    fail(`frame ${pfn}: its owner left`);
  return pfn + (1 << order);
}

function checkUnmanaged({ pages }: TwoLevelAllocator, start: number, end: number): void {
  for (let pfn = start; pfn < end; pfn++) {
    if (pages.state[pfn] !== 0) fail(`frame ${pfn} is no memory, yet has a state`);
  }
}
