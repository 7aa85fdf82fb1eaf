/**
 * Memory in which a back-end notes the buffers that it has taken and not returned, and which the front-end keeps for the next
 * back-end (INFLIGHT_SHMFD): a region for each queue, one after the other. What is noted when is `split-inflight.ts`'s and
 * `packed-inflight.ts`'s. Source: "Vhost-user Protocol", section "Inflight I/O tracking"; the regions begin at multiples of 64
 * bytes, as those of QEMU's libvhost-user do.
 */
import { struct } from '../sys/struct.ts';

/** Of a region that was not used before, it is 0. */
export const INFLIGHT_VERSION = 1;

export const SPLIT_REGION = struct('inflight region of a split queue', 16, {
  features: ['bits64', 0],
  version: ['u16', 8],
  entries: ['u16', 10],
  lastBatchHead: ['u16', 12],
  usedIndex: ['u16', 14],
});

/** One for each descriptor of the table. */
export const SPLIT_ENTRY = struct('inflight entry of a split queue', 16, {
  inflight: ['u8', 0],
  next: ['u16', 6],
  counter: ['u64', 8],
});

export const PACKED_REGION = struct('inflight region of a packed queue', 32, {
  features: ['bits64', 0],
  version: ['u16', 8],
  entries: ['u16', 10],
  freeHead: ['u16', 12],
  oldFreeHead: ['u16', 14],
  usedIndex: ['u16', 16],
  oldUsedIndex: ['u16', 18],
  usedWrap: ['u8', 20],
  oldUsedWrap: ['u8', 21],
});

/** A copy of a descriptor, for a used one is written over it. */
export const PACKED_ENTRY = struct('inflight entry of a packed queue', 32, {
  inflight: ['u8', 0],
  next: ['u16', 2],
  last: ['u16', 4],
  count: ['u16', 6],
  counter: ['u64', 8],
  id: ['u16', 16],
  flags: ['u16', 18],
  length: ['u32', 20],
  address: ['u64', 24],
});

const REGION_ALIGNMENT = 64;

/** Bytes of the region of a queue with so many entries. */
export function inflightRegionBytes(packed: boolean, entries: number): number {
  const [header, entry] = packed
    ? [PACKED_REGION.size, PACKED_ENTRY.size]
    : [SPLIT_REGION.size, SPLIT_ENTRY.size];
  return Math.ceil((header + entries * entry) / REGION_ALIGNMENT) * REGION_ALIGNMENT;
}
