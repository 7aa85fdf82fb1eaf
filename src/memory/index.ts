/**
 * `aerostat/memory`: guest physical memory as regions on files, on memory of the process or on the heap, what is done
 * to it by address, and sets and lists of its pages. Queues of `aerostat/virtio` and devices work on it.
 */
export { AerostatError, type ErrorCode, InvariantError, SystemError } from '../sys/error.ts';
export { createMemfd, type MemfdOptions } from '../sys/file.ts';
export {
  AnonymousBacking,
  type Backing,
  type BackingKind,
  HeapBacking,
  type MemoryFile,
  WINDOW_BYTES,
  Window,
  WindowedBacking,
} from './backing.ts';
export type { DiscardResult, DiscardUnits } from './discard-claims.ts';
export { FileBacking } from './file-backing.ts';
export {
  GuestMemory,
  MemoryAccessError,
  MemoryRegion,
  REGION_BYTES_MAX,
  type RegionAddresses,
} from './guest-memory.ts';
export { gpaOf, PAGE_SHIFT, PAGE_SIZE, type PageSink, pfnOf } from './page.ts';
export { PageBitmap } from './page-bitmap.ts';
export { PageRanges } from './page-ranges.ts';
export { PageSet } from './page-set.ts';
export { PendingDiscards } from './pending-discards.ts';
