/**
 * Files as memory: memfd, size, holes, what of a file the host really holds, and giving parts of it back.
 */
import { fstatSync, readSync, writeSync } from 'node:fs';
import { AerostatError } from './error.ts';
import { type Descriptor, OwnedFd } from './fd.ts';
import { check, errno, F_GET_SEALS, libc, TMPFS_MAGIC } from './libc.ts';
import { Arena } from './mapping.ts';

const MFD_CLOEXEC = 0x1;
const MFD_ALLOW_SEALING = 0x2;
const MFD_HUGETLB = 0x4;
const MFD_HUGE_SHIFT = 26;
const FALLOC_FL_KEEP_SIZE = 0x1;
const FALLOC_FL_PUNCH_HOLE = 0x2;
const F_GETFL = 3;
const O_ACCMODE = 3;
const O_RDWR = 2;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 0x1;
const F_SEAL_SHRINK = 0x2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const MADV_DONTNEED = 4;
const MADV_HUGEPAGE = 14;
const EINTR = 4;
const ENXIO = 6;
/** By the numbers of statfs(2). */
const FILE_SYSTEMS: ReadonlyMap<number, 'tmpfs' | 'ramfs' | 'hugetlbfs'> = new Map([
  [TMPFS_MAGIC, 'tmpfs'],
  [0x858458f6, 'ramfs'],
  [0x958458f6, 'hugetlbfs'],
]);
/** st_blocks counts units of 512 bytes, whatever the file system's block size. */
const STAT_BLOCK_BYTES = 512;

const scratch = new Arena(256);

export interface MemfdOptions {
  readonly name: string;
  /** Bytes; a multiple of the page size. */
  readonly size: number;
  /** Backs the file with huge pages of this many bytes (2 MiB or 1 GiB) from the host's pool. */
  readonly hugePageSize?: number;
}

export function createMemfd({ name, size, hugePageSize }: MemfdOptions): OwnedFd {
  let flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (hugePageSize !== undefined) flags |= MFD_HUGETLB | (Math.log2(hugePageSize) << MFD_HUGE_SHIFT);
  const fd = new OwnedFd(check('memfd_create', libc.memfd_create(name, flags)));
  try {
    check('ftruncate', libc.ftruncate(fd.number, size), `${size} bytes`);
  } catch (error) {
    fd.close();
    throw error;
  }
  return fd;
}

interface FileStatus {
  readonly regular: boolean;
  readonly size: number;
  /** Bytes of the file that the host backs with memory (or disk) right now. */
  readonly residentBytes: number;
  /** What the file is best read and written in; of a tmpfs that gives huge pages, those. */
  readonly blockBytes: number;
  /** Device and inode: two descriptors of one file agree in it. */
  readonly identity: string;
}

export function fileStatus(fd: Descriptor): FileStatus {
  const status = fstatSync(fd.number);
  return {
    regular: status.isFile(),
    size: status.size,
    residentBytes: status.blocks * STAT_BLOCK_BYTES,
    blockBytes: status.blksize,
    identity: `${status.dev}:${status.ino}`,
  };
}

/** Whether the descriptor may be both read and written. */
export const isReadWrite = (fd: Descriptor): boolean =>
  (check('fcntl', libc.fcntl(fd.number, F_GETFL, 0)) & O_ACCMODE) === O_RDWR;

interface FileSystem {
  readonly kind: 'tmpfs' | 'ramfs' | 'hugetlbfs' | 'other';
  /** The unit in which a file of this file system takes and gives back memory, in bytes. */
  readonly blockSize: number;
}

export function fileSystem(fd: Descriptor): FileSystem {
  check('fstatfs', libc.fstatfs(fd.number, scratch.address));
  // struct statfs on 64-bit Linux starts with two 64-bit integers: f_type, f_bsize.
  const type = scratch.view.getUint32(0, true);
  const blockSize = scratch.view.getUint32(8, true);
  return { kind: FILE_SYSTEMS.get(type) ?? 'other', blockSize };
}

/**
 * Gives `length` bytes at `offset` back to the host: they read as zeros afterwards. The size stays. A call that a signal
 * interrupts begins anew, as some file systems on disks want it; on tmpfs and hugetlbfs all that can fail fails for good.
 * @throws SystemError for example EPERM on a file sealed against writing
 */
