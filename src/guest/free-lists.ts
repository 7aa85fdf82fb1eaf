/**
 * The free lists of one zone: a doubly linked list for each order and migrate type, linked through the page
 * state's own arrays. What is on which list is decided in buddy.ts.
 *
 * A free block is on the list of its pageblock's migrate type, always; so the type of a free page needs no
 * storage, and a block can be found on its list without a search. Reported blocks stand at the tail of theirs:
 * they are used last, and the first unreported one is found in O(1).
 */
import { NIL, ORDERS, PAGEBLOCK_ORDER } from '../memory/page-blocks.ts';
import {
  KIND_FREE,
  MIGRATE_TYPES,
  type MigrateType,
  ORDER_MASK,
  type PageState,
  REPORTED,
} from './page-state.ts';

const listOf = (order: number, type: number) => order * MIGRATE_TYPES + type;

export class FreeLists {
  /** Free pages on all lists. */
  pages = 0;
  /** For each migrate type, a bit for each order that has a block. */
  readonly available = new Int32Array(MIGRATE_TYPES);
  readonly #lengths = new Int32Array(ORDERS * MIGRATE_TYPES);
  readonly #heads = new Int32Array(ORDERS * MIGRATE_TYPES).fill(NIL);
  readonly #tails = new Int32Array(ORDERS * MIGRATE_TYPES).fill(NIL);
  readonly #state: Uint8Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #blockType: Uint8Array;

  constructor(pages: PageState) {
    this.#state = pages.state;
    this.#next = pages.next;
    this.#previous = pages.previous;
    this.#blockType = pages.blockType;
  }

  /** First block of a list, or NIL. */
  head(order: number, type: number): number {
    return this.#heads[listOf(order, type)];
  }

  /** The block after `pfn` on its list, or NIL. */
  after(pfn: number): number {
    return this.#next[pfn];
  }

  /** Blocks on a list. */
  length(order: number, type: MigrateType): number {
    return this.#lengths[listOf(order, type)];
  }

  /** Blocks of `order`, of every migrate type. */
  blocks(order: number): number {
    let blocks = 0;
    for (let type = 0; type < MIGRATE_TYPES; type++) blocks += this.#lengths[listOf(order, type)];
    return blocks;
  }

  pushHead(pfn: number, order: number): void {
    const type = this.#blockType[pfn >>> PAGEBLOCK_ORDER];
    const list = listOf(order, type);
    const first = this.#heads[list];
    this.#next[pfn] = first;
    this.#previous[pfn] = NIL;
    if (first === NIL) this.#tails[list] = pfn;
    else this.#previous[first] = pfn;
    this.#heads[list] = pfn;
    this.#added(pfn, order, type, list, 0);
  }

  pushTail(pfn: number, order: number, reported = 0): void {
    const type = this.#blockType[pfn >>> PAGEBLOCK_ORDER];
    const list = listOf(order, type);
    const last = this.#tails[list];
    this.#previous[pfn] = last;
    this.#next[pfn] = NIL;
    if (last === NIL) this.#heads[list] = pfn;
    else this.#next[last] = pfn;
    this.#tails[list] = pfn;
    this.#added(pfn, order, type, list, reported);
  }

  /** Takes the free block at `pfn` off its list; its reported mark is lost with that. Returns its order. */
  remove(pfn: number): number {
    const order = this.#state[pfn] & ORDER_MASK;
    const type = this.#blockType[pfn >>> PAGEBLOCK_ORDER];
    const list = listOf(order, type);
    const before = this.#previous[pfn];
    const after = this.#next[pfn];
    if (before === NIL) this.#heads[list] = after;
    else this.#next[before] = after;
    if (after === NIL) this.#tails[list] = before;
    else this.#previous[after] = before;
    this.#state[pfn] = 0;
    this.pages -= 1 << order;
    if (--this.#lengths[list] === 0) this.available[type] &= ~(1 << order);
    return order;
  }

  #added(pfn: number, order: number, type: number, list: number, reported: number): void {
    this.#state[pfn] = KIND_FREE | order | reported;
    this.pages += 1 << order;
    this.#lengths[list]++;
    this.available[type] |= 1 << order;
  }

  /** Visits the blocks of a list in its order; the list must not change meanwhile. */
  forEach(order: number, type: number, visit: (pfn: number) => void): void {
    for (let pfn = this.#heads[listOf(order, type)]; pfn !== NIL; pfn = this.#next[pfn]) visit(pfn);
  }

  /** Whether the free block at `pfn` is marked as reported. */
  isReported(pfn: number): boolean {
    return (this.#state[pfn] & REPORTED) !== 0;
  }
}
