/**
 * The pages of the balloon, as the guest's allocator knows them: one owner, one list a block order, linked through the
 * allocator's own page state, so that a page costs no heap. Also where each of them stands between the two sides:
 *
 *     allocated → inflating → ballooned → deflating → freed
 *
 * and for a page that compaction moves, the new one `arriving` while the old one is ballooned no more but not yet
 * `leaving`: its deflation may only be asked for when the inflation of the new one is acknowledged.
 *
 * When the host is lost and another takes its place, ballooned pages are `recalled`: the new host knows nothing of them,
 * and is told again of as many as it wants.
 */

import type { KernelMemory, PageOwner, SavedPages } from '../memory/kernel-memory.ts';
import { LinkedPages } from '../memory/linked-pages.ts';
import { NIL, ORDERS } from '../memory/page-blocks.ts';
import { assert } from '../sys/error.ts';
import type { Batch } from './batch.ts';
import { DriverStateError } from './errors.ts';
import { PromisedZeros } from './promised-zeros.ts';

// In the flags that the allocator keeps for a page's owner, on the first page of a block.
const INFLATING = 1;
const BALLOONED = 2;
const DEFLATING = 3;
const ARRIVING = 4;
const LEAVING = 5;
const RECALLED = 6;

export class BalloonPages implements PageOwner {
  readonly name = 'balloon';
  readonly contents = 'none';
  /** The size that the host wishes for, in pages. */
  target = 0;
  /** The size of the balloon: pages whose inflation was acknowledged and whose deflation was not. */
  actual = 0;
  /** Pages on their way into the balloon, and out of it. Pages that compaction moves are in neither. */
  inflating = 0;
  deflating = 0;
  /** The host changed its target, and it is not reached since. */
  resizing = false;
  /** Called when compaction moved a page, so that both sides of the move are told to the host. */
  onMove: () => void = () => {};
  /** Pages may move: both queues run. */
  movable = false;

  readonly #kernel: KernelMemory;
  readonly #flags: Uint8Array;
  readonly #index: Uint32Array;
  readonly #owner: number;
  /** Blocks of each order that are ballooned. */
  readonly #lists: readonly LinkedPages[];
  /** Pages on {@link #lists}. */
  #resting = 0;
  readonly #arrivals: LinkedPages;
  readonly #departures: LinkedPages;
  /** Pages that compaction moved and whose deflation is not acknowledged yet: the old ones, from the move on. */
  #leaving = 0;
  /** Blocks of each order that no host knows of, and their pages. */
  readonly #recalled: readonly LinkedPages[];
  #recalledPages = 0;
  readonly zeros: PromisedZeros;
  /** Without DEFLATE_ON_OOM ballooned memory does not count as the guest's, as in Linux. */
  readonly #unmanaged: boolean;

  /** `movesAlong`: the host that a saved guest comes to knows of its balloon, for it got the last one's account. */
  constructor(kernel: KernelMemory, deflatesOnOom: boolean, movesAlong = false) {
    this.#kernel = kernel;
    this.zeros = new PromisedZeros(kernel);
    this.#flags = kernel.pages.flags;
    this.#index = kernel.pages.index;
    this.#lists = Array.from({ length: ORDERS }, () => new LinkedPages(kernel.pages));
    this.#recalled = Array.from({ length: ORDERS }, () => new LinkedPages(kernel.pages));
    this.#arrivals = new LinkedPages(kernel.pages);
    this.#departures = new LinkedPages(kernel.pages);
    const { saved } = kernel;
    const hadBalloon = saved?.awaits(this.name) === true;
    this.#owner = kernel.addOwner(this);
    this.#unmanaged = !deflatesOnOom;
    if (saved === undefined) assert(!movesAlong, 'a driver goes on in a guest that cannot have been saved');
    else if (movesAlong) this.#keepBallooned(saved);
    else if (hadBalloon) this.#adopt(saved);
  }

  /** Pages that can be taken out of the balloon now. */
  get resting(): number {
    return this.#resting;
  }

  /** Pages that compaction moved are on their way. */
  get moving(): boolean {
    return this.#leaving > 0 || this.#arrivals.length > 0;
  }

  /** Nothing is on its way in or out. */
  get still(): boolean {
    return this.held === this.actual && this.deflating === 0;
  }

  /** Every page that the driver holds for the balloon, on its way or there. */
  get held(): number {
    return this.actual + this.inflating + this.#leaving + this.#recalledPages;
  }

  /** Pages that are still to be inflated for the target. Nothing is while pages are on their way out. */
  get missing(): number {
    return this.resizing && this.deflating === 0
      ? Math.max(0, this.target - this.actual - this.inflating)
      : 0;
  }

  /** Pages that are still to be deflated for the target (docs/conformance.md, D5: while it is below `actual`). */
  get surplus(): number {
    return this.inflating === 0 ? Math.max(0, this.actual - this.deflating - this.target) : 0;
  }

  // Into the balloon.

