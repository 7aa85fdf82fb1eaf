/**
 * What a region of guest memory is made of, how its bytes are read and written, and how its pages go back to the host. A
 * backing knows bytes and offsets; it knows nothing of guest addresses, of balloons, or of what uses it. Memory of this
 * process alone is here, memory that is a file in `file-backing.ts`.
 *
 * The rule of giving back differs by kind: shared files are punched (madvise(MADV_DONTNEED) frees nothing of them),
 * anonymous memory is dropped by madvise, and hugetlbfs gives back whole huge pages only.
 */

import { assert } from '../sys/error.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { discardAnonymous } from '../sys/file.ts';
import { MAPPING_BYTES_MAX, Mapping } from '../sys/mapping.ts';
import { PAGE_SIZE } from './page.ts';

/** Bytes that one window covers; windows are mapped where rings and lists lie, not for all of memory. */
export const WINDOW_BYTES = MAPPING_BYTES_MAX;

/** Who is told of memory of which pages come from elsewhere: see arriving-memory.ts. */
export interface ArrivingPages {
  /** `length` bytes from `offset` on of the memory are mapped at `address`. */
  mapped(address: number, length: number, offset: number): void;
  /** The guest gives those bytes away: what comes of them later is dropped. */
  forget(offset: number, length: number): void;
}

/** Typed views of one stretch of memory. */
export class Window {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;

  constructor(buffer: ArrayBuffer | SharedArrayBuffer, offset: number, length: number) {
    this.u8 = new Uint8Array(buffer, offset, length);
    this.u16 = new Uint16Array(buffer, offset, length >>> 1);
    this.u32 = new Uint32Array(buffer, offset, length >>> 2);
    this.i32 = new Int32Array(buffer, offset, length >>> 2);
  }
}

export type BackingKind = 'shmem' | 'hugetlb' | 'anonymous' | 'heap';

/** The file that memory is a part of; other processes can have it, too. */
export interface MemoryFile {
  readonly fd: OwnedFd;
  /** Where the memory starts in the file, in bytes. */
  readonly fileOffset: number;
  /** Two files with the same identity are the same file. */
  readonly identity: string;
  /** No process can shrink the file under us any more; where false, a front-end that does ends this process. */
  readonly sealed: boolean;
  /** The file is on a disk: its resident bytes are blocks there, and not what of it is in the page cache. */
  readonly onDisk: boolean;
  /** The largest pages that the host may hold it in: a part of one can be given back, and is split off then. */
  readonly hugePageBytes: number;
}

export interface Backing {
  readonly kind: BackingKind;
  /** Bytes. */
  readonly size: number;
  /** The unit in which the host can take memory back, in bytes: 4 KiB, or the huge page size. */
  readonly discardUnit: number;
  /** What it is a part of; undefined for memory that only this process has. */
  readonly file: MemoryFile | undefined;
  /** While pages of it come from elsewhere. Set before a window is asked for. */
  arriving: ArrivingPages | undefined;
  /** Window number `index` ({@link WINDOW_BYTES} each); maps it on first use. */
  window(index: number): Window;
  /** Where that is mapped in this process; undefined for memory without an address. */
  addressOf(index: number): number | undefined;
  /** Copies `length` bytes from `offset` into `into` at `at`. The host backs no page that it did not back before. */
  read(offset: number, into: Uint8Array, at: number, length: number): void;
  /** Copies `length` bytes of `from` at `at` to `offset`. */
  write(offset: number, from: Uint8Array, at: number, length: number): void;
  /** Gives bytes back to the host; both arguments are multiples of {@link discardUnit}. They read as 0 then. */
  discard(offset: number, length: number): void;
  /** Gives bytes back to the host as far as its units allow, and zeroes the rest. They read as 0 then. */
  clear(offset: number, length: number): void;
  /**
   * Visits the stretches of [offset, offset + length) that the host backs with memory; the others read as zeros and were
   * never written, or were discarded. Memory that is no file counts as backed.
   */
  forEachBacked(offset: number, length: number, visit: (offset: number, length: number) => void): void;
  /** Bytes that the host holds for this backing right now (of the whole file, where several share one). */
  residentBytes(): number;
  close(): void;
}

/** Memory that is read and written through its windows. */
export abstract class WindowedBacking implements Backing {
  abstract readonly kind: BackingKind;
  abstract readonly size: number;
  abstract readonly discardUnit: number;
  arriving: ArrivingPages | undefined;
  abstract window(index: number): Window;
  abstract discard(offset: number, length: number): void;
  abstract residentBytes(): number;
  abstract close(): void;

