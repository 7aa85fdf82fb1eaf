/**
 * One zone: a buddy allocator, the watermarks that say when it is short of memory, and the per-cpu lists (of
 * our one processor) that hand out single pages in batches. Linux serves order 0 from such lists, and that
 * decides which order of page frame numbers a balloon sees: rising while fresh blocks are split, falling
 * while recently freed pages are reused.
 */
import { NIL, PAGEBLOCK_ORDER } from '../memory/page-blocks.ts';
import { Buddy } from './buddy.ts';
import type { Watermarks } from './frame-allocator.ts';
import {
  KIND_ALLOCATED,
  KIND_PER_CPU,
  MIGRATE_TYPES,
  type MigrateType,
  type PageState,
} from './page-state.ts';

/** Batch of the per-cpu lists at most, in pages; Linux came to 63 because powers of two collide in caches. */
const BATCH_MAX = 63;
/** The lists hold so many batches before the coldest one goes back. */
const BATCHES_HELD = 6;

/** Linux's batch: a thousandth of the zone, at most 1 MiB, a quarter of that, one below a power of two. */
function batchFor(managedPages: number): number {
  const quarter = Math.max(1, Math.min(managedPages >>> 10, 256) >>> 2);
  const power = 1 << (31 - Math.clz32(quarter + (quarter >>> 1)));
  return Math.min(BATCH_MAX, Math.max(1, power - 1));
}

/** Single free pages, hottest first; a ring, because pages come in and go out at both ends. */
class HotPages {
  count = 0;
  #hot = 0;
  readonly #ring: Int32Array;

  /** `capacity` is a power of two. */
  constructor(capacity: number) {
    this.#ring = new Int32Array(capacity);
  }

  get capacity(): number {
    return this.#ring.length;
  }

  pushHot(pfn: number): void {
    this.#hot = (this.#hot - 1) & (this.#ring.length - 1);
    this.#ring[this.#hot] = pfn;
    this.count++;
  }

  pushCold(pfn: number): void {
    this.#ring[(this.#hot + this.count) & (this.#ring.length - 1)] = pfn;
    this.count++;
  }

  popHot(): number {
    const pfn = this.#ring[this.#hot];
    this.#hot = (this.#hot + 1) & (this.#ring.length - 1);
    this.count--;
    return pfn;
  }

  popCold(): number {
    this.count--;
    return this.#ring[(this.#hot + this.count) & (this.#ring.length - 1)];
  }

  /** The page that is `nth` to be handed out. */
  at(nth: number): number {
    return this.#ring[(this.#hot + nth) & (this.#ring.length - 1)];
  }
}

export class Zone {
  readonly name: string;
  /** Frames [start, end); not all of them need to be memory. */
  readonly start: number;
  readonly end: number;
  readonly buddy: Buddy;
  /** Frames in it that the allocator manages. */
  managedPages = 0;
  watermarks: Watermarks = { min: 0, low: 0, high: 0 };
  /** Pages kept for requests that only this zone can serve (Linux's lowmem_reserve). */
  reserve = 0;
  /** Free pages on the per-cpu lists; as in Linux they do not count as free memory. */
  perCpuPages = 0;
  batch = 1;
  #hot: readonly HotPages[] = [];
  #perCpuMax = 0;
  readonly #pages: PageState;

  constructor(
    name: string,
    start: number,
    end: number,
    pages: PageState,
    isMovable: (pfn: number) => boolean,
  ) {
    this.name = name;
    this.start = start;
    this.end = end;
    this.#pages = pages;
    this.buddy = new Buddy(pages, isMovable);
  }

  /** Settles what depends on how much memory the zone has; called once, when it is all there. */
  setUp(watermarks: Watermarks, reserve: number): void {
    this.watermarks = watermarks;
    this.reserve = reserve;
    this.batch = batchFor(this.managedPages);
    this.#perCpuMax = this.batch * BATCHES_HELD;
    const capacity = 2 << (31 - Math.clz32(this.#perCpuMax + this.batch));
    this.#hot = Array.from({ length: MIGRATE_TYPES }, () => new HotPages(capacity));
  }

  /** Free pages, without those on the per-cpu lists. */
  get freePages(): number {
    return this.buddy.lists.pages;
  }

  /** One page for `type`, or NIL. */
  takePage(type: MigrateType): number {
    const hot = this.#hot[type];
    if (hot.count === 0 && !this.#refill(hot, type)) return NIL;
    const pfn = hot.popHot();
    this.perCpuPages--;
    this.#pages.state[pfn] = KIND_ALLOCATED;
    return pfn;
  }

  /** The pages of a batch keep the order in which blocks are split: rising, where a block is fresh. */
  #refill(hot: HotPages, type: MigrateType): boolean {
    const { state } = this.#pages;
    let filled = 0;
    for (; filled < this.batch; filled++) {
      const pfn = this.buddy.take(0, type);
      if (pfn === NIL) break;
      state[pfn] = KIND_PER_CPU;
      hot.pushCold(pfn);
    }
    this.perCpuPages += filled;
    return filled > 0;
  }

  /** Takes back one allocated page. */
  putPage(pfn: number): void {
    const hot = this.#hot[this.#pages.blockType[pfn >>> PAGEBLOCK_ORDER]];
    if (hot.count >= this.#perCpuMax) this.#drain(hot, this.batch);
    this.#pages.state[pfn] = KIND_PER_CPU;
    hot.pushHot(pfn);
    this.perCpuPages++;
  }

  #drain(hot: HotPages, count: number): void {
    this.perCpuPages -= count;
    for (let i = 0; i < count; i++) this.buddy.put(hot.popCold(), 0);
  }

  /** Gives all pages of the per-cpu lists back to the buddies, where they can merge. */
  drainPerCpu(): void {
    for (const hot of this.#hot) this.#drain(hot, hot.count);
  }

  /** The per-cpu list of a migrate type. */
  hotPages(type: MigrateType): HotPages {
    return this.#hot[type];
  }
}
