/**
 * Memory of this process that is not V8's: shared windows on files, and small arenas for what the kernel
 * reads through nested pointers. V8 moves small typed arrays when it collects, so an iovec must never
 * point into one; an arena stays where it is.
 */
import { assert } from './error.ts';
import { check, F_GET_SEALS, libc, TMPFS_MAGIC, viewNative } from './libc.ts';

const PROT_READ = 0x1;
const PROT_WRITE = 0x2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MAP_FIXED_NOREPLACE = 0x100000;
const MREMAP_MAYMOVE = 1;
const MREMAP_FIXED = 2;
const ANONYMOUS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

/** koffi.view aborts Node 20 above 4 GiB; a quarter of that leaves room and wastes nothing. */
export const MAPPING_BYTES_MAX = 2 ** 30;

/**
 * V8 counts mapped bytes that it is shown as garbage to be, and collects at once for every 64 MiB of them; those of a
 * shared buffer are not counted. So a mapping from this size on takes the place of bytes of such a buffer
 * (docs/decisions/0017-mapped-memory-in-shared-buffers.md).
 */
const COUNTED_BYTES_MAX = 2 ** 20;

/** From this size on the C library gives a buffer pages of its own, whatever it had before (mallopt(3)). */
const OWN_PAGES_BYTES = 2 ** 25;

/** The header that the C library puts before such a buffer, at the beginning of its first page. */
const OWN_PAGES_HEADER_BYTES = 16;

/** The low bits of a chunk's size, and the one that says that it was mapped for itself. */
const CHUNK_FLAGS = 7n;
const CHUNK_IS_MAPPED = 2n;

/** Huge pages of a file are mapped as such where its address allows it. */
const ALIGNMENT = 2 ** 21;

const PAGE_BYTES = 4096;

/**
 * So many that were closed wait for V8 to find that no view is left, which it does not hasten for them: those that come
 * then are counted, and it does. A process may have some ten thousand mappings, and a front-end may come and go without end.
 */
const CLOSED_MAX = 256;

let closedUncounted = 0;
const uncountedCollected = new FinalizationRegistry<void>(() => {
  closedUncounted--;
});

interface Place {
  readonly buffer: ArrayBuffer | SharedArrayBuffer;
  readonly offset: number;
  readonly address: number;
}

/**
 * Moves what was mapped into a shared buffer, with which it goes then. Undefined where that cannot be, and all is as it was.
 *
 * Only for a mapping that exists, and whose move does not fail: a kernel that is asked to map a file at a fixed place unmaps
 * what is there before it asks the file. Where that refuses, other threads map into the gap, and lose it with the buffer.
 */
function moveIntoBuffer(mapped: number, length: number, fd: number): Place | undefined {
  if (fd !== -1 && !isSharedMemory(fd)) return undefined;
  let buffer: SharedArrayBuffer;
  try {
    buffer = new SharedArrayBuffer(length + OWN_PAGES_BYTES);
  } catch {
    // A host that gives no more memory than it has.
    return undefined;
  }
  const begin = addressOf(buffer);
  if (!hasOwnPages(begin, buffer.byteLength)) return undefined;
  const address = Math.ceil(begin / ALIGNMENT) * ALIGNMENT;
  const moved = libc.mremap(mapped, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, address);
  if (moved === address) return { buffer, offset: address - begin, address };
  // There may be a gap now: it is filled before another thread finds it, and the buffer never goes.
  libc.mmap(address, length, PROT_READ | PROT_WRITE, ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  neverFreed.push(buffer);
  return undefined;
}

const neverFreed: SharedArrayBuffer[] = [];

const addressOf = (buffer: ArrayBuffer | SharedArrayBuffer): number =>
  libc.memcpy(new Uint8Array(buffer), null, 0) as number;

/** Whether the C library has mapped a buffer for itself, and will unmap just that: by its header, malloc_chunk of glibc. */
function hasOwnPages(begin: number, length: number): boolean {
  if (begin % PAGE_BYTES !== OWN_PAGES_HEADER_BYTES) return false;
  libc.memcpy(header, begin - header.byteLength, header.byteLength);
  const [size] = header;
  const bytes = size & ~CHUNK_FLAGS;
  return (
    (size & CHUNK_FLAGS) === CHUNK_IS_MAPPED && bytes >= BigInt(length) && bytes % BigInt(PAGE_BYTES) === 0n
  );
}

const header = new BigUint64Array(1);

/** Of shmem: memory of the pool of huge pages has other rules, and any other file its own. Both have seals. */
function isSharedMemory(fd: number): boolean {
  if (libc.fcntl(fd, F_GET_SEALS, 0) === -1) return false;
  return (
    libc.fstatfs(fd, addressOf(fileSystem)) === 0 &&
    new DataView(fileSystem).getUint32(0, true) === TMPFS_MAGIC
  );
}

/** A struct statfs, in bytes that V8 does not move. */
const fileSystem = new ArrayBuffer(256);

function map(length: number, flags: number, fd: number, fileOffset: number, what: string): Place {
  const mapped = libc.mmap(0, length, PROT_READ | PROT_WRITE, flags, fd, fileOffset) as number;
  check('mmap', mapped, what);
  const isCounted = length < COUNTED_BYTES_MAX || closedUncounted >= CLOSED_MAX;
  const uncounted = isCounted ? undefined : moveIntoBuffer(mapped, length, fd);
  if (uncounted !== undefined) return uncounted;
  const buffer = viewNative(mapped, length);
  unmapWhenUnreachable.register(buffer, { address: mapped, length });
  return { buffer, offset: 0, address: mapped };
}

/**
 * A run of mapped bytes and its typed views. `close` replaces the pages by untouched anonymous ones and
 * unmaps them only when no view is left: a view that outlives its mapping reads zeros where an unmapped
 * address would end the process.
 */
export class Mapping {
  readonly address: number;
  readonly length: number;
  readonly buffer: ArrayBuffer | SharedArrayBuffer;
  /** Where they begin in the buffer. */
  readonly offset: number;
  #open = true;

  private constructor({ buffer, offset, address }: Place, length: number) {
    this.address = address;
    this.length = length;
    this.buffer = buffer;
    this.offset = offset;
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
    const what = `${length} bytes at offset ${offset} of descriptor ${fd}`;
    return new Mapping(map(length, flags, fd, offset, what), length);
  }

  /** Maps `length` zeroed bytes that only this process sees. */
  static anonymous(length: number): Mapping {
    assert(length > 0 && length <= MAPPING_BYTES_MAX, `a mapping of ${length} bytes`);
    return new Mapping(map(length, ANONYMOUS, -1, 0, `${length} anonymous bytes`), length);
  }

  get open(): boolean {
    return this.#open;
  }

  /** Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    if (this.buffer instanceof SharedArrayBuffer) {
      closedUncounted++;
      uncountedCollected.register(this.buffer);
    }
    const flags = ANONYMOUS | MAP_FIXED;
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
    const { buffer, offset } = this.#mapping;
    this.bytes = new Uint8Array(buffer, offset, length);
    this.view = new DataView(buffer, offset, length);
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
