/**
 * Guest memory that is a file: a memfd, or a file of tmpfs, hugetlbfs or a local disk, of which the descriptor came from a
 * front-end or another thread. Files that could make this process wait for another one are refused.
 */
import { descriptorKind, fileSystemType } from '../sys/descriptor-kind.ts';
import { AerostatError } from '../sys/error.ts';
import type { OwnedFd } from '../sys/fd.ts';
import {
  adviseHugePages,
  fileStatus,
  fileSystem,
  isReadWrite,
  nextData,
  nextHole,
  punchHole,
  readAt,
  sealAgainstShrinking,
  writeAt,
} from '../sys/file.ts';
import { Mapping } from '../sys/mapping.ts';
import { type BackingKind, type MemoryFile, WINDOW_BYTES, Window, WindowedBacking } from './backing.ts';
import { PAGE_SIZE } from './page.ts';

/** Part of a file that a front-end or another thread handed over as a descriptor. */
export class FileBacking extends WindowedBacking implements MemoryFile {
  readonly kind: BackingKind;
  readonly size: number;
  readonly discardUnit: number;
  readonly fileOffset: number;
  readonly sealed: boolean;
  readonly onDisk: boolean;
  readonly hugePageBytes: number;
  readonly fd: OwnedFd;
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
    options: {
      readonly adviseHugePages?: boolean;
      /** It may end within a page, as what is no guest memory does. */
      readonly partialPage?: boolean;
    } = {},
  ) {
    super();
    try {
      const stranger = faultOfKind(fd);
      if (stranger !== undefined) throw regionFileError(stranger);
      const status = fileStatus(fd);
      const system = fileSystem(fd);
      const unit = system.kind === 'hugetlbfs' ? system.blockSize : PAGE_SIZE;
      const sizeUnit = options.partialPage === true ? 1 : unit;
      const fault = faultOf(status, isReadWrite(fd), { unit, sizeUnit }, fileOffset, size);
      if (fault !== undefined) throw regionFileError(fault);
      this.kind = system.kind === 'hugetlbfs' ? 'hugetlb' : 'shmem';
      this.discardUnit = unit;
      this.onDisk = system.kind === 'other';
      this.hugePageBytes = this.onDisk ? unit : Math.max(unit, status.blockBytes);
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

  override get file(): MemoryFile {
    return this;
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
    this.arriving?.mapped(mapping.address, length, start);
    const window = new Window(mapping.buffer, mapping.offset, length);
    this.#mappings.set(index, { mapping, window });
    return window;
  }

  override addressOf(index: number): number {
    this.window(index);
    return this.#mappings.get(index)?.mapping.address ?? 0;
  }

  override read(offset: number, into: Uint8Array, at: number, length: number): void {
    readAt(this.fd, this.fileOffset + offset, into, at, length);
  }

  override write(offset: number, from: Uint8Array, at: number, length: number): void {
    // hugetlbfs can be read but not written as a file.
    if (this.kind === 'shmem') writeAt(this.fd, this.fileOffset + offset, from, at, length);
    else super.write(offset, from, at, length);
  }

  override forEachBacked(
    offset: number,
    length: number,
    visit: (offset: number, length: number) => void,
  ): void {
    const end = this.fileOffset + offset + length;
    let at = this.fileOffset + offset;
    while (at < end) {
      const data = nextData(this.fd, at) ?? end;
      if (data >= end) return;
      const hole = Math.min(end, nextHole(this.fd, data) ?? end);
      visit(data - this.fileOffset, hole - data);
      at = hole;
    }
  }

  discard(offset: number, length: number): void {
    this.arriving?.forget(offset, length);
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
  { unit, sizeUnit }: { readonly unit: number; readonly sizeUnit: number },
  fileOffset: number,
  size: number,
): string | undefined {
  if (!status.regular) return 'its descriptor is not a regular file';
  // Used entries are written and pages are punched; better refused here than when a guest first kicks.
  if (!readWrite) return 'its descriptor is not open for both reading and writing';
  if (size <= 0 || (sizeUnit !== 1 && size % PAGE_SIZE !== 0))
    return `its size ${size} is not a positive multiple of ${PAGE_SIZE}`;
  if (fileOffset % unit !== 0) return `its file offset ${fileOffset} is not a multiple of ${unit}`;
  if (size % sizeUnit !== 0) return `its size ${size} is not a multiple of its file's page size ${unit}`;
  return faultOfSize(status.size, fileOffset, size);
}

const faultOfSize = (fileSize: number, fileOffset: number, size: number): string | undefined =>
  fileOffset + size > fileSize
    ? `it needs ${fileOffset + size} bytes and its file has ${fileSize}`
    : undefined;
