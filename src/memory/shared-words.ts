/**
 * 32-bit words of guest memory that guest and host both change, each by atomic operations: the processor orders them, in
 * one process or in two that map the same file. What the words mean is their users'. A word is looked up for every
 * operation, because regions come and go; none of them is ever handed out as a view.
 */
import { WINDOW_BYTES } from './backing.ts';
import { type GuestMemory, MemoryAccessError } from './guest-memory.ts';

export const WORD_BYTES = 4;

export class SharedWords {
  readonly address: number;
  readonly count: number;
  readonly #memory: GuestMemory;
  // Where #find found a word: fields, because returning both would allocate for every operation.
  #view: Int32Array = new Int32Array(0);
  #at = 0;

  /** @throws MemoryAccessError when `count` words from `address` on are not all guest memory, or not aligned */
  constructor(memory: GuestMemory, address: number, count: number) {
    const bytes = count * WORD_BYTES;
    if (address % WORD_BYTES !== 0 || !memory.contains(address, bytes))
      throw new MemoryAccessError(address, bytes);
    this.#memory = memory;
    this.address = address;
    this.count = count;
  }

  load(index: number): number {
    this.#find(index);
    return Atomics.load(this.#view, this.#at);
  }

  /** Puts `next` in place of `expected`, and of nothing else; whether it did. */
  replace(index: number, expected: number, next: number): boolean {
    this.#find(index);
    if (Atomics.compareExchange(this.#view, this.#at, expected, next) !== expected) return false;
    this.#log(index);
    return true;
  }

  add(index: number, count: number): void {
    this.#find(index);
    Atomics.add(this.#view, this.#at, count);
    this.#log(index);
  }

  #log(index: number): void {
    const { log } = this.#memory;
    if (log !== undefined) log.written(this.address + index * WORD_BYTES, WORD_BYTES);
  }

  #find(index: number): void {
    const gpa = this.address + index * WORD_BYTES;
    const region = index < this.count ? this.#memory.find(gpa) : undefined;
    if (region === undefined) throw new MemoryAccessError(gpa, WORD_BYTES);
    const offset = gpa - region.guestAddress;
    this.#view = region.windowAt(offset).i32;
    this.#at = (offset % WINDOW_BYTES) >>> 2;
  }
}
