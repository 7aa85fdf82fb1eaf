/**
 * What a simulated host may believe of free page hints. A page that is named in a session has been free at some moment
 * since the session was announced: whatever it held at the announcement is of no value then, and a migration may skip
 * it. The witness notes what is in use at the announcement, strikes out what the guest frees, and looks at every page
 * that the device takes for unused.
 */
import { HINTS_OWNER } from '../driver/former-driver.ts';
import type { GuestKernel } from '../guest/kernel.ts';
import { KIND_ALLOCATED, KIND_MASK } from '../guest/page-state.ts';
import { type PageSink, PFN_LIMIT } from '../memory/page.ts';
import { PageSet } from '../memory/page-set.ts';

export class HintWitness implements PageSink {
  readonly #kernel: GuestKernel;
  readonly #complain: (what: string) => void;
  /** In use ever since the newest session was announced. */
  readonly #inUse = new PageSet(PFN_LIMIT);

  constructor(kernel: GuestKernel, complain: (what: string) => void) {
    this.#kernel = kernel;
    this.#complain = complain;
    const { allocator } = kernel;
    // Every page that becomes free comes by here.
    const free = allocator.free.bind(allocator);
    allocator.free = (pfn, order) => {
      this.#inUse.delete(pfn, 1 << order);
      free(pfn, order);
    };
  }

  /** A session is about to be announced. */
  begin(): void {
    const { allocator, pages } = this.#kernel;
    this.#inUse.clear();
    for (const { start, end } of allocator.spans) {
      for (let pfn = start; pfn < end; ) {
        const count = pages.state[pfn] === 0 ? 1 : 2 ** allocator.orderOf(pfn);
        const isAllocated = (pages.state[pfn] & KIND_MASK) === KIND_ALLOCATED;
        // What is kept for an older session is as good as free.
        if (isAllocated && allocator.ownerOf(pfn)?.name !== HINTS_OWNER) this.#inUse.add(pfn, count);
        pfn += count;
      }
    }
  }

  /** The device takes these pages for unused. */
  add(pfn: number, count: number): void {
    for (let page = pfn; page < pfn + count; page++) {
      if (!this.#inUse.has(page)) continue;
      this.#complain(`frame ${page} counts as unused, and was in use since before its session`);
      return;
    }
  }
}
