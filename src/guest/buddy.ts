/**
 * The buddy allocator of one zone: splitting and merging of power-of-two blocks, and the grouping of pages by
 * mobility with which Linux keeps unmovable pages from scattering over memory. No watermarks, no per-cpu
 * lists, no waiting: zone.ts and allocator.ts stand on top.
 */
import { NIL, ORDER_MAX, PAGEBLOCK_ORDER, PAGES_PER_PAGEBLOCK } from '../memory/page-blocks.ts';
import { FreeLists } from './free-lists.ts';
import {
  KIND_ALLOCATED,
  KIND_FREE,
  KIND_ISOLATED,
  KIND_MASK,
  MIGRATE_MOVABLE,
  MIGRATE_RECLAIMABLE,
  MIGRATE_TYPES,
  MIGRATE_UNMOVABLE,
  type MigrateType,
  ORDER_MASK,
  type PageState,
  REPORTED,
} from './page-state.ts';

/** Where each type looks when its own lists are empty, best first. */
const FALLBACKS: readonly (readonly MigrateType[])[] = [
  [MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE],
  [MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE],
  [MIGRATE_UNMOVABLE, MIGRATE_MOVABLE],
];

const FREED = 0;
const RETURNED = 1;
const RETURNED_REPORTED = 2;
type PutHow = typeof FREED | typeof RETURNED | typeof RETURNED_REPORTED;

const lowestBit = (word: number) => 31 - Math.clz32(word & -word);
const highestBit = (word: number) => 31 - Math.clz32(word);

export class Buddy {
  readonly lists: FreeLists;
  /** Called when a block of at least a pageblock becomes free (what free page reporting wakes up on). */
  onLargeFree: ((order: number) => void) | undefined;
  /** Allocations that had to take memory of another migrate type. */
  fallbacks = 0;
  /** Pageblocks that changed their type in the course of that. */
  steals = 0;
  readonly #state: Uint8Array;
  readonly #blockType: Uint8Array;
  readonly #isMovable: (pfn: number) => boolean;

  /** `isMovable` says of an allocated order-0 page whether compaction could move it. */
  constructor(pages: PageState, isMovable: (pfn: number) => boolean) {
    this.#state = pages.state;
    this.#blockType = pages.blockType;
    this.lists = new FreeLists(pages);
    this.#isMovable = isMovable;
  }

  /** Takes a block of `order` for `type`, or returns NIL. The caller marks what it becomes. */
  take(order: number, type: MigrateType): number {
    const pfn = this.#takeSmallest(order, type);
    return pfn !== NIL ? pfn : this.#takeFallback(order, type);
  }

