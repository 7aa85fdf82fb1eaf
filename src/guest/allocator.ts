/**
 * The page allocator: zones over one page state, which of them serves a request, who owns an allocated page,
 * and what a balloon driver needs besides: splitting, isolating free blocks while they are reported, and
 * walking the free lists. It never waits and never reclaims; kernel-core.ts does that around it.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { PageOwner } from '../memory/kernel-memory.ts';
import { PAGE_SIZE, type PageSink } from '../memory/page.ts';
import { NIL, ORDER_MAX, PAGEBLOCK_ORDER, PAGES_PER_BLOCK_MAX } from '../memory/page-blocks.ts';
import { assert } from '../sys/error.ts';
import { badFree, type FrameAllocator, type Mark, watermarksOf } from './frame-allocator.ts';
import { GFP_DMA32, GFP_MEMALLOC, GFP_TYPE_MASK } from './gfp.ts';
import { PageOwners } from './owners.ts';
import {
  KIND_ALLOCATED,
  KIND_FREE,
  KIND_ISOLATED,
  KIND_MASK,
  MIGRATE_TYPES,
  type MigrateType,
  ORDER_MASK,
  PageState,
  PFN_MAX,
  REPORTED,
} from './page-state.ts';
import { ZeroedFrames } from './zeroed-frames.ts';
import { Zone } from './zone.ts';

/** A run of page frames. */
interface Span {
  readonly start: number;
  readonly end: number;
}

interface AllocatorOptions {
  /** The frames that are memory, rising, disjoint. */
  readonly spans: readonly Span[];
  /** First frame above the DMA32 zone; a multiple of 1024. */
  readonly dma32End: number;
  /** Of all frames, none of which has an owner yet; made here unless given. */
  readonly pages?: PageState;
}

/**
 * Visits the frames from `start` to `end` in parts that no block straddles. A function that is called for each is compiled
 * soon and for good, which one long loop over all of memory is not.
 */
export function forEachPart(start: number, end: number, visit: (start: number, end: number) => void): void {
  for (let from = start; from < end; ) {
    const to = Math.min(end, (from | (PAGES_PER_BLOCK_MAX - 1)) + 1);
    visit(from, to);
    from = to;
  }
}

/** Where the kernel itself lies: at the bottom, as large as a small Linux, but never much of a small guest. */
const RESERVED_PAGES_MAX = 4096;

/** The frames of all regions, touching ones joined, without those that the kernel keeps for itself. */
export function spansOf(memory: GuestMemory, reservedPages?: number): readonly Span[] {
  const spans: { start: number; end: number }[] = [];
  for (const region of memory.regions) {
    const end = region.firstPfn + region.pageCount;
    const last = spans.at(-1);
    if (last?.end === region.firstPfn) last.end = end;
    else spans.push({ start: region.firstPfn, end });
  }
  const pages = memory.size / PAGE_SIZE;
  const reserved = reservedPages ?? Math.min(RESERVED_PAGES_MAX, Math.floor(pages / 64));
  assert(spans.length > 0 && spans[0].end - spans[0].start > reserved, 'no memory beside the kernel');
  spans[0].start += reserved;
  return spans;
}

export class PageAllocator implements FrameAllocator {
  readonly pages: PageState;
  readonly owners = new PageOwners();
  readonly zeroed: ZeroedFrames;
  readonly spans: readonly Span[];
  /** First frame above the DMA32 zone. */
  readonly dma32End: number;
  /** In rising order of address. */
  readonly zones: readonly Zone[];
  /** Frames that the allocator manages. */
  readonly managedPages: number;
  /** Called when a block of at least 2 MiB becomes free: free page reporting wakes up on it. */
  onLargeFree: ((order: number) => void) | undefined;
  /** Pages handed out and taken back since boot, as in /proc/vmstat. */
  allocated = 0;
  freed = 0;
  readonly #state: Uint8Array;
  readonly #owner: Uint16Array;
  readonly #flags: Uint8Array;
  readonly #normalStart: number;

