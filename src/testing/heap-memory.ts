/** Guest memory for tests: on the heap of this process, without files, descriptors or native calls. */
import { HeapBacking } from '../memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';

/** Between regions, so that a run that goes beyond one does not end in the next. */
const HOLE_BYTES = 64 * 2 ** 20;

/** Memory of one region for each size in bytes, from address 0 on, with holes of 64 MiB between them. */
export function heapMemory(...sizes: readonly number[]): GuestMemory {
  const regions: MemoryRegion[] = [];
  let guestAddress = 0;
  for (const size of sizes) {
    regions.push(new MemoryRegion({ guestAddress, size, userAddress: guestAddress }, new HeapBacking(size)));
    guestAddress += size + HOLE_BYTES;
  }
  return new GuestMemory(regions);
}

/**
 * Places bytes one after the other between two guest addresses, and begins anew at the end: room for the buffers of a
 * {@link HandQueue}.
 */
export function placer(memory: GuestMemory, from: number, to: number): (bytes: Uint8Array) => number {
  let at = from;
  return bytes => {
    if (at + bytes.length > to) at = from;
    const address = at;
    memory.write(address, bytes);
    at += bytes.length;
    return address;
  };
}
