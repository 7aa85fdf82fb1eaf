/** Small guests for the tests of this room. */
import { GuestKernel } from '../../src/guest/kernel.ts';
import type { GuestKernelOptions } from '../../src/guest/kernel-options.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { heapMemory as heapMemoryOf } from '../../src/testing/heap-memory.ts';

export const MIB_BYTES = 2 ** 20;

/** Guest memory on the heap: regions of so many MiB, with holes of 64 MiB between them. */
export const heapMemory = (...sizesMiB: readonly number[]): GuestMemory =>
  heapMemoryOf(...sizesMiB.map(size => size * MIB_BYTES));

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
