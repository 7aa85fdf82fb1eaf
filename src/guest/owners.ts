/** Who owns allocated pages: whom compaction asks, and who gets which pages back in a guest that was restored. */
import { assert } from '../sys/error.ts';

/** The owner of pages that can be moved. It sees its pages by page frame number. */
export interface PageOwner {
  readonly name: string;
  /**
   * Offers `to`, a fresh allocated page, in place of `from`. Returns whether the owner took it: then `to` is
   * its page (owner, flags and index are already copied, not the links) and `from` is still allocated, for
   * the owner to free: at once, or when it may (a balloon waits for the host to acknowledge the deflate).
   * Absent: the pages never move.
   */
  migrate?(from: number, to: number): boolean;
  /** Whether the bytes of a page matter and are copied before `migrate`; a balloon's do not. */
  readonly contents: 'kept' | 'none';
}

/** Owner ids are 16 bits wide. */
const OWNERS_MAX = 2 ** 16;

/** Keeps the place of an owner in a guest that was just restored. Its pages stay where they are. */
class AbsentOwner implements PageOwner {
  readonly name: string;
  readonly contents = 'kept';

  constructor(name: string) {
    this.name = name;
  }
}

export class PageOwners {
  /** By id; 0 means no owner. */
  readonly #owners: (PageOwner | undefined)[] = [undefined];

  /**
   * Registers an owner and returns its id. Ids of owners that left are used again. In a guest that was
   * restored, an owner by the name of one that was saved gets its id, and with it its pages.
   */
  add(owner: PageOwner): number {
    const saved = this.#owners.findIndex(other => other !== undefined && other.name === owner.name);
    if (saved > 0) {
      assert(this.#owners[saved] instanceof AbsentOwner, `two owners of pages by the name of ${owner.name}`);
      this.#owners[saved] = owner;
      return saved;
    }
    const vacant = this.#owners.indexOf(undefined, 1);
    const id = vacant < 0 ? this.#owners.length : vacant;
    assert(id < OWNERS_MAX, 'too many owners of pages');
    this.#owners[id] = owner;
    return id;
  }

  /** Forgets an owner, which has no pages left. */
  remove(id: number): void {
    assert(id > 0 && this.#owners[id] !== undefined, `no page owner ${id}`);
    this.#owners[id] = undefined;
  }

  get(id: number): PageOwner | undefined {
    return this.#owners[id];
  }

  /** Names by id; empty where there is no owner. */
  get names(): readonly string[] {
    return this.#owners.map(owner => owner?.name ?? '');
  }

  /** Keeps the ids of owners that were saved until they come back through {@link add}. */
  expect(names: readonly string[]): void {
    for (let id = 1; id < names.length; id++) {
      const present = this.#owners[id];
      if (present === undefined) this.#owners[id] = names[id] === '' ? undefined : new AbsentOwner(names[id]);
      else assert(present.name === names[id], `page owner ${id} is ${present.name}, not ${names[id]}`);
    }
  }
}
