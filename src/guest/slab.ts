/**
 * Objects that the kernel keeps because they might be wanted again (dentries, inodes): reclaimable pages that
 * no page cache owns and that cannot move, given back by a shrinker.
 */
import type { PageOwner, Shrinker } from '../memory/kernel-memory.ts';
import { LinkedPages } from '../memory/linked-pages.ts';
import { NIL } from '../memory/page-blocks.ts';
import { type Coverage, checkContents, stamp } from './contents.ts';
import type { PageSupply } from './frame-allocator.ts';
import { GFP_RECLAIMABLE } from './gfp.ts';
import type { PageAccess } from './page-access.ts';
import { KIND_ALLOCATED, type PageState } from './page-state.ts';
import { SavedGuestError, type StateReader, type StateWriter } from './saved-state.ts';

/** What slab pages are stamped with: a process id that no process gets. */
const SLAB_TAG = 0x7fffffff;

export class Slab implements PageOwner, Shrinker {
  readonly name = 'slab';
  readonly contents = 'kept';
  readonly #list: LinkedPages;
  readonly #owner: number;
  readonly #supply: PageSupply;
  readonly #access: PageAccess;
  readonly #coverage: Coverage;
  readonly #index: Uint32Array;
  #grown = 0;

  constructor(supply: PageSupply, pages: PageState, access: PageAccess, coverage: Coverage) {
    this.#list = new LinkedPages(pages);
    this.#supply = supply;
    this.#access = access;
    this.#coverage = coverage;
    this.#index = pages.index;
    this.#owner = supply.addOwner(this);
  }

  get pages(): number {
    return this.#list.length;
  }

  /** Allocates one more page; false if there is no memory for it. */
  grow(): boolean {
    const pfn = this.#supply.allocate(0, GFP_RECLAIMABLE);
    if (pfn === NIL) return false;
    const index = this.#grown++ >>> 0;
    this.#supply.own(pfn, this.#owner, index);
    stamp(this.#access, pfn, SLAB_TAG, index, 0, this.#coverage);
    this.#list.pushHead(pfn);
    return true;
  }

  count(): number {
    return this.#list.length;
  }

  scan(count: number): number {
    let freed = 0;
    for (; freed < count; freed++) {
      const pfn = this.#list.popTail();
      if (pfn === NIL) break;
      this.#check(pfn);
      this.#supply.free(pfn, 0);
    }
    return freed;
  }

  /** Checks every page; returns how many. */
  verify(): number {
    for (const pfn of this.#list) this.#check(pfn);
    return this.#list.length;
  }

  save(into: StateWriter): void {
    into.integer(this.#grown);
    into.array(this.#list.toArray());
  }

  /** Goes on from what {@link save} wrote, in a slab that is still empty. */
  load(from: StateReader, pages: PageState): void {
    this.#grown = from.integer('pages of the slab so far');
    const seen = new Set<number>();
    for (const pfn of from.array('the slab', pages.length)) {
      if (pages.state[pfn] !== KIND_ALLOCATED || pages.owner[pfn] !== this.#owner || seen.has(pfn)) {
        throw new SavedGuestError(`frame ${pfn} cannot be in the slab`);
      }
      seen.add(pfn);
      this.#list.pushTail(pfn);
    }
  }

  #check(pfn: number): void {
    checkContents(this.#access, pfn, SLAB_TAG, this.#index[pfn], 0, this.#coverage);
  }
}
