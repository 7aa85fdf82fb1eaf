/**
 * Pages on their way into the balloon, or in it, that the host made zeros: the guest's allocator hears of them when they
 * come back, for nothing writes to them before. Another host knows nothing of them.
 */
import type { KernelMemory } from '../memory/kernel-memory.ts';
import { PageBitmap } from '../memory/page-bitmap.ts';

export class PromisedZeros {
  readonly #kernel: KernelMemory;
  /** Made when the first is promised: most hosts promise nothing. */
  #pages: PageBitmap | undefined;

  constructor(kernel: KernelMemory) {
    this.#kernel = kernel;
  }

  note(pfn: number): void {
    this.#pages ??= new PageBitmap(this.#kernel.pages.length);
    this.#pages.set(pfn, 1);
  }

  forget(pfn: number, count: number): void {
    this.#pages?.clear(pfn, count);
  }

  /** These pages were just freed. */
  handOn(pfn: number, count: number): void {
    this.#pages?.forEachRun((start, pages) => this.#kernel.zeroed?.note(start, pages), pfn, pfn + count);
    this.forget(pfn, count);
  }
}