  /** A block that was just allocated will be inflated with `batch`. */
  admit(batch: Batch, pfn: number, order: number): void {
    this.#kernel.own(pfn, this.#owner);
    this.#flags[pfn] = INFLATING;
    this.inflating += 1 << order;
    batch.add(pfn, order);
  }

  /** The pages that compaction gave will be inflated with `batch`, as many as it has room for. */
  admitArrivals(batch: Batch): void {
    while (!batch.full) {
      const pfn = this.#arrivals.popHead();
      if (pfn === NIL) return;
      batch.add(pfn, 0);
    }
  }

  /** `batch` will not be inflated: what was allocated for it is the guest's again. */
  withdraw(batch: Batch): void {
    batch.forEach((pfn, order) => {
      if (this.#flags[pfn] === ARRIVING) {
        this.#arrivals.pushTail(pfn);
        return;
      }
      this.inflating -= 1 << order;
      this.#kernel.free(pfn, order);
    });
  }

  /** The inflation of `batch` was acknowledged. */
  inflated(batch: Batch): void {
    batch.forEach((pfn, order) => {
      if (this.#flags[pfn] === ARRIVING) {
        // It takes the place of the page that moved.
        this.#depart(this.#index[pfn]);
      } else {
        const pages = 1 << order;
        this.inflating -= pages;
        this.#grow(pages);
      }
      this.#flags[pfn] = BALLOONED;
      this.#rest(pfn, order);
    });
  }

  // Out of it.

