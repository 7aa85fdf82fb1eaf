/**
 * Writes to memory that is free and frees it again, so that the host backs it though the guest does not need
 * it: the state that ballooning and free page reporting are there to mend.
 */
import type { KernelCore } from '../kernel-core.ts';
import { PROCESS_PAGES_MAX, type Process } from '../process.ts';
import { SavedGuestError, type StateReader, type StateWriter } from '../saved-state.ts';
import type { Workload } from './workload.ts';

export interface TouchSpec {
  readonly kind: 'touch';
  /** Pages to touch; all that are free above the watermarks unless said otherwise. */
  readonly pages?: number;
}

export class Touch implements Workload {
  readonly kind = 'touch';
  readonly #kernel: KernelCore;
  readonly #process: Process;
  /** Pages to touch, and how many were, and how many of these are freed again. */
  #pages: number;
  #touched = 0;
  #freed = 0;

  constructor(kernel: KernelCore, { pages = PROCESS_PAGES_MAX }: TouchSpec, process?: Process) {
    this.#kernel = kernel;
    this.#process = process ?? kernel.spawn('touch', { coverage: 'edges' });
    this.#pages = pages;
  }

  get done(): boolean {
    return this.#process.state !== 'running';
  }

  step(n: number): number {
    let used = 0;
    while (used < n && !this.done) {
      if (this.#touched < this.#pages) {
        if (this.#hasRoom() && this.#process.write(this.#touched)) this.#touched++;
        else this.#pages = this.#touched;
      } else if (this.#freed < this.#touched) {
        this.#process.verify(this.#freed);
        this.#process.unmap(this.#freed++);
      } else {
        this.stop();
        return used;
      }
      used++;
    }
    return used;
  }

  /** It takes what is free and no more: no cache is reclaimed for it. */
  #hasRoom(): boolean {
    return this.#kernel.allocator.hasRoom();
  }

  stop(): void {
    this.#process.exit();
    this.#kernel.allocator.drainPerCpu();
  }

  save(into: StateWriter): void {
    into.u32(this.#process.pid);
    into.u32(this.#pages);
    into.u32(this.#touched);
    into.u32(this.#freed);
  }

  static restore(kernel: KernelCore, from: StateReader): Touch {
    const process = kernel.processes.get(from.u32('the touching process'));
    if (process === undefined) throw new SavedGuestError('the touching process is missing');
    const pages = from.u32('pages to touch', PROCESS_PAGES_MAX);
    const touch = new Touch(kernel, { kind: 'touch', pages }, process);
    touch.#touched = from.u32('pages touched', pages);
    touch.#freed = from.u32('pages freed', touch.#touched);
    return touch;
  }
}
