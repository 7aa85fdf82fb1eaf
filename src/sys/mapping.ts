/**
 * Memory of this process that is not V8's: shared windows on files, and small arenas for what the kernel
 * reads through nested pointers. V8 moves small typed arrays when it collects, so an iovec must never
 * point into one; an arena stays where it is.
 */
import { assert } from './error.ts';
import { check, libc, viewNative } from './libc.ts';

const PROT_READ = 0x1;
const PROT_WRITE = 0x2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;

/** koffi.view aborts Node 20 above 4 GiB; a quarter of that leaves room and wastes nothing. */
export const MAPPING_BYTES_MAX = 2 ** 30;

/**
 * A run of mapped bytes and its typed views. `close` replaces the pages by untouched anonymous ones and
 * unmaps them only when no view is left: a view that outlives its mapping reads zeros where an unmapped
 * address would end the process.
 */
export class Mapping {
  readonly address: number;
  readonly length: number;
  readonly buffer: ArrayBuffer;
  #open = true;

  private constructor(address: number, length: number) {
    this.address = address;
    this.length = length;
    this.buffer = viewNative(address, length);
    unmapWhenUnreachable.register(this.buffer, { address, length });
  }

  /**
   * Maps `length` bytes of `fd` from `offset` (both in bytes, page aligned), shared, for reading and writing. With
   * `reserve` the kernel sets aside the huge pages that the file has not got there yet.
   * @throws SystemError when the kernel refuses; ENOMEM when the pool has too few huge pages
   */
  static shared(
    fd: number,
    offset: number,
    length: number,
    { reserve = false }: { readonly reserve?: boolean } = {},
  ): Mapping {
    assert(length > 0 && length <= MAPPING_BYTES_MAX, `a mapping of ${length} bytes`);
    const flags = reserve ? MAP_SHARED : MAP_SHARED | MAP_NORESERVE;
    const address = libc.mmap(0, length, PROT_READ | PROT_WRITE, flags, fd, offset);
    check('mmap', address, `${length} bytes at offset ${offset} of descriptor ${fd}`);
    return new Mapping(address, length);
  }

  /** Maps `length` zeroed bytes that only this process sees. */
  static anonymous(length: number): Mapping {
    assert(length > 0 && length <= MAPPING_BYTES_MAX, `a mapping of ${length} bytes`);
    const address = libc.mmap(
      0,
      length,
      PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
      -1,
      0,
    );
    check('mmap', address, `${length} anonymous bytes`);
    return new Mapping(address, length);
  }

  get open(): boolean {
    return this.#open;
  }

  /** Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    check('mmap', libc.mmap(this.address, this.length, PROT_READ | PROT_WRITE, flags, -1, 0));
  }
}

/**
 * Sets pages of the pool aside for the first `length` bytes of a hugetlbfs file, for as long as it keeps them.
 * Without that a write to the file when the pool is empty ends the process.
 * @throws SystemError ENOMEM when the pool has too few
 */
export function reserveHugePages(fd: number, length: number): void {
  const address = libc.mmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  check('mmap', address, `${length} bytes of huge pages; raise the host's pool (vm.nr_hugepages)`);
  libc.munmap(address, length);
}

const unmapWhenUnreachable = new FinalizationRegistry<{ address: number; length: number }>(
  ({ address, length }) => {
    libc.munmap(address, length);
  },
);

/** Native scratch memory with a fixed address, for structures that the kernel follows pointers into. */
export class Arena {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly #mapping: Mapping;

  constructor(length: number) {
    this.#mapping = Mapping.anonymous(length);
    this.address = this.#mapping.address;
    this.bytes = new Uint8Array(this.#mapping.buffer);
    this.view = new DataView(this.#mapping.buffer);
  }

  close(): void {
    this.#mapping.close();
  }
}

/**
 * Asks which pages of a file are in memory, a run of them at a time, without touching any. Where SEEK_HOLE takes as long
 * as it takes to the next hole, and under the file's lock, which punching a hole needs as well, this ends where it is
 * told to and locks nothing.
 */
export class ResidentPages {
  /** A byte a page of the last {@link ask}; its lowest bit says whether the page is in memory (mincore(2)). */
  readonly bytes: Uint8Array;
  readonly #arena: Arena;

  /** For so many pages at a time at most. */
  constructor(pages: number) {
    this.#arena = new Arena(pages);
    this.bytes = this.#arena.bytes;
  }

  /**
   * `length` bytes from `offset`, both multiples of the page size. The descriptor has to be open for writing: of a file
   * that one may only read, the kernel says that it is in memory, all of it.
   * @throws SystemError when the kernel refuses
   */
  ask(fd: number, offset: number, length: number): void {
    const address = libc.mmap(0, length, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, offset);
    check('mmap', address, `${length} bytes at offset ${offset} of descriptor ${fd}`);
    try {
      check('mincore', libc.mincore(address, length, this.#arena.address));
    } finally {
      libc.munmap(address, length);
    }
  }
}