  get file(): MemoryFile | undefined {
    return undefined;
  }

  addressOf(_index: number): number | undefined {
    return undefined;
  }

  read(offset: number, into: Uint8Array, at: number, length: number): void {
    this.#forEachPart(offset, length, (bytes, done) => into.set(bytes, at + done));
  }

  write(offset: number, from: Uint8Array, at: number, length: number): void {
    this.#forEachPart(offset, length, (bytes, done) =>
      bytes.set(from.subarray(at + done, at + done + bytes.length)),
    );
  }

  clear(offset: number, length: number): void {
    const end = offset + length;
    const low = Math.min(end, Math.ceil(offset / this.discardUnit) * this.discardUnit);
    const high = Math.max(low, Math.floor(end / this.discardUnit) * this.discardUnit);
    if (high > low) this.discard(low, high - low);
    this.#forEachPart(offset, low - offset, bytes => bytes.fill(0));
    this.#forEachPart(high, end - high, bytes => bytes.fill(0));
  }

  forEachBacked(offset: number, length: number, visit: (offset: number, length: number) => void): void {
    visit(offset, length);
  }

  /** Visits the bytes of [offset, offset + length), window by window, with how many came before. */
  #forEachPart(offset: number, length: number, visit: (bytes: Uint8Array, done: number) => void): void {
    for (let done = 0; done < length; ) {
      const within = (offset + done) % WINDOW_BYTES;
      const part = Math.min(length - done, WINDOW_BYTES - within);
      const { u8 } = this.window(Math.floor((offset + done) / WINDOW_BYTES));
      visit(u8.subarray(within, within + part), done);
      done += part;
    }
  }
}

/** Anonymous memory of this process; only threads of it can be its guest. */
export class AnonymousBacking extends WindowedBacking {
  readonly kind = 'anonymous';
  readonly discardUnit = PAGE_SIZE;
  readonly size: number;
  readonly #windows: { mapping: Mapping; window: Window }[] = [];

  constructor(size: number) {
    super();
    this.size = size;
    for (let start = 0; start < size; start += WINDOW_BYTES) {
      const mapping = Mapping.anonymous(Math.min(WINDOW_BYTES, size - start));
      this.#windows.push({ mapping, window: new Window(mapping.buffer, mapping.offset, mapping.length) });
    }
  }

  window(index: number): Window {
    return this.#windows[index].window;
  }

  override addressOf(index: number): number {
    return this.#windows[index].mapping.address;
  }

  discard(offset: number, length: number): void {
    const end = offset + length;
    while (offset < end) {
      const { mapping } = this.#windows[Math.floor(offset / WINDOW_BYTES)];
      const within = offset % WINDOW_BYTES;
      const part = Math.min(end - offset, WINDOW_BYTES - within);
      discardAnonymous(mapping.address + within, part);
      offset += part;
    }
  }

  /** The kernel tells this only per process, so it is not known: NaN. */
  residentBytes(): number {
    return Number.NaN;
  }

  close(): void {
    for (const { mapping } of this.#windows) mapping.close();
    this.#windows.length = 0;
  }
}

/** Memory on the JavaScript heap, for simulations: discarding zeroes, and what is resident is counted. */
export class HeapBacking extends WindowedBacking {
  readonly kind = 'heap';
  readonly size: number;
  readonly discardUnit: number;
  readonly #window: Window;

  /** @throws InvariantError above {@link WINDOW_BYTES}; simulations have small guests */
  constructor(size: number, discardUnit = PAGE_SIZE) {
    super();
    assert(size <= WINDOW_BYTES, `${size} bytes of guest memory on the heap`);
    this.size = size;
    this.discardUnit = discardUnit;
    this.#window = new Window(new ArrayBuffer(size), 0, size);
  }

  window(): Window {
    return this.#window;
  }

  discard(offset: number, length: number): void {
    this.#window.u8.fill(0, offset, offset + length);
  }

  /** Bytes of the units that hold anything but zeros. */
  residentBytes(): number {
    let resident = 0;
    for (let offset = 0; offset < this.size; offset += this.discardUnit) {
      const unit = this.#window.u32.subarray(offset >>> 2, (offset + this.discardUnit) >>> 2);
      if (unit.some(word => word !== 0)) resident += this.discardUnit;
    }
    return resident;
  }

  close(): void {}
}
