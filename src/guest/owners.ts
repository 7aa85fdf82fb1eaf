/** Who owns allocated pages: whom compaction asks, and who gets which pages back in a guest that was restored. */
import type { PageOwner } from '../memory/kernel-memory.ts';
import { assert } from '../sys/error.ts';

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

  /** An owner by this name was saved, and has not come back. */
  awaits(name: string): boolean {
    return this.#owners.some(owner => owner instanceof AbsentOwner && owner.name === name);
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
