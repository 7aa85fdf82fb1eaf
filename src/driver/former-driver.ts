/**
 * What a driver finds in a guest that was saved with a driver running and goes on elsewhere: pages of a driver that is
 * no more. Rings and lists, hinted blocks and blocks that were being reported are free from here on; the balloon keeps
 * its own (balloon-pages.ts), because the new host may want them.
 */
import type { KernelMemory, SavedPages } from '../memory/kernel-memory.ts';

/** Who owns the memory of the driver itself. */
export const MEMORY_OWNER = 'balloon-driver';
/** Who owns blocks while they are hinted. */
export const HINTS_OWNER = 'balloon-hints';

/** Frees what the former driver held beside the balloon. Does nothing in a guest that had none. */
export function clearFormerDriver(kernel: KernelMemory): void {
  // A driver that runs has memory of its own, so where that name is missing nothing was left.
  if (kernel.saved?.awaits(MEMORY_OWNER) !== true) return;
  freeOwned(kernel, kernel.saved, MEMORY_OWNER);
  freeOwned(kernel, kernel.saved, HINTS_OWNER);
  // Reporting alone sets blocks aside. The host that was told of them is not this one.
  kernel.saved.putBackIsolated();
}

function freeOwned(kernel: KernelMemory, saved: SavedPages, name: string): void {
  if (!saved.awaits(name)) return;
  const owner = kernel.addOwner({ name, contents: 'kept' });
  const blocks: [pfn: number, order: number][] = [];
  saved.forEachOwned(owner, (pfn, order) => blocks.push([pfn, order]));
  for (const [pfn, order] of blocks) kernel.free(pfn, order);
  kernel.removeOwner(owner);
}
