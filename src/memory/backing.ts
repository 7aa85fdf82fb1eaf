/**
 * What a region of guest memory is made of, and how its pages go back to the host. A backing knows bytes and
 * offsets; it knows nothing of guest addresses, of balloons, or of who uses it.
 *
 * The rule differs by kind: shared files are punched (madvise(MADV_DONTNEED) frees nothing of them),
 * anonymous memory is dropped by madvise, and hugetlbfs gives back whole huge pages only.
 */

import { descriptorKind, fileSystemType } from '../sys/descriptor-kind.ts';
import { AerostatError, assert } from '../sys/error.ts';
import type { OwnedFd } from '../sys/fd.ts';
import {
  adviseHugePages,
  discardAnonymous,
  fileStatus,
  fileSystem,
  isReadWrite,
  punchHole,
  sealAgainstShrinking,
} from '../sys/file.ts';
import { MAPPING_BYTES_MAX, Mapping } from '../sys/mapping.ts';
import { PAGE_SIZE } from './page.ts';

/** Bytes that one window covers; windows are mapped where rings and lists lie, not for all of memory. */
export const WINDOW_BYTES = MAPPING_BYTES_MAX;

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

export interface Backing {
  readonly kind: BackingKind;
  /** Bytes. */
  readonly size: number;
  /** The unit in which the host can take memory back, in bytes: 4 KiB, or the huge page size. */
  readonly discardUnit: number;
  /** Window number `index` ({@link WINDOW_BYTES} each); maps it on first use. */
  window(index: number): Window;
  /** Gives bytes back to the host; both arguments are multiples of {@link discardUnit}. They read as 0 then. */
  discard(offset: number, length: number): void;
  /** Bytes that the host holds for this backing right now (of the whole file, where several share one). */
  residentBytes(): number;
  close(): void;
}

/** Part of a file that somebody handed over as a descriptor: memfd, tmpfs or hugetlbfs. */
export class FileBacking implements Backing {
  readonly kind: BackingKind;
  readonly size: number;
  readonly discardUnit: number;
  /** Where the region starts in the file, in bytes. */
  readonly fileOffset: number;
  /** Nobody can shrink the file under us any more; where false, a front-end that does ends this process. */
  readonly sealed: boolean;
  /** The file is on a disk: its resident bytes are blocks there, and not what of it is in the page cache. */
  readonly onDisk: boolean;
  readonly fd: OwnedFd;
  /** Two backings with the same identity show the same file. */
  readonly identity: string;
  readonly #adviseHugePages: boolean;
  readonly #mappings = new Map<number, { mapping: Mapping; window: Window }>();

  /**
   * Takes ownership of `fd`, also when it throws. With `adviseHugePages` its windows ask for transparent huge
   * pages.
   * @throws AerostatError AEROSTAT_REGION_FILE when the descriptor is no file that holds the whole region
   */
  constructor(
    fd: OwnedFd,
    fileOffset: number,
    size: number,
    options: { readonly adviseHugePages?: boolean } = {},
  ) {
    try {
      const stranger = faultOfKind(fd);
      if (stranger !== undefined) throw regionFileError(stranger);
      const status = fileStatus(fd);
      const system = fileSystem(fd);
      const unit = system.kind === 'hugetlbfs' ? system.blockSize : PAGE_SIZE;
      const fault = faultOf(status, isReadWrite(fd), unit, fileOffset, size);
      if (fault !== undefined) throw regionFileError(fault);
      this.kind = system.kind === 'hugetlbfs' ? 'hugetlb' : 'shmem';
      this.discardUnit = unit;
      this.onDisk = system.kind === 'other';
      this.sealed = sealAgainstShrinking(fd);
      // Its owner may have shrunk it since it was measured, and the seal would keep it so.
      const shrunk = faultOfSize(fileStatus(fd).size, fileOffset, size);
      if (shrunk !== undefined) throw regionFileError(shrunk);
      this.identity = status.identity;
    } catch (error) {
      fd.close();
      throw error;
    }
    this.fd = fd;
    this.fileOffset = fileOffset;
    this.size = size;
    this.#adviseHugePages = options.adviseHugePages ?? false;
  }