  constructor({ spans, dma32End, pages }: AllocatorOptions) {
    assert(spans.length > 0 && spans.every(isSpan) && isRising(spans), 'memory spans are out of order');
    assert(dma32End % PAGES_PER_BLOCK_MAX === 0, 'a zone border inside a block');
    const end = spans[spans.length - 1].end;
    this.pages = pages ?? new PageState(end);
    this.zeroed = new ZeroedFrames(this.pages.length);
    assert(this.pages.length >= end, 'page state of a smaller guest');
    this.#state = this.pages.state;
    this.#owner = this.pages.owner;
    this.#flags = this.pages.flags;
    this.spans = spans;
    this.dma32End = dma32End;
    const isMovable = (pfn: number) => this.isMovable(pfn);
    const zones: Zone[] = [];
    const start = spans[0].start;
    if (start < dma32End)
      zones.push(new Zone('DMA32', start, Math.min(end, dma32End), this.pages, isMovable));
    if (end > dma32End) zones.push(new Zone('Normal', Math.max(start, dma32End), end, this.pages, isMovable));
    this.zones = zones;
    this.#normalStart = zones[zones.length - 1].start;
    for (const zone of zones) {
      zone.buddy.onLargeFree = order => this.onLargeFree?.(order);
      for (const span of spans) {
        zone.managedPages += Math.max(0, Math.min(span.end, zone.end) - Math.max(span.start, zone.start));
      }
    }
    this.managedPages = zones.reduce((total, zone) => total + zone.managedPages, 0);
    this.#setWatermarks();
  }

  /** Frees all memory in blocks as large as alignment allows: boot. Touches a few bytes per 4 MiB. */
  populate(): void {
    for (const span of this.spans) {
      for (let pfn = span.start; pfn < span.end; ) {
        const aligned = pfn === 0 ? ORDER_MAX : 31 - Math.clz32(pfn & -pfn);
        const order = Math.min(ORDER_MAX, aligned, 31 - Math.clz32(span.end - pfn));
        this.zoneOf(pfn).buddy.append(pfn, order);
        pfn += 1 << order;
      }
    }
  }

