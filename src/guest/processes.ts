/** The guest's processes by id, and how they are saved and come back with their pages. */
import { NIL } from '../memory/page-blocks.ts';
import { assert } from '../sys/error.ts';
import { forEachPart, type PageAllocator } from './allocator.ts';
import type { Coverage } from './contents.ts';
import { KIND_ALLOCATED, KIND_MASK, ORDER_MASK } from './page-state.ts';
import { PID_MAX, Process, type ProcessOptions, type ProcessServices } from './process.ts';
import { SavedGuestError, type StateReader, type StateWriter } from './saved-state.ts';

/** More cannot own pages: an owner's id has 16 bits. */
const PROCESSES_MAX = 2 ** 16;

export class Processes {
  readonly #byPid = new Map<number, Process>();
  readonly #services: ProcessServices;
  readonly #coverage: Coverage;
  #pidNext = 1;

  constructor(services: Omit<ProcessServices, 'ended'>, coverage: Coverage) {
    this.#services = { ...services, ended: process => this.#byPid.delete(process.pid) };
    this.#coverage = coverage;
  }

  [Symbol.iterator](): Iterator<Process> {
    return this.#byPid.values();
  }

  get(pid: number): Process | undefined {
    return this.#byPid.get(pid);
  }

  get count(): number {
    return this.#byPid.size;
  }

  spawn(command: string, options: Partial<Omit<ProcessOptions, 'command'>>): Process {
    assert(this.#pidNext < PID_MAX, 'no process ids are left');
    const process = new Process(
      this.#pidNext++,
      { coverage: this.#coverage, ...options, command },
      this.#services,
    );
    this.#byPid.set(process.pid, process);
    return process;
  }

  save(into: StateWriter): void {
    into.u32(this.#pidNext);
    into.u32(this.#byPid.size);
    for (const process of this) process.save(into);
  }

  /** Goes on from what {@link save} wrote; all processes together may reach over `extentMax` pages. */
  load(from: StateReader, allocator: PageAllocator, extentMax: number): void {
    this.#pidNext = from.u32('the next process id', PID_MAX);
    const count = from.u32('processes', PROCESSES_MAX);
    let extent = 0;
    for (let i = 0; i < count; i++) {
      const process = Process.restore(from, this.#services, extentMax - extent);
      if (process.pid >= this.#pidNext || this.#byPid.has(process.pid)) {
        throw new SavedGuestError(`process ${process.pid} cannot be`);
      }
      extent += process.extent;
      this.#byPid.set(process.pid, process);
    }
    this.#checkTables(allocator);
    for (const { start, end } of allocator.spans) {
      forEachPart(start, end, (from, to) => this.#adopt(allocator, from, to));
    }
  }

  /** Gives processes their pages among the frames from `start` to `end`. */
  #adopt(allocator: PageAllocator, start: number, end: number): void {
    const { index, owner: owners, state: states } = allocator.pages;
    // Most pages are whose the page before them is.
    let id = 0;
    let process: Process | undefined;
    for (let pfn = start; pfn < end; ) {
      const state = states[pfn];
      const order = state & ORDER_MASK;
      if ((state & KIND_MASK) === KIND_ALLOCATED) {
        if (owners[pfn] !== id) {
          id = owners[pfn];
          const owner = allocator.ownerOf(pfn);
          process = owner instanceof Process ? owner : undefined;
        }
        if (process !== undefined) {
          if (order > 0) throw new SavedGuestError(`${process.name} maps a block at frame ${pfn}`);
          process.adopt(index[pfn], pfn);
        }
      }
      pfn += state === 0 ? 1 : 1 << order;
    }
  }

  #checkTables({ pages }: PageAllocator): void {
    const seen = new Set<number>();
    for (const process of this) {
      for (const pfn of process.tables) {
        if (pfn === NIL) continue;
        if (pages.state[pfn] !== KIND_ALLOCATED || pages.owner[pfn] !== 0 || seen.has(pfn)) {
          throw new SavedGuestError(`frame ${pfn} cannot be a page table of ${process.name}`);
        }
        seen.add(pfn);
      }
    }
  }
}