export function punchHole(fd: Descriptor, offset: number, length: number): void {
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  let result: number;
  do result = libc.fallocate(fd.number, mode, offset, length);
  while (result === -1 && errno() === EINTR);
  check('fallocate', result, `${length} bytes at ${offset}`);
}

/** Gives anonymous pages at a virtual address back to the host. */
export function discardAnonymous(address: number, length: number): void {
  check('madvise', libc.madvise(address, length, MADV_DONTNEED));
}

/** Asks for transparent huge pages behind a mapping; false where the kernel was built without them. */
export function adviseHugePages(address: number, length: number): boolean {
  return libc.madvise(address, length, MADV_HUGEPAGE) === 0;
}

/** `sealed` against shrinking; `open` to seals, the kernel waits for the file's lock to add one; `none`: takes none. */
export function shrinkSeal(fd: Descriptor): 'sealed' | 'open' | 'none' {
  const seals = libc.fcntl(fd.number, F_GET_SEALS, 0);
  if (seals === -1) return 'none';
  if ((seals & F_SEAL_SHRINK) !== 0) return 'sealed';
  return (seals & F_SEAL_SEAL) === 0 ? 'open' : 'none';
}

/**
 * Forbids shrinking the file, by anyone, for good. Touching a mapping beyond the end of a shrunk file
 * kills the process that touches it, so a peer that can shrink can kill us. Returns false where the file
 * cannot be sealed (not a memfd, or created without sealing). Waits for the file's lock, which another call on the file may
 * hold for seconds, unless there is nothing to do.
 */
export function sealAgainstShrinking(fd: Descriptor): boolean {
  const seal = shrinkSeal(fd);
  if (seal !== 'open') return seal === 'sealed';
  return libc.fcntl(fd.number, F_ADD_SEALS, F_SEAL_SHRINK) === 0;
}

function seek(fd: Descriptor, offset: number, whence: number): number | undefined {
  const result = libc.lseek(fd.number, offset, whence);
  if (result !== -1) return result;
  if (errno() === ENXIO) return undefined;
  check('lseek', result, `offset ${offset}`);
  return undefined;
}

/** Offset of the first byte at or after `offset` that the file backs; undefined when there is none. */
export const nextData = (fd: Descriptor, offset: number): number | undefined => seek(fd, offset, SEEK_DATA);

/** Offset of the first byte at or after `offset` that is a hole; the end of the file counts as one. */
export const nextHole = (fd: Descriptor, offset: number): number | undefined => seek(fd, offset, SEEK_HOLE);

/**
 * Copies `length` bytes of the file from `position` into `into` at `at`. A hole reads as zeros and stays a hole, where
 * reading it through a mapping would make the host back it.
 */
export function readAt(fd: Descriptor, position: number, into: Uint8Array, at: number, length: number): void {
  for (let done = 0; done < length; ) {
    const count = readSync(fd.number, into, at + done, length - done, position + done);
    if (count === 0) throw endOfFile(position + done);
    done += count;
  }
}

/** Copies `length` bytes of `from`, from `at` on, into the file; pages that are written whole need no zeroing first. */
export function writeAt(
  fd: Descriptor,
  position: number,
  from: Uint8Array,
  at: number,
  length: number,
): void {
  for (let done = 0; done < length; ) {
    done += writeSync(fd.number, from, at + done, length - done, position + done);
  }
}

const endOfFile = (position: number): AerostatError =>
  new AerostatError('AEROSTAT_FILE_END', `the file ends before offset ${position}, where it has memory`);

/** kcmp(2) by machine. */
const SYS_KCMP: Readonly<Record<string, number>> = { x64: 312, arm64: 272 };
const KCMP_FILE = 0;

/** Whether two descriptors share an open file: one is a duplicate of the other. False where the kernel does not tell. */
export function isSameOpenFile(one: Descriptor, other: Descriptor): boolean {
  const number = SYS_KCMP[process.arch];
  if (number === undefined) return false;
  return libc.syscall5(number, process.pid, process.pid, KCMP_FILE, one.number, other.number) === 0;
}