  /** A zone that others fall back to keeps a 256th of theirs for those who can use no other. */
  #setWatermarks(): void {
    let above = 0;
    for (const zone of this.zones.toReversed()) {
      zone.setUp(watermarksOf(zone.managedPages, this.managedPages), above >>> 8);
      above += zone.managedPages;
    }
  }

  zoneOf(pfn: number): Zone {
    return this.zones[pfn >= this.#normalStart ? this.zones.length - 1 : 0];
  }

  /**
   * Takes 2^order pages, leaving watermark `mark` intact; NIL (-1) if no zone can. From the highest zone that
   * will do downwards, as Linux does, to spare the low ones.
   */
  allocate(order: number, flags: number, mark: Mark = 'low'): number {
    const type = (flags & GFP_TYPE_MASK) as MigrateType;
    const { zones } = this;
    const highest = (flags & GFP_DMA32) !== 0 ? 0 : zones.length - 1;
    for (let at = highest; at >= 0; at--) {
      const zone = zones[at];
      if ((flags & GFP_MEMALLOC) === 0) {
        const keep = zone.watermarks[mark] + (at === highest ? 0 : zone.reserve);
        if (zone.buddy.lists.pages - (1 << order) < keep) continue;
      }
      let pfn: number;
      if (order === 0) {
        pfn = zone.takePage(type);
        if (pfn === NIL) continue;
      } else {
        pfn = zone.buddy.take(order, type);
        if (pfn === NIL) continue;
        this.#state[pfn] = KIND_ALLOCATED | order;
      }
      this.allocated += 1 << order;
      return pfn;
    }
    return NIL;
  }

  /** @throws InvariantError when these pages are not allocated, or not as one block of this order */
  free(pfn: number, order: number): void {
    const state = this.#state[pfn];
    if (state !== (KIND_ALLOCATED | order)) throw badFree(pfn, order, state);
    this.#owner[pfn] = 0;
    this.#flags[pfn] = 0;
    this.zeroed.forget(pfn, 1 << order);
    const zone = this.zoneOf(pfn);
    if (order === 0) zone.putPage(pfn);
    else zone.buddy.put(pfn, order);
    this.freed += 1 << order;
  }

  /** Makes one allocated block many single pages, each to be freed by itself; owner and flags go to each. */
  split(pfn: number, order: number): void {
    const state = this.#state[pfn];
    assert(state === (KIND_ALLOCATED | order), `split of frame ${pfn}, not an allocated block of that order`);
    const end = pfn + (1 << order);
    this.#state.fill(KIND_ALLOCATED, pfn, end);
    this.#owner.fill(this.#owner[pfn], pfn, end);
    this.#flags.fill(this.#flags[pfn], pfn, end);
  }

  /** Takes just the free block that starts at `pfn`, whole; returns its order, or NIL if none starts there. */
  claim(pfn: number): number {
    if ((this.#state[pfn] & KIND_MASK) !== KIND_FREE) return NIL;
    const order = this.zoneOf(pfn).buddy.lists.remove(pfn);
    this.#state[pfn] = KIND_ALLOCATED | order;
    this.allocated += 1 << order;
    return order;
  }

  /** Whether a block that was handed out starts at `pfn`. */
  isAllocated(pfn: number): boolean {
    return (this.#state[pfn] & KIND_MASK) === KIND_ALLOCATED;
  }

  /** Order of the block that starts at `pfn`; only if one starts there. */
  orderOf(pfn: number): number {
    return this.#state[pfn] & ORDER_MASK;
  }

  /** Gives pages to the single-page lists' buddies, so that all that is free has merged. */
  drainPerCpu(): void {
    for (const zone of this.zones) zone.drainPerCpu();
  }

  get freePages(): number {
    return this.zones.reduce((total, zone) => total + zone.freePages, 0);
  }

  get keptPages(): { low: number; high: number } {
    let low = 0;
    let high = 0;
    for (const { watermarks, reserve } of this.zones) {
      low += watermarks.low;
      high += watermarks.high + reserve;
    }
    return { low, high };
  }

  missingPages(): number {
    return this.zones.reduce((pages, zone) => pages + Math.max(0, zone.watermarks.high - zone.freePages), 0);
  }

  hasRoom(): boolean {
    return this.zones.some(zone => zone.freePages > zone.watermarks.high + zone.reserve);
  }

  readsAsZeros(pfn: number, count: number): boolean {
    return this.zeroed.covers(pfn, count);
  }

  get perCpuPages(): number {
    return this.zones.reduce((total, zone) => total + zone.perCpuPages, 0);
  }

  // Ownership.

  ownerOf(pfn: number): PageOwner | undefined {
    return this.owners.get(this.#owner[pfn]);
  }

  /** Says who owns an allocated page (0: no owner, it cannot move), and which of its pages it is. */
  own(pfn: number, owner: number, index = 0): void {
    this.#owner[pfn] = owner;
    this.pages.index[pfn] = index;
  }

  /** Whether the allocated single page at `pfn` has an owner that lets it move. */
  isMovable(pfn: number): boolean {
    return this.#state[pfn] === KIND_ALLOCATED && this.owners.get(this.#owner[pfn])?.migrate !== undefined;
  }

  /** Visits the blocks that `owner` owns, in rising order. */
  forEachOwned(owner: number, visit: (pfn: number, order: number) => void): void {
    for (const { start, end } of this.spans)
      forEachPart(start, end, (from, to) => this.#visitOwned(owner, from, to, visit));
  }

  #visitOwned(owner: number, start: number, end: number, visit: (pfn: number, order: number) => void): void {
    for (let pfn = start; pfn < end; ) {
      const state = this.#state[pfn];
      const order = state & ORDER_MASK;
      const pages = state === 0 ? 1 : 1 << order;
      // In this order: a page that never had an owner has no memory behind its owner's id, and reading it would fetch some.
      if ((state & KIND_MASK) === KIND_ALLOCATED && this.#owner[pfn] === owner) visit(pfn, order);
      pfn += pages;
    }
  }

  // Free blocks: reporting, hints, requests.

  /**
   * Takes an unreported free block of exactly `order` (>= 9) out of the allocator, or returns NIL. It
   * belongs neither to the free lists nor to an owner until {@link putBack}. Never takes a zone below its low watermark.
   */
  isolateUnreported(order: number): number {
    assert(order >= PAGEBLOCK_ORDER, 'only blocks of a pageblock or more are reported');
    for (let at = this.zones.length - 1; at >= 0; at--) {
      const zone = this.zones[at];
      if (zone.freePages - (1 << order) < zone.watermarks.low) continue;
      for (let type = 0; type < MIGRATE_TYPES; type++) {
        const pfn = zone.buddy.lists.head(order, type);
        // Reported blocks are last on their list, so the head tells.
        if (pfn === NIL || (this.#state[pfn] & REPORTED) !== 0) continue;
        zone.buddy.isolate(pfn);
        return pfn;
      }
    }
    return NIL;
  }

  /** Takes the free block that starts at `pfn` out of the allocator; false if none starts there. */
  isolate(pfn: number): boolean {
    if ((this.#state[pfn] & KIND_MASK) !== KIND_FREE) return false;
    this.zoneOf(pfn).buddy.isolate(pfn);
    return true;
  }

  /** Returns an isolated block; `reported` if the host now knows that it is free. */
  putBack(pfn: number, order: number, reported: boolean): void {
    const state = this.#state[pfn];
    assert(state === (KIND_ISOLATED | order), `frame ${pfn} starts no isolated block of order ${order}`);
    this.zoneOf(pfn).buddy.putBack(pfn, order, reported);
  }

  /** Free blocks of exactly `order`. */
  freeBlocks(order: number): number {
    return this.zones.reduce((total, zone) => total + zone.buddy.lists.blocks(order), 0);
  }

  /** Whether the free block that starts at `pfn` was reported and not used since. */
  isReported(pfn: number): boolean {
    return (this.#state[pfn] & (KIND_MASK | REPORTED)) === (KIND_FREE | REPORTED);
  }

  /** Unmarks every reported block, because the host that knew of them is another one now. */
  forgetReports(): void {
    for (let order = PAGEBLOCK_ORDER; order <= ORDER_MAX; order++) {
      this.forEachFreeBlock(order, pfn => {
        this.#state[pfn] &= ~REPORTED;
      });
    }
  }

  /**
   * Visits the free blocks of exactly `order`, list by list. The visitor must not allocate or free. This is
   * the walk that Linux does under the zone's lock to answer a request for unused pages.
   */
  forEachFreeBlock(order: number, visit: (pfn: number) => void): void {
    for (const zone of this.zones) {
      for (let type = 0; type < MIGRATE_TYPES; type++) zone.buddy.lists.forEach(order, type, visit);
    }
  }

  /** A snapshot of the free blocks of at least `orderMin`, largest first, as runs of pages. */
  listFree(into: PageSink, orderMin = 0): void {
    for (let order = ORDER_MAX; order >= orderMin; order--) {
      this.forEachFreeBlock(order, pfn => into.add(pfn, 1 << order));
    }
  }
}

const isSpan = ({ start, end }: Span) => start >= 0 && start < end && end <= PFN_MAX;
const isRising = (spans: readonly Span[]) =>
  spans.every((span, i) => i === 0 || spans[i - 1].end <= span.start);
