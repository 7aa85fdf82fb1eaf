/**
 * Guest memory that a front-end can hand to another process: one file, a memfd unless it is given, cut into the regions
 * that the guest sees.
 */
import { FileBacking } from '../memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { defined } from '../sys/defined.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { createMemfd } from '../sys/file.ts';
import { reserveHugePages } from '../sys/mapping.ts';

/**
 * What lies between a guest address and the front-end's own address for it. Anything would do; half of what a
 * process can address keeps the two kinds apart, so that code that takes one for the other is not right by chance.
 */
export const USER_ADDRESS_OFFSET = 2 ** 46;

export interface SharedMemoryOptions {
  /** Where guest memory lies and how much there is, in bytes; a multiple of the page size each. */
  readonly regions: readonly { readonly guestAddress: number; readonly size: number }[];
  /** Asks for transparent huge pages; the host's `shmem_enabled` decides. */
  readonly adviseHugePages?: boolean;
  /** Takes huge pages of this many bytes from the host's pool, which must hold enough of them. */
  readonly hugePageSize?: number;
  /** Shown by the host's /proc/PID/maps. */
  readonly name?: string;
  /** Makes the file of so many bytes, in place of a memfd. */
  readonly createFile?: (size: number) => OwnedFd;
}

/** @throws SystemError ENOMEM when the host's pool has too few huge pages */
export function createSharedMemory({
  regions,
  adviseHugePages = false,
  hugePageSize,
  name = 'aerostat-guest',
  createFile = size => createMemfd({ name, size, ...defined({ hugePageSize }) }),
}: SharedMemoryOptions): GuestMemory {
  const size = regions.reduce((total, region) => total + region.size, 0);
  const file = createFile(size);
  const memory = new GuestMemory();
  try {
    if (hugePageSize !== undefined) reserveHugePages(file.number, size);
    let fileOffset = 0;
    for (const region of regions) {
      const userAddress = region.guestAddress + USER_ADDRESS_OFFSET;
      const backing = new FileBacking(file.duplicate(), fileOffset, region.size, { adviseHugePages });
      try {
        memory.add(new MemoryRegion({ ...region, userAddress }, backing));
      } catch (error) {
        backing.close();
        throw error;
      }
      fileOffset += region.size;
    }
    return memory;
  } catch (error) {
    memory.close();
    throw error;
  } finally {
    file.close();
  }
}
