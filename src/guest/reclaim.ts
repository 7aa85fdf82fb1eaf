/**
 * Reclaim: squeezing the page cache and calling the registered shrinkers, harder from priority to priority, in
 * the background (kswapd) or by an allocation that found no memory.
 */
import type { Shrinker } from '../memory/kernel-memory.ts';
import type { FrameAllocator } from './frame-allocator.ts';
import type { PageCache } from './page-cache.ts';
import type { VmEvents } from './vm-events.ts';

/** Linux's DEF_PRIORITY: the first round looks at a 4096th of the lists, the last at all of them. */
const PRIORITY_START = 12;
/** The fewest pages worth a look (SWAP_CLUSTER_MAX). */
const SCAN_MIN = 32;

type ReclaimBy = 'async' | 'direct';

export class Reclaim {
  readonly #shrinkers: Shrinker[] = [];
  readonly #allocator: FrameAllocator;
  readonly #cache: PageCache;
  readonly #events: VmEvents;
  #wanted = false;

  constructor(allocator: FrameAllocator, cache: PageCache, events: VmEvents) {
    this.#allocator = allocator;
    this.#cache = cache;
    this.#events = events;
  }

  /** Registers a shrinker; the returned function takes it out again. */
  addShrinker(shrinker: Shrinker): () => void {
    this.#shrinkers.push(shrinker);
    return () => {
      const at = this.#shrinkers.indexOf(shrinker);
      if (at >= 0) this.#shrinkers.splice(at, 1);
    };
  }

  /** An allocation dipped below the low watermark: the background shall reclaim. */
  wake(): void {
    this.#wanted = true;
  }

  /** Whether the background was woken and has not run since. */
  get wanted(): boolean {
    return this.#wanted;
  }

  /** kswapd: if woken, frees until every zone is at its high watermark or nothing gives way. Returns pages freed. */
  background(): number {
    if (!this.#wanted) return 0;
    this.#wanted = false;
    let freed = 0;
    for (
      let missing = this.#allocator.missingPages();
      missing > 0;
      missing = this.#allocator.missingPages()
    ) {
      const progress = this.reclaim(missing, 'async');
      this.#allocator.drainPerCpu();
      freed += progress;
      if (progress === 0) break;
    }
    return freed;
  }

  /** Tries to free `target` pages; returns how many it freed, at times more. */
  reclaim(target: number, by: ReclaimBy): number {
    let freed = 0;
    for (let priority = PRIORITY_START; priority >= 0 && freed < target; priority--) {
      const scan = Math.max(SCAN_MIN, this.#cache.pages >>> priority);
      const { scanned, reclaimed } = this.#cache.evict(scan);
      const shrunk = this.#shrink(priority);
      if (by === 'async') {
        this.#events.asyncScans += scanned;
        this.#events.asyncReclaims += reclaimed;
      } else {
        this.#events.directScans += scanned;
        this.#events.directReclaims += reclaimed;
      }
      freed += reclaimed + shrunk;
    }
    return freed;
  }

  /** Runs every shrinker until it has no more to give; returns pages freed. */
  shrinkAll(): number {
    let freed = 0;
    for (let progress = this.#shrink(0); progress > 0; progress = this.#shrink(0)) freed += progress;
    return freed;
  }

  #shrink(priority: number): number {
    let freed = 0;
    for (const shrinker of [...this.#shrinkers]) {
      const count = shrinker.count();
      // Twice the share that the page cache gives: what a shrinker frees costs two seeks to get back.
      const scan = Math.min(count, Math.max(SCAN_MIN, (count >>> priority) * 2));
      if (scan > 0) freed += shrinker.scan(scan);
    }
    return freed;
  }
}