  window(index: number): Window {
    const known = this.#mappings.get(index);
    if (known !== undefined) return known.window;
    const start = index * WINDOW_BYTES;
    const length = Math.min(WINDOW_BYTES, this.size - start);
    // A huge page that the pool does not have would end this process when it is touched: it is set aside, or refused here.
    const options = { reserve: this.kind === 'hugetlb' };
    const mapping = Mapping.shared(this.fd.number, this.fileOffset + start, length, options);
    if (this.#adviseHugePages) adviseHugePages(mapping.address, length);
    const window = new Window(mapping.buffer, 0, length);
    this.#mappings.set(index, { mapping, window });
    return window;
  }

  /** Where window `index` is mapped in this process; maps it on first use. */
  addressOf(index: number): number {
    this.window(index);
    return this.#mappings.get(index)?.mapping.address ?? 0;
  }

  discard(offset: number, length: number): void {
    punchHole(this.fd, this.fileOffset + offset, length);
  }

  residentBytes(): number {
    return fileStatus(this.fd).residentBytes;
  }

  close(): void {
    for (const { mapping } of this.#mappings.values()) mapping.close();
    this.#mappings.clear();
    this.fd.close();
  }
}

const regionFileError = (fault: string): AerostatError =>
  new AerostatError('AEROSTAT_REGION_FILE', `memory region refused: ${fault}`);

/**
 * File systems that answer for themselves, from memory or from a disk of this host. Any other may wait for a network or for
 * a process, which can be the guest's own: looking at such a file, mapping it and touching it would keep its guest's thread
 * waiting as long as that process likes.
 */
const LOCAL_FILE_SYSTEMS: ReadonlySet<string> = new Set([
  'bcachefs',
  'btrfs',
  'ext2',
  'ext3',
  'ext4',
  'f2fs',
  'hugetlbfs',
  'overlay',
  'ramfs',
  'tmpfs',
  'xfs',
  'zfs',
]);

/** What of a descriptor speaks against even looking at its file. */
function faultOfKind(fd: OwnedFd): string | undefined {
  const kind = descriptorKind(fd);
  if (kind === 'memory') return undefined;
  if (kind !== 'path') return 'its descriptor is not a regular file';
  const type = fileSystemType(fd);
  if (type !== undefined && LOCAL_FILE_SYSTEMS.has(type)) return undefined;
  const where =
    type === undefined ? 'on a file system that is not mounted where this daemon runs' : `on ${type}`;
  return `its file is ${where}, which could make this daemon wait; use a memfd, tmpfs, hugetlbfs or a local disk`;
}

function faultOf(
  status: { regular: boolean; size: number },
  readWrite: boolean,
  unit: number,
  fileOffset: number,
  size: number,
): string | undefined {
  if (!status.regular) return 'its descriptor is not a regular file';
  // Used entries are written and pages are punched; better refused here than when a guest first kicks.
  if (!readWrite) return 'its descriptor is not open for both reading and writing';
  if (size <= 0 || size % PAGE_SIZE !== 0)
    return `its size ${size} is not a positive multiple of ${PAGE_SIZE}`;
  if (fileOffset % unit !== 0) return `its file offset ${fileOffset} is not a multiple of ${unit}`;
  if (size % unit !== 0) return `its size ${size} is not a multiple of its file's page size ${unit}`;
  return faultOfSize(status.size, fileOffset, size);
}

const faultOfSize = (fileSize: number, fileOffset: number, size: number): string | undefined =>
  fileOffset + size > fileSize
    ? `it needs ${fileOffset + size} bytes and its file has ${fileSize}`
    : undefined;

/** Anonymous memory of this process; only threads of it can be its guest. */
export class AnonymousBacking implements Backing {
  readonly kind = 'anonymous';
  readonly discardUnit = PAGE_SIZE;
  readonly size: number;
  readonly #windows: { mapping: Mapping; window: Window }[] = [];

  constructor(size: number) {
    this.size = size;
    for (let start = 0; start < size; start += WINDOW_BYTES) {
      const mapping = Mapping.anonymous(Math.min(WINDOW_BYTES, size - start));
      this.#windows.push({ mapping, window: new Window(mapping.buffer, 0, mapping.length) });
    }
  }

  window(index: number): Window {
    return this.#windows[index].window;
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
export class HeapBacking implements Backing {
  readonly kind = 'heap';
  readonly size: number;
  readonly discardUnit: number;
  readonly #window: Window;

  /** @throws InvariantError above {@link WINDOW_BYTES}; simulations have small guests */
  constructor(size: number, discardUnit = PAGE_SIZE) {
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
