/**
 * A list of pages, linked through two arrays that a guest's kernel has for all its pages: what an owner keeps its
 * allocated pages on (the LRU, the balloon) without a byte of heap per page. A page is on one list at most, and the
 * list's owner is the page's owner.
 */
import { NIL } from './page-blocks.ts';

/** By page frame number. */
export interface PageLinks {
  readonly next: Int32Array;
  readonly previous: Int32Array;
}

export class LinkedPages {
  /** First page, or NIL. */
  head = NIL;
  /** Last page, or NIL. */
  tail = NIL;
  length = 0;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;

  constructor(pages: PageLinks) {
    this.#next = pages.next;
    this.#previous = pages.previous;
  }

  pushHead(pfn: number): void {
    const first = this.head;
    this.#next[pfn] = first;
    this.#previous[pfn] = NIL;
    if (first === NIL) this.tail = pfn;
    else this.#previous[first] = pfn;
    this.head = pfn;
    this.length++;
  }

  pushTail(pfn: number): void {
    const last = this.tail;
    this.#previous[pfn] = last;
    this.#next[pfn] = NIL;
    if (last === NIL) this.head = pfn;
    else this.#next[last] = pfn;
    this.tail = pfn;
    this.length++;
  }

  /** Takes a page that is on this list off it. */
  remove(pfn: number): void {
    const before = this.#previous[pfn];
    const after = this.#next[pfn];
    if (before === NIL) this.head = after;
    else this.#next[before] = after;
    if (after === NIL) this.tail = before;
    else this.#previous[after] = before;
    this.length--;
  }

  /** Takes the first page off the list; NIL if there is none. */
  popHead(): number {
    const pfn = this.head;
    if (pfn !== NIL) this.remove(pfn);
    return pfn;
  }

  /** Takes the last page off the list; NIL if there is none. */
  popTail(): number {
    const pfn = this.tail;
    if (pfn !== NIL) this.remove(pfn);
    return pfn;
  }

  /** Puts `to` where `from` stands: a page that moved in memory keeps its place. */
  replace(from: number, to: number): void {
    const before = this.#previous[from];
    const after = this.#next[from];
    this.#previous[to] = before;
    this.#next[to] = after;
    if (before === NIL) this.head = to;
    else this.#next[before] = to;
    if (after === NIL) this.tail = to;
    else this.#previous[after] = to;
  }

  /** The page after `pfn`, or NIL. */
  after(pfn: number): number {
    return this.#next[pfn];
  }

  /** The page before `pfn`, or NIL. */
  before(pfn: number): number {
    return this.#previous[pfn];
  }

  /** All pages in the order of the list. */
  toArray(): Int32Array {
    const pfns = new Int32Array(this.length);
    for (let pfn = this.head, i = 0; pfn !== NIL; pfn = this.#next[pfn], i++) pfns[i] = pfn;
    return pfns;
  }

  *[Symbol.iterator](): Generator<number> {
    for (let pfn = this.head; pfn !== NIL; pfn = this.#next[pfn]) yield pfn;
  }
}