  #takeSmallest(order: number, type: number): number {
    const orders = this.lists.available[type] & (-1 << order);
    if (orders === 0) return NIL;
    const pfn = this.lists.head(lowestBit(orders), type);
    this.#takeFrom(pfn, order);
    return pfn;
  }

  /** Takes the free block at `pfn` and gives back all of it but its first 2^order pages. */
  #takeFrom(pfn: number, order: number): void {
    let have = this.lists.remove(pfn);
    while (have > order) {
      have--;
      this.lists.pushHead(pfn + (1 << have), have);
    }
  }

  /**
   * Takes memory of another type: the largest block there is, so that types mix in as few pageblocks as
   * possible, and with it the rest of its pageblock where that is worth it. A movable page that cannot have a
   * pageblock takes the smallest block instead: it will not be in anyone's way.
   */
  #takeFallback(order: number, type: MigrateType): number {
    for (let largest = ORDER_MAX; largest >= order; largest--) {
      const from = this.#fallbackWith(largest, type);
      if (from < 0) continue;
      this.fallbacks++;
      if (largest >= PAGEBLOCK_ORDER) {
        const pfn = this.lists.head(largest, from);
        this.#retypeFreeBlock(pfn, largest, type);
        this.#takeFrom(pfn, order);
        return pfn;
      }
      if (this.#mayClaim(largest, type)) {
        const pfn = this.lists.head(largest, from);
        if (this.#claimPageblock(pfn, from, type)) return this.#takeSmallest(order, type);
        this.#takeFrom(pfn, order);
        return pfn;
      }
      return this.#takeSmallestOfAnother(order, type);
    }
    return NIL;
  }

  #fallbackWith(order: number, type: MigrateType): number {
    for (const other of FALLBACKS[type]) {
      if ((this.lists.available[other] & (1 << order)) !== 0) return other;
    }
    return -1;
  }

  #takeSmallestOfAnother(order: number, type: MigrateType): number {
    for (let smallest = order; smallest <= ORDER_MAX; smallest++) {
      const from = this.#fallbackWith(smallest, type);
      if (from < 0) continue;
      const pfn = this.lists.head(smallest, from);
      this.#takeFrom(pfn, order);
      return pfn;
    }
    return NIL;
  }

  /** Half a pageblock's order is large enough to try; unmovable pages always try, for they do most harm. */
  #mayClaim(order: number, type: MigrateType): boolean {
    return order >= PAGEBLOCK_ORDER >> 1 || type !== MIGRATE_MOVABLE;
  }

  /** Makes the pageblock of `pfn` one of `type` if at least half of it is free or already used by that kind. */
  #claimPageblock(pfn: number, from: number, type: MigrateType): boolean {
    const start = pfn & -PAGES_PER_PAGEBLOCK;
    let free = 0;
    let movable = 0;
    for (let at = start; at < start + PAGES_PER_PAGEBLOCK; ) {
      const state = this.#state[at];
      const kind = state & KIND_MASK;
      if (kind === KIND_FREE) {
        free += 1 << (state & ORDER_MASK);
        at += 1 << (state & ORDER_MASK);
        continue;
      }
      if (kind === KIND_ALLOCATED && this.#isMovable(at)) movable++;
      at += kind === 0 ? 1 : 1 << (state & ORDER_MASK);
    }
    let alike = 0;
    if (type === MIGRATE_MOVABLE) alike = movable;
    else if (from === MIGRATE_MOVABLE) alike = PAGES_PER_PAGEBLOCK - free - movable;
    if (free + alike < PAGES_PER_PAGEBLOCK / 2) return false;
    this.#retypePageblock(start, type);
    return true;
  }

  #retypePageblock(start: number, type: MigrateType): void {
    const end = start + PAGES_PER_PAGEBLOCK;
    const moved: number[] = [];
    for (let at = start; at < end; ) {
      const state = this.#state[at];
      if ((state & KIND_MASK) === KIND_FREE) {
        this.lists.remove(at);
        moved.push(at, state & ORDER_MASK);
      }
      at += (state & KIND_MASK) === 0 ? 1 : 1 << (state & ORDER_MASK);
    }
    this.#blockType[start >>> PAGEBLOCK_ORDER] = type;
    this.steals++;
    for (let i = 0; i < moved.length; i += 2) this.lists.pushTail(moved[i], moved[i + 1]);
  }

  /** Gives every pageblock under a free block of at least one pageblock another type. */
  #retypeFreeBlock(pfn: number, order: number, type: MigrateType): void {
    this.lists.remove(pfn);
    this.#setType(pfn, order, type);
    this.steals += 1 << (order - PAGEBLOCK_ORDER);
    this.lists.pushHead(pfn, order);
  }

  #setType(pfn: number, order: number, type: MigrateType): void {
    const first = pfn >>> PAGEBLOCK_ORDER;
    this.#blockType.fill(type, first, first + (1 << (order - PAGEBLOCK_ORDER)));
  }

  /** Puts a block that is on no list back, merged with its free buddies. */
  put(pfn: number, order: number): void {
    this.#putMerged(pfn, order, FREED);
  }

  /** Puts a block at the end of its list, unmerged: how memory is handed over at boot, or restored. */
  append(pfn: number, order: number, reported = false): void {
    this.lists.pushTail(pfn, order, reported ? REPORTED : 0);
  }

  #putMerged(pfn: number, order: number, how: PutHow): void {
    const state = this.#state;
    const { lists } = this;
    const orderBefore = order;
    state[pfn] = 0;
    while (order < ORDER_MAX) {
      const buddy = pfn ^ (1 << order);
      if ((state[buddy] & ~REPORTED) !== (KIND_FREE | order)) break;
      lists.remove(buddy);
      // Only blocks of a pageblock or more can differ in type. The freed one's wins, so that what it is split
      // into later lies on the lists of its own type.
      if (order >= PAGEBLOCK_ORDER) this.#setType(buddy, order, this.typeOf(pfn));
      pfn &= buddy;
      order++;
    }
    if (how === RETURNED_REPORTED && order === orderBefore) {
      lists.pushTail(pfn, order, REPORTED);
    } else if (order >= PAGEBLOCK_ORDER) {
      lists.pushHead(pfn, order);
      if (how === FREED) this.onLargeFree?.(order);
    } else if (how !== FREED || this.#mergeIsLikely(pfn, order)) {
      lists.pushTail(pfn, order);
    } else {
      lists.pushHead(pfn, order);
    }
  }

  /**
   * Whether the buddy of the next larger block is whole and free: then this block waits at the tail of its
   * list, where it is not soon allocated, for its own buddy to come back.
   */
  #mergeIsLikely(pfn: number, order: number): boolean {
    const parent = pfn & ~(1 << order);
    return (this.#state[parent ^ (2 << order)] & ~REPORTED) === (KIND_FREE | (order + 1));
  }

  /** Takes the free block that starts at `pfn` out of the allocator; {@link putBack} returns it. */
  isolate(pfn: number): void {
    const order = this.lists.remove(pfn);
    this.#state[pfn] = KIND_ISOLATED | order;
  }

  /**
   * Returns an isolated block, to the tail of its list so that it is used last. It counts as reported only if
   * it merges with nothing: its buddy was not reported to the host.
   */
  putBack(pfn: number, order: number, reported: boolean): void {
    this.#putMerged(pfn, order, reported ? RETURNED_REPORTED : RETURNED);
  }

  /** The largest order of which there is a free block, or NIL. */
  largestOrder(): number {
    const { available } = this.lists;
    let orders = 0;
    for (let type = 0; type < MIGRATE_TYPES; type++) orders |= available[type];
    return orders === 0 ? NIL : highestBit(orders);
  }

  typeOf(pfn: number): MigrateType {
    return this.#blockType[pfn >>> PAGEBLOCK_ORDER] as MigrateType;
  }
}
