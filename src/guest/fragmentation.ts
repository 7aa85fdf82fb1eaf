/**
 * How broken up free memory is, and ageing: breaking it up to a chosen degree, the way long use does.
 *
 * The measure: the fraction of free pages that lie in no free block of 2 MiB or more (order 9). 0 is a fresh
 * guest, 1 one in which no huge page could be had. Pages on the per-cpu lists count as broken off.
 */

import { PageBitmap } from '../memory/page-bitmap.ts';
import { NIL, ORDERS, PAGEBLOCK_ORDER, PAGES_PER_PAGEBLOCK } from '../memory/page-blocks.ts';
import { assert } from '../sys/error.ts';
import type { PageAllocator } from './allocator.ts';
import { GFP_MEMALLOC, GFP_MOVABLE, GFP_NORECLAIM, GFP_NOWARN } from './gfp.ts';
import type { GuestKernel } from './kernel.ts';
import type { Process } from './process.ts';
import type { Random } from './random.ts';

interface Fragmentation {
  /** Fraction of free pages outside of blocks of order 9 or more; 0 if nothing is free. */
  readonly degree: number;
  /** Free pages, those on the per-cpu lists included. */
  readonly freePages: number;
  /** Free blocks of each order. */
  readonly blocks: readonly number[];
}

export function fragmentation(allocator: PageAllocator): Fragmentation {
  const blocks = Array.from({ length: ORDERS }, (_, order) => allocator.freeBlocks(order));
  const freePages = allocator.freePages + allocator.perCpuPages;
  const whole = blocks.reduce((pages, n, order) => pages + (order >= PAGEBLOCK_ORDER ? n << order : 0), 0);
  return { degree: freePages === 0 ? 0 : (freePages - whole) / freePages, freePages, blocks };
}

export interface AgeingOptions {
  /** The degree to reach, in [0, 1). */
  readonly degree: number;
  /**
   * Pages that stay allocated in each broken pageblock, at random places; the mean run of free pages in such a
   * block is 512 / (holders + 1) pages. 16, so 30 pages, unless said otherwise.
   */
  readonly holdersPerBlock?: number;
  /** Of the pages that stay, the share that compaction cannot move; 0 unless said otherwise. */
  readonly pinnedShare?: number;
  /** Writes to every free page on the way, so that the host backs all of them. */
  readonly touch?: boolean;
}

export interface Aged {
  readonly before: Fragmentation;
  readonly after: Fragmentation;
  /** Who holds what stayed allocated; their exit undoes the ageing. */
  readonly holders: readonly Process[];
}

/**
 * Ages free memory: takes all of it page by page, then frees it in random order but for the holders. So the
 * free lists are shuffled as well, and what is allocated next comes from all over memory.
 * In one go, not in steps: while all memory is taken nothing else can run.
 */
export function age(kernel: GuestKernel, random: Random, options: AgeingOptions): Aged {
  const { degree, holdersPerBlock = 16, pinnedShare = 0, touch = false } = options;
  assert(degree >= 0 && degree < 1, `ageing to a degree of ${degree}`);
  assert(holdersPerBlock > 0 && holdersPerBlock < PAGES_PER_PAGEBLOCK, `${holdersPerBlock} holders`);
  const { allocator } = kernel;
  allocator.drainPerCpu();
  const before = fragmentation(allocator);

  // Page tables first, for there is no memory for them later.
  const stayCount = blocksToBreak(before, degree, holdersPerBlock) * holdersPerBlock;
  const pinnedCount = Math.round(stayCount * pinnedShare);
  const holders = [
    holderOf(kernel, 'aged', false, stayCount - pinnedCount),
    holderOf(kernel, 'aged, pinned', true, pinnedCount),
  ];
  allocator.drainPerCpu();
  const stays = chooseStays(allocator, random, stayCount / holdersPerBlock, holdersPerBlock);
  const staying = new Int32Array(stayCount);
  let stayed = 0;
  const taken = takeAll(kernel, touch);
  random.shuffle(taken);
  for (const pfn of taken) {
    if (stays.test(pfn)) staying[stayed++] = pfn;
    else kernel.free(pfn, 0);
  }
  for (let i = 0; i < stayed; i++) {
    if (i < pinnedCount) holders[1].map(i, staying[i]);
    else holders[0].map(i - pinnedCount, staying[i]);
  }
  allocator.drainPerCpu();
  return { before, after: fragmentation(allocator), holders };
}

/**
 * How many whole pageblocks must break, each losing `holders` pages, so that the fraction of the free pages
 * left that is not in whole ones becomes `degree`.
 */
function blocksToBreak({ freePages, blocks }: Fragmentation, degree: number, holders: number): number {
  const whole = blocks.reduce((n, count, order) => n + ((count << order) >>> PAGEBLOCK_ORDER), 0);
  const broken = freePages - whole * PAGES_PER_PAGEBLOCK;
  const missing = degree * PAGES_PER_PAGEBLOCK * whole - broken * (1 - degree);
  const perBlock = (PAGES_PER_PAGEBLOCK - holders) * (1 - degree) + PAGES_PER_PAGEBLOCK * degree;
  return Math.min(whole, Math.max(0, Math.round(missing / perBlock)));
}

function holderOf(kernel: GuestKernel, name: string, pinned: boolean, pages: number): Process {
  const holder = kernel.spawn(name, { pinned, killable: false });
  assert(holder.reserve(pages), 'no memory for the page tables of what ageing leaves behind');
  return holder;
}

/** Random pages of `count` random pageblocks that are free as a whole, `perBlock` in each. */
function chooseStays(allocator: PageAllocator, random: Random, count: number, perBlock: number): PageBitmap {
  const whole: number[] = [];
  for (let order = PAGEBLOCK_ORDER; order < ORDERS; order++) {
    allocator.forEachFreeBlock(order, pfn => {
      for (let at = pfn; at < pfn + (1 << order); at += PAGES_PER_PAGEBLOCK) whole.push(at);
    });
  }
  const starts = Int32Array.from(whole);
  random.shuffle(starts);
  const stays = new PageBitmap(allocator.pages.length);
  for (const start of starts.subarray(0, count)) {
    for (let chosen = 0; chosen < perBlock; ) {
      chosen += stays.set(start + random.below(PAGES_PER_PAGEBLOCK), 1);
    }
  }
  return stays;
}

/** Every free page, one by one, watermarks or not. */
function takeAll(kernel: GuestKernel, touch: boolean): Int32Array {
  const taken = new Int32Array(kernel.allocator.freePages + kernel.allocator.perCpuPages);
  let count = 0;
  for (;;) {
    const pfn = kernel.allocate(0, GFP_MOVABLE | GFP_MEMALLOC | GFP_NORECLAIM | GFP_NOWARN);
    if (pfn === NIL) return taken.subarray(0, count);
    taken[count++] = pfn;
    if (touch) kernel.access.touch(pfn);
  }
}
