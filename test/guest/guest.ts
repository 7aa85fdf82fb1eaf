/** Small guests for the tests of this room. */
import { GuestKernel, type GuestKernelOptions } from '../../src/guest/kernel.ts';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';

export const MIB_BYTES = 2 ** 20;

/** Guest memory on the heap: one region, or two with a hole of 64 MiB between them. */
export function heapMemory(...sizesMiB: readonly number[]): GuestMemory {
  const regions: MemoryRegion[] = [];
  let guestAddress = 0;
  for (const sizeMiB of sizesMiB) {
    const size = sizeMiB * MIB_BYTES;
    regions.push(new MemoryRegion({ guestAddress, size, userAddress: guestAddress }, new HeapBacking(size)));
    guestAddress += size + 64 * MIB_BYTES;
  }
  return new GuestMemory(regions);
}

/** A guest of so many MiB, or on the memory that the options name. */
export function bootGuest(
  size: number | GuestKernelOptions,
  options: Partial<GuestKernelOptions> = {},
): GuestKernel {
  if (typeof size !== 'number') return new GuestKernel(size);
  return new GuestKernel({ memory: heapMemory(size), ...options });
}

/** The seed of random tests: printed in their names, taken from the environment to repeat one. */
export const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_701);
