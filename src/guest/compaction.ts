/**
 * Compaction: moves single movable pages from the bottom of a zone into free pages at its top, so that what
 * they leave merges into large blocks. The owner of each page is asked; the balloon is an owner like any.
 */
import { NIL, PAGEBLOCK_ORDER, PAGES_PER_PAGEBLOCK } from '../memory/page-blocks.ts';
import type { PageAllocator } from './allocator.ts';
import type { PageSupply } from './frame-allocator.ts';
import type { PageAccess } from './page-access.ts';
import { KIND_FREE, KIND_MASK, MIGRATE_MOVABLE, ORDER_MASK } from './page-state.ts';
import type { VmEvents } from './vm-events.ts';
import type { Zone } from './zone.ts';

export class Compaction {
  readonly #allocator: PageAllocator;
  readonly #supply: PageSupply;
  readonly #access: PageAccess;
  readonly #events: VmEvents;
  /** Free pages taken from the top of the zone, highest last. */
  readonly #targets: number[] = [];
  #migrateAt = 0;
  #freeAt = 0;

  constructor(allocator: PageAllocator, supply: PageSupply, access: PageAccess, events: VmEvents) {
    this.#allocator = allocator;
    this.#supply = supply;
    this.#access = access;
    this.#events = events;
  }

  /** Makes a free block of `order` in any zone, from the highest down; false if it cannot. */
  makeRoom(order: number): boolean {
    for (const zone of this.#allocator.zones.toReversed()) {
      // Twice the block must be free above the watermark, or moving pages would only run into it.
      if (zone.freePages < zone.watermarks.min + (2 << order)) continue;
      if (this.compact(zone, order)) return true;
    }
    return false;
  }

  /** Compacts a zone until it has a free block of `order`; without `order`, all of it. */
  compact(zone: Zone, order?: number): boolean {
    const enough = () => order !== undefined && zone.buddy.largestOrder() >= order;
    this.#events.compactions++;
    zone.drainPerCpu();
    this.#migrateAt = zone.start & -PAGES_PER_PAGEBLOCK;
    this.#freeAt = (zone.end + PAGES_PER_PAGEBLOCK - 1) & -PAGES_PER_PAGEBLOCK;
    while (!enough() && this.#migrateAt < this.#freeAt) {
      if (!this.#emptyBlock(zone, this.#migrateAt)) break;
      zone.drainPerCpu();
      this.#migrateAt += PAGES_PER_PAGEBLOCK;
    }
    for (const pfn of this.#targets) this.#supply.free(pfn, 0);
    this.#targets.length = 0;
    zone.drainPerCpu();
    return enough();
  }

  /** Moves what can be moved out of one pageblock; false once there is nowhere left to move it. */
  #emptyBlock(zone: Zone, start: number): boolean {
    const { state } = this.#allocator.pages;
    for (let pfn = start; pfn < start + PAGES_PER_PAGEBLOCK; ) {
      const kind = state[pfn] & KIND_MASK;
      const size = kind === 0 ? 1 : 1 << (state[pfn] & ORDER_MASK);
      if (this.#allocator.isMovable(pfn)) {
        if (this.#targets.length === 0) this.#findTargets(zone);
        const to = this.#targets.pop();
        if (to === undefined) return false;
        if (!this.#move(pfn, to)) this.#targets.push(to);
      }
      pfn += size;
    }
    return true;
  }

  #move(from: number, to: number): boolean {
    const { pages } = this.#allocator;
    const owner = this.#allocator.ownerOf(from);
    if (owner?.contents === 'kept') this.#access.copy(from, to);
    pages.owner[to] = pages.owner[from];
    pages.flags[to] = pages.flags[from];
    pages.index[to] = pages.index[from];
    if (owner?.migrate?.(from, to) === true) {
      this.#events.pagesMigrated++;
      return true;
    }
    pages.owner[to] = 0;
    pages.flags[to] = 0;
    this.#events.migrationsRefused++;
    return false;
  }

  /** Takes the free pages of the next pageblock from the top that is neither unmovable nor free as a whole. */
  #findTargets(zone: Zone): void {
    const { state, blockType } = this.#allocator.pages;
    while (this.#targets.length === 0) {
      const start = this.#freeAt - PAGES_PER_PAGEBLOCK;
      if (start <= this.#migrateAt) return;
      this.#freeAt = start;
      if (blockType[start >>> PAGEBLOCK_ORDER] !== MIGRATE_MOVABLE || start < zone.start) continue;
      for (let pfn = start; pfn < start + PAGES_PER_PAGEBLOCK; ) {
        const kind = state[pfn] & KIND_MASK;
        const order = state[pfn] & ORDER_MASK;
        if (kind === KIND_FREE && order >= PAGEBLOCK_ORDER) break;
        if (kind === KIND_FREE && this.#allocator.claim(pfn) !== NIL) {
          this.#allocator.split(pfn, order);
          for (let page = pfn; page < pfn + (1 << order); page++) this.#targets.push(page);
        }
        pfn += kind === 0 ? 1 : 1 << order;
      }
    }
  }
}