  /** Takes up to `pages` ballooned pages for `batch`, large blocks first; returns how many it took. */
  dismiss(batch: Batch, pages: number): number {
    let left = Math.min(pages, this.#resting);
    const wanted = left;
    for (let order = ORDERS - 1; order >= 0 && left > 0; order--) {
      const list = this.#lists[order];
      while (left >= 1 << order && list.length > 0 && !batch.full) {
        this.#dismissBlock(batch, list.head, order);
        left -= 1 << order;
      }
    }
    if (left === 0 || batch.full) return wanted - left;
    // Only blocks larger than what is left are there: one of them is opened.
    const order = this.#lists.findIndex(list => list.length > 0);
    assert(order > 0, 'ballooned pages are miscounted');
    this.#open(this.#lists[order], order, this.#lists[0]);
    return wanted - left + this.dismiss(batch, left);
  }

  /** The pages that compaction moved out will be deflated with `batch`, as many as it has room for. */
  dismissDepartures(batch: Batch): void {
    while (!batch.full) {
      const pfn = this.#departures.popHead();
      if (pfn === NIL) return;
      batch.add(pfn, 0);
    }
  }

  /** `batch` will not be deflated: what was chosen for it stays in the balloon. */
  keep(batch: Batch): void {
    batch.forEach((pfn, order) => {
      if (this.#flags[pfn] === LEAVING) {
        this.#departures.pushTail(pfn);
        return;
      }
      this.#flags[pfn] = BALLOONED;
      this.deflating -= 1 << order;
      this.#rest(pfn, order);
    });
  }

  /** The deflation of `batch` was acknowledged: its pages are the guest's again (docs/conformance.md, D7). */
  deflated(batch: Batch): void {
    batch.forEach((pfn, order) => {
      if (this.#flags[pfn] === LEAVING) {
        this.#leaving--;
      } else {
        const pages = 1 << order;
        this.deflating -= pages;
        this.#grow(-pages);
      }
      this.#kernel.free(pfn, order);
      this.zeros.handOn(pfn, 1 << order);
    });
  }

  // From one host to the next.

  /** The host that knew of the ballooned pages is gone. What is on its way comes to the next one by itself. */
  recall(): void {
    this.#lists.forEach((list, order) => {
      while (list.length > 0) this.#recallBlock(list.head, order);
    });
  }

  /** Recalled blocks will be inflated with `batch`, as many as the target wants and it has room for; others are freed. */
  admitRecalled(batch: Batch): void {
    if (this.#recalledPages === 0) return;
    const wanted = () => this.target - (this.actual - this.deflating) - this.inflating;
    for (let order = ORDERS - 1; order >= 0; order--) {
      const list = this.#recalled[order];
      while (list.length > 0 && !batch.full && wanted() > 0) {
        if (wanted() < 1 << order) {
          this.#open(list, order, this.#recalled[0]);
          break;
        }
        const pfn = list.popHead();
        this.#recalledPages -= 1 << order;
        this.#flags[pfn] = INFLATING;
        this.inflating += 1 << order;
        batch.add(pfn, order);
      }
    }
    if (wanted() <= 0) this.freeRecalled(this.#recalledPages);
  }

  /** Gives at least `pages` of what no host knows of back to the guest, if there is as much; returns how many. */
  freeRecalled(pages: number): number {
    let freed = 0;
    this.#recalled.forEach((list, order) => {
      while (list.length > 0 && freed < pages) {
        this.#kernel.free(list.popHead(), order);
        freed += 1 << order;
      }
    });
    this.#recalledPages -= freed;
    return freed;
  }

  // Compaction.

  migrate(from: number, to: number): boolean {
    // A page on its way is named in a list that the host may be reading: it stays where it is.
    if (!this.movable || this.#flags[from] !== BALLOONED) return false;
    this.#lists[0].remove(from);
    this.#resting--;
    this.#flags[from] = LEAVING;
    this.#flags[to] = ARRIVING;
    this.#index[to] = from;
    this.#arrivals.pushTail(to);
    // Until the host knows the new page, the old one is still the balloon's.
    this.#leaving++;
    this.onMove();
    return true;
  }

  /**
   * Gives every page back, wherever it stands. Only when no device looks at any of them any more: it was reset, or is
   * gone. `inFlight` are the batches that were on their way.
   */
  abandon(inFlight: Iterable<Batch>): void {
    for (const batch of inFlight) {
      batch.forEach((pfn, order) => {
        if (this.#flags[pfn] === ARRIVING) this.#depart(this.#index[pfn]);
        this.#kernel.free(pfn, order);
      });
      batch.clear();
    }
    for (let pfn = this.#arrivals.popHead(); pfn !== NIL; pfn = this.#arrivals.popHead()) {
      this.#depart(this.#index[pfn]);
      this.#kernel.free(pfn, 0);
    }
    this.#lists.forEach((list, order) => {
      for (let pfn = list.popHead(); pfn !== NIL; pfn = list.popHead()) this.#kernel.free(pfn, order);
    });
    this.freeRecalled(this.#recalledPages);
    for (let pfn = this.#departures.popHead(); pfn !== NIL; pfn = this.#departures.popHead()) {
      this.#kernel.free(pfn, 0);
    }
    if (this.#unmanaged) this.#kernel.adjustManaged(this.actual);
    this.#resting = 0;
    this.#leaving = 0;
    this.inflating = 0;
    this.deflating = 0;
    this.actual = 0;
    this.movable = false;
    this.#kernel.removeOwner(this.#owner);
  }

  /** Visits the ballooned blocks, largest first. */
  forEach(visit: (pfn: number, order: number) => void): void {
    for (let order = ORDERS - 1; order >= 0; order--) for (const pfn of this.#lists[order]) visit(pfn, order);
  }

  #rest(pfn: number, order: number): void {
    this.#lists[order].pushHead(pfn);
    this.#resting += 1 << order;
  }

  /** A guest that was saved goes on here: what was in the balloon, wherever it stood, is recalled. */
  #adopt(saved: SavedPages): void {
    saved.forEachOwned(this.#owner, (pfn, order) => this.#keepRecalled(pfn, order));
    // The balloon of the former host counts no more, and only a balloon takes pages out of this figure.
    this.#kernel.adjustManaged(saved.unmanagedPages);
  }

  /** A guest that was saved when nothing was on its way goes on at a host that has the last one's account. */
  #keepBallooned(saved: SavedPages): void {
    saved.forEachOwned(this.#owner, (pfn, order) => {
      if (this.#flags[pfn] === RECALLED) {
        this.#keepRecalled(pfn, order);
      } else if (this.#flags[pfn] === BALLOONED) {
        this.#rest(pfn, order);
        this.actual += 1 << order;
      } else {
        throw new DriverStateError(`frame ${pfn} of its balloon is on its way`);
      }
    });
    const missing = saved.unmanagedPages;
    if (missing !== (this.#unmanaged ? this.actual : 0)) {
      throw new DriverStateError(`its balloon has ${this.actual} pages, and its guest lacks ${missing}`);
    }
  }

  #keepRecalled(pfn: number, order: number): void {
    this.#flags[pfn] = RECALLED;
    this.#recalled[order].pushTail(pfn);
    this.#recalledPages += 1 << order;
  }

  #recallBlock(pfn: number, order: number): void {
    const pages = 1 << order;
    this.#lists[order].remove(pfn);
    this.zeros.forget(pfn, pages);
    this.#resting -= pages;
    this.#grow(-pages);
    this.#keepRecalled(pfn, order);
  }

  /** The host knows of so many pages more. */
  #grow(pages: number): void {
    this.actual += pages;
    if (this.#unmanaged) this.#kernel.adjustManaged(-pages);
  }

  #depart(pfn: number): void {
    this.#departures.pushTail(pfn);
  }

  #dismissBlock(batch: Batch, pfn: number, order: number): void {
    this.#lists[order].remove(pfn);
    this.#resting -= 1 << order;
    this.#flags[pfn] = DEFLATING;
    this.deflating += 1 << order;
    batch.add(pfn, order);
  }

  /** Makes single pages of the first block of `list`. */
  #open(list: LinkedPages, order: number, singles: LinkedPages): void {
    const pfn = list.popHead();
    this.#kernel.split(pfn, order);
    // Backwards, so that the pages are taken in rising order.
    for (let page = pfn + (1 << order) - 1; page >= pfn; page--) singles.pushHead(page);
  }
}
