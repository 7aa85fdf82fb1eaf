/**
 * Memory that a guest's programs want at the moment: one process that is as large as it was told last, and files that are
 * read round and round beside it. A guest that is told anew does not go on with what it was told before. What a burst
 * is, and who tells, is not known here.
 */
import type { KernelCore } from '../guest/kernel-core.ts';
import type { CachedFile } from '../guest/page-cache.ts';
import type { Process } from '../guest/process.ts';
import { NIL } from '../memory/page-blocks.ts';
import type { Task } from './processor.ts';
import { GuestMemoryError } from './tasks.ts';

const WANTER_NAME = 'want';
/** Pages between two turns of the kernel's own threads, which in a real guest have a processor to themselves. */
const TURN_PAGES = 256;

interface Wanted {
  readonly pages: number;
  /** Size of the file that is read, in pages; 0 for none. */
  readonly filePages: number;
  /** Pages of it that are read on. */
  readonly readPages: number;
}

export class Wants {
  readonly #kernel: KernelCore;
  #process: Process | undefined;
  /** Pages [0, #held) of the process are there. */
  #held = 0;
  #file: CachedFile | undefined;
  #readAt = 0;
  #latest: Task | undefined;

  constructor(kernel: KernelCore) {
    this.#kernel = kernel;
  }

  get heldPages(): number {
    return this.#held;
  }

  /** Done when all of it is there, or something else is wanted. Its step throws when the guest kills for it. */
  want(wanted: Wanted): Task {
    const { pages, filePages } = wanted;
    let left = filePages > 0 ? wanted.readPages : 0;
    this.#prepareFile(filePages);
    const isDone = () => this.#latest !== task || (this.#held === pages && left === 0);
    const task: Task = {
      get done() {
        return isDone();
      },
      step: most => {
        let used = 0;
        while (used < most && !isDone()) {
          const turn = Math.min(TURN_PAGES, most - used);
          let part = this.#resize(pages, turn);
          if (part < turn && left > 0) {
            const read = this.#read(Math.min(left, turn - part));
            // What found no memory is left out: files are read on when there is room.
            left = read === 0 ? 0 : left - read;
            part += read;
          }
          used += part;
          this.#kernel.runBackground();
          if (part === 0) break;
        }
        return used;
      },
    };
    this.#latest = task;
    return task;
  }

  #prepareFile(pages: number): void {
    if (this.#file?.pages === pages) return;
    if (this.#file !== undefined) this.#kernel.cache.delete(this.#file);
    this.#file = pages > 0 ? this.#kernel.cache.create(pages) : undefined;
    this.#readAt = 0;
  }

  /** Makes the process larger or smaller by up to `most` pages; returns by how many. */
  #resize(pages: number, most: number): number {
    const process = this.#living();
    const before = this.#held;
    const end = Math.min(pages, before + most);
    while (this.#held < end && process.write(this.#held)) this.#held++;
    if (process.state === 'killed') {
      this.#held = 0;
      this.#latest = undefined;
      throw new GuestMemoryError(process.name);
    }
    const least = Math.max(pages, before - most);
    while (this.#held > least) process.unmap(--this.#held);
    return Math.abs(this.#held - before);
  }

  #living(): Process {
    if (this.#process?.state === 'running') return this.#process;
    // One of a guest that came from elsewhere is the one.
    const found = [...this.#kernel.processes].find(
      ({ command, state }) => command === WANTER_NAME && state === 'running',
    );
    this.#process = found ?? this.#kernel.spawn(WANTER_NAME);
    this.#held = 0;
    while (this.#process.frameOf(this.#held) !== NIL) this.#held++;
    return this.#process;
  }

  #read(most: number): number {
    const { cache, allocator } = this.#kernel;
    const file = this.#file;
    let read = 0;
    for (; file !== undefined && read < most; read++) {
      // A page cache never kills: it reads where there is room, or a page of its own to give for it.
      if (!allocator.hasRoom() && cache.pages < TURN_PAGES) break;
      if (!cache.read(file, this.#readAt)) break;
      this.#readAt = (this.#readAt + 1) % file.pages;
    }
    return read;
  }
}
