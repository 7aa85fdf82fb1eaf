/**
 * Which pages of a mapping were written, as the processor's page tables know it: userfaultfd's asynchronous write
 * protection (ioctl_userfaultfd(2), Linux 6.7) and the PAGEMAP_SCAN ioctl (Documentation/admin-guide/mm/pagemap.rst).
 * It sees every writer that goes through the mapping, whether a thread of ours runs it or the kernel on its behalf.
 * It does not see other mappings of the same file.
 */
import { closeSync, openSync } from 'node:fs';
import { constants } from 'node:os';
import { AerostatError, SystemError } from './error.ts';
import { OwnedFd } from './fd.ts';
import { check, errno, libc } from './libc.ts';
import { Arena } from './mapping.ts';
import { readU64, struct } from './struct.ts';

const O_CLOEXEC = 0o2000000;
const UFFD_USER_MODE_ONLY = 1;
export const UFFD_API = 0xaa;
const UFFD_FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12;
const UFFD_FEATURE_WP_UNPOPULATED = 1 << 13;
const UFFD_FEATURE_WP_ASYNC = 1 << 15;
const UFFDIO_REGISTER_MODE_WP = 1 << 1;
/** userfaultfd(2)'s number, which the C library has no function for. */
const USERFAULTFD_CALLS: Readonly<Record<string, number>> = { x64: 323, arm64: 282 };

const PAGE_IS_WRITTEN = 1 << 1;
/** Protect again what is reported, in the same step. */
const PM_SCAN_WP_MATCHING = 1 << 0;
/** Fail rather than pass over what is not write-protected asynchronously. */
const PM_SCAN_CHECK_WPASYNC = 1 << 1;

/** ioctl numbers: direction (1 write, 2 read, 3 both), size, type, number. */
export const ioctlNumber = (direction: number, size: number, type: number, number: number): number =>
  direction * 2 ** 30 + size * 2 ** 16 + type * 2 ** 8 + number;

export const UFFDIO_API = struct('uffdio_api', 24, {
  api: ['u64', 0],
  features: ['u64', 8],
  ioctls: ['u64', 16],
});
export const UFFDIO_REGISTER = struct('uffdio_register', 32, {
  start: ['u64', 0],
  length: ['u64', 8],
  mode: ['u64', 16],
  ioctls: ['u64', 24],
});
const PM_SCAN_ARG = struct('pm_scan_arg', 96, {
  size: ['u64', 0],
  flags: ['u64', 8],
  start: ['u64', 16],
  end: ['u64', 24],
  walkEnd: ['u64', 32],
  vector: ['u64', 40],
  vectorLength: ['u64', 48],
  pagesMax: ['u64', 56],
  categoryInverted: ['u64', 64],
  categoryMask: ['u64', 72],
  categoryAnyOf: ['u64', 80],
  returnMask: ['u64', 88],
});
const PAGE_REGION = struct('page_region', 24, {
  start: ['u64', 0],
  end: ['u64', 8],
  categories: ['u64', 16],
});

export const API = ioctlNumber(3, UFFDIO_API.size, UFFD_API, 0x3f);
export const REGISTER = ioctlNumber(3, UFFDIO_REGISTER.size, UFFD_API, 0x00);
const NEW = ioctlNumber(0, 0, UFFD_API, 0x00);
const SCAN = ioctlNumber(3, PM_SCAN_ARG.size, 'f'.charCodeAt(0), 16);

/** Runs that one scan returns; it is repeated until it has seen all. */
const RUNS_PER_SCAN = 1024;

/** @throws SystemError where the kernel has none, or does not let us */
export function openUserfault(): OwnedFd {
  let device: number | undefined;
  try {
    device = openSync('/dev/userfaultfd', 'r+');
  } catch {
    // Not there, or not ours to use. The system call serves everybody, for faults in user mode alone.
  }
  if (device !== undefined) {
    try {
      return new OwnedFd(check('ioctl(USERFAULTFD_IOC_NEW)', libc.ioctl(device, NEW, O_CLOEXEC)));
    } finally {
      closeSync(device);
    }
  }
  const number = USERFAULTFD_CALLS[process.arch];
  if (number === undefined) throw new SystemError('userfaultfd', constants.errno.ENOSYS);
  return new OwnedFd(check('userfaultfd', libc.syscall(number, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
}

export class WriteTracker {
  readonly #userfault: OwnedFd;
  readonly #pagemap: OwnedFd;
  readonly #arena = new Arena(PM_SCAN_ARG.size + RUNS_PER_SCAN * PAGE_REGION.size);

  /** @throws AerostatError AEROSTAT_WRITE_TRACKING where the kernel cannot, or does not let us */
  constructor() {
    try {
      this.#userfault = openUserfault();
    } catch (error) {
      throw unavailable(error);
    }
    try {
      const features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
      UFFDIO_API.write(this.#arena.view, 0, { api: UFFD_API, features, ioctls: 0 });
      check('ioctl(UFFDIO_API)', libc.ioctl(this.#userfault.number, API, this.#arena.address));
      this.#pagemap = new OwnedFd(openSync('/proc/self/pagemap', 'r'));
    } catch (error) {
      this.#userfault.close();
      this.#arena.close();
      throw unavailable(error);
    }
  }

  /** Follows the pages mapped at `address`. All of them count as written until the first {@link take}. */
  watch(address: number, length: number): void {
    const mode = UFFDIO_REGISTER_MODE_WP;
    UFFDIO_REGISTER.write(this.#arena.view, 0, { start: address, length, mode, ioctls: 0 });
    const result = libc.ioctl(this.#userfault.number, REGISTER, this.#arena.address);
    check('ioctl(UFFDIO_REGISTER)', result, `${length} bytes`);
  }

  /**
   * Visits the runs of pages among `length` bytes at `address` that were written since they were visited last, in
   * rising order, and protects them again in the same step: a write that races with this is visited now or next time.
   */
  take(address: number, length: number, visit: (address: number, length: number) => void): void {
    const { view } = this.#arena;
    const end = address + length;
    for (let start = address; start < end; ) {
      PM_SCAN_ARG.write(view, 0, {
        size: PM_SCAN_ARG.size,
        flags: PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
        start,
        end,
        walkEnd: 0,
        vector: this.#arena.address + PM_SCAN_ARG.size,
        vectorLength: RUNS_PER_SCAN,
        pagesMax: 0,
        categoryInverted: 0,
        categoryMask: PAGE_IS_WRITTEN,
        categoryAnyOf: 0,
        returnMask: PAGE_IS_WRITTEN,
      });
      const runs = libc.ioctl(this.#pagemap.number, SCAN, this.#arena.address);
      if (runs === -1 && errno() === constants.errno.EINTR) continue;
      check('ioctl(PAGEMAP_SCAN)', runs, `${length} bytes`);
      for (let run = 0; run < runs; run++) {
        const at = PM_SCAN_ARG.size + run * PAGE_REGION.size;
        const first = readU64(view, at + PAGE_REGION.offset.start);
        visit(first, readU64(view, at + PAGE_REGION.offset.end) - first);
      }
      start = readU64(view, PM_SCAN_ARG.offset.walkEnd);
    }
  }

  /** Nothing is followed any more. Idempotent. */
  close(): void {
    this.#userfault.close();
    this.#pagemap.close();
    this.#arena.close();
  }
}

function unavailable(cause: unknown): AerostatError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new AerostatError(
    'AEROSTAT_WRITE_TRACKING',
    `the kernel cannot follow writes to memory (${reason}); it takes Linux 6.7 or newer, and access to /dev/userfaultfd or userfaultfd(2)`,
    { cause },
  );
}
