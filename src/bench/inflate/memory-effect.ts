/** What an inflation did to the memory that the host holds for a guest: how much came back, and what of huge pages is left. */
import { type BackingName, heldMemory } from './backings.ts';

export interface MemoryEffect {
  /** What the balloon holds. */
  readonly givenBytes: number;
  /** What the host holds less than before. */
  readonly reclaimedBytes: number;
  /** Of what the balloon holds, what cannot be had because its huge page is not complete; only of the pool's. */
  readonly incompleteBytes: number;
  /** Mapped in transparent huge pages before and after. */
  readonly hugeBytesBefore: number;
  readonly hugeBytesAfter: number;
  /** Transparent huge pages that the host has split meanwhile. */
  readonly splitPages: number;
  /** What the guest needs to write to a page before and after, of as many. */
  readonly writeNsBefore: number;
  readonly writeNsAfter: number;
}

/** Looks at the memory now, and again when what comes back is called. */
export function memoryEffect(
  backing: BackingName,
  memoryFd: number,
): () => Pick<MemoryEffect, 'reclaimedBytes' | 'hugeBytesBefore' | 'hugeBytesAfter' | 'splitPages'> {
  const fd = { number: memoryFd };
  const before = heldMemory(backing, fd);
  return () => {
    const after = heldMemory(backing, fd);
    return {
      reclaimedBytes: before.residentBytes - after.residentBytes,
      hugeBytesBefore: before.hugeBytes,
      hugeBytesAfter: after.hugeBytes,
      splitPages: after.splits - before.splits,
    };
  };
}
