/**
 * What a guest's memory is made of in `bench inflate --backing`: how such memory is had, why it cannot be had on a host, and
 * what the host holds of it. Whose pages they are is not known here.
 */
import { readFileSync } from 'node:fs';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { AerostatError } from '../../sys/error.ts';
import type { Descriptor } from '../../sys/fd.ts';
import { createMemfd, fileStatus } from '../../sys/file.ts';
import { createHugeTmpfsFile } from '../../sys/huge-tmpfs.ts';
import { createSharedMemory } from '../../vhost-user/shared-memory.ts';

/** `thp`: transparent huge pages of shared memory; `hugetlb-2m`: of the host's pool. */
export const BACKING_NAMES = ['memfd', 'thp', 'hugetlb-2m'] as const;
export type BackingName = (typeof BACKING_NAMES)[number];

export const HUGE_PAGE_BYTES = 2 ** 21;
export const HUGE_PAGE_POOL = `/sys/kernel/mm/hugepages/hugepages-${HUGE_PAGE_BYTES / 1024}kB`;
const SHMEM_SETTING = '/sys/kernel/mm/transparent_hugepage/shmem_enabled';

/** @throws SystemError when the host does not give such memory */
export function openMemory(backing: BackingName, size: number): GuestMemory {
  const regions = [{ guestAddress: 0, size }];
  if (backing === 'memfd') return createSharedMemory({ regions });
  if (backing === 'hugetlb-2m') return createSharedMemory({ regions, hugePageSize: HUGE_PAGE_BYTES });
  if (advises()) return createSharedMemory({ regions, adviseHugePages: true });
  return createSharedMemory({ regions, createFile: createHugeTmpfsFile });
}

/** Whether the host gives huge pages to a memfd whose mapping asks for them. */
const advises = (): boolean => /\[(?:always|within_size|advise|force)\]/.test(readOr(SHMEM_SETTING, ''));

/** Why the host has no such memory of `size` bytes; undefined where it has. */
export function backingFault(backing: BackingName, size: number): string | undefined {
  if (backing === 'memfd') return undefined;
  if (backing === 'thp') return advises() ? undefined : faultOf(() => createHugeTmpfsFile(size));
  const free = poolBytes('free_hugepages');
  if (Number.isNaN(free)) return 'the kernel has no pool of 2 MiB pages';
  if (free >= size) return faultOf(() => createMemfd({ name: 'probe', size, hugePageSize: HUGE_PAGE_BYTES }));
  const pages = (bytes: number): number => Math.ceil(bytes / HUGE_PAGE_BYTES);
  return `it takes ${pages(size)} huge pages, and the host's pool has ${pages(free)} that are free; raise it: sysctl vm.nr_hugepages=${pages(size)}, or say --reserve`;
}

function faultOf(open: () => { close(): void }): string | undefined {
  try {
    open().close();
    return undefined;
  } catch (error) {
    if (!(error instanceof AerostatError)) throw error;
    const setting = readOr(SHMEM_SETTING, 'not there').trim();
    return `${error.message}; ${SHMEM_SETTING} is ${setting}, and a tmpfs with huge=always takes root`;
  }
}

const poolBytes = (name: 'nr_hugepages' | 'free_hugepages'): number =>
  Number(readOr(`${HUGE_PAGE_POOL}/${name}`, 'NaN')) * HUGE_PAGE_BYTES;

/** Bytes of the pool that are in use; NaN where there is no pool. */
const poolUsedBytes = (): number => poolBytes('nr_hugepages') - poolBytes('free_hugepages');

/** What the host holds of a guest's memory, and what it has done to huge pages so far. */
interface HeldMemory {
  readonly residentBytes: number;
  /** Bytes that are mapped in transparent huge pages, in this process. */
  readonly hugeBytes: number;
  /** Transparent huge pages that the host has split since it booted, for whatever reason. */
  readonly splits: number;
}

/** `fd`: the file that is the guest's memory. */
export function heldMemory(backing: BackingName, fd: Descriptor): HeldMemory {
  // What the pool lacks is what another guest cannot have; the file's blocks are the kernel's books of it.
  const residentBytes = backing === 'hugetlb-2m' ? poolUsedBytes() : fileStatus(fd).residentBytes;
  const mapped = /^ShmemPmdMapped:\s+(\d+) kB$/m.exec(readOr('/proc/self/smaps_rollup', ''))?.[1];
  const splits = /^thp_split_page (\d+)$/m.exec(readOr('/proc/vmstat', ''))?.[1];
  return {
    residentBytes,
    hugeBytes: Number(mapped ?? Number.NaN) * 1024,
    splits: Number(splits ?? Number.NaN),
  };
}

function readOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return otherwise;
  }
}
