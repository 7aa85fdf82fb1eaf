/** Reads a file from its first page to its last: it fills the page cache, and leaves it full. */
import type { KernelCore } from '../kernel-core.ts';
import { type CachedFile, FILE_PAGES_MAX, FILES_MAX } from '../page-cache.ts';
import { SavedGuestError, type StateReader, type StateWriter } from '../saved-state.ts';
import type { Workload } from './workload.ts';

export interface ReadSpec {
  readonly kind: 'read';
  /** Size of the file. Several files make a cache of more than 4 GiB. */
  readonly pages: number;
}

export class Read implements Workload {
  readonly kind = 'read';
  readonly #kernel: KernelCore;
  readonly #file: CachedFile;
  #at = 0;

  constructor(kernel: KernelCore, { pages }: ReadSpec, file?: CachedFile) {
    this.#kernel = kernel;
    this.#file = file ?? kernel.cache.create(pages);
  }

  get done(): boolean {
    return this.#at >= this.#file.pages;
  }

  step(n: number): number {
    let used = 0;
    for (; used < n && !this.done; used++) {
      if (!this.#kernel.cache.read(this.#file, this.#at)) break;
      this.#at++;
    }
    return used;
  }

  /** Deletes the file, and with it what is cached of it. */
  stop(): void {
    this.#at = this.#file.pages;
    if (this.#kernel.cache.file(this.#file.id) === this.#file) this.#kernel.cache.delete(this.#file);
  }

  save(into: StateWriter): void {
    into.u32(this.#file.id);
    into.u32(this.#at);
  }

  static restore(kernel: KernelCore, from: StateReader): Read {
    const file = kernel.cache.file(from.u32('the file to read', FILES_MAX - 1));
    if (file === undefined) throw new SavedGuestError('the file to read is missing');
    const read = new Read(kernel, { kind: 'read', pages: file.pages }, file);
    read.#at = from.u32('pages read', FILE_PAGES_MAX);
    return read;
  }
}
