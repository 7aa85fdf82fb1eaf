/**
 * What a driver finds in a guest that was saved with a driver running and goes on elsewhere: pages of a driver that is
 * no more. Rings and lists, hinted blocks and blocks that were being reported are free from here on; the balloon keeps
 * its own (balloon-pages.ts), because the new host may want them.
 */
import type { GuestKernel } from '../guest/kernel.ts';
import { KIND_ISOLATED, KIND_MASK, ORDER_MASK } from '../guest/page-state.ts';

/** Who owns the memory of the driver itself. */
export const MEMORY_OWNER = 'balloon-driver';
/** Who owns blocks while they are hinted. */
export const HINTS_OWNER = 'balloon-hints';

/** Frees what the former driver held beside the balloon. Does nothing in a guest that had none. */
export function clearFormerDriver(kernel: GuestKernel): void {
  // A driver that runs has memory of its own, so where that name is missing nothing was left.
  if (!kernel.allocator.owners.names.includes(MEMORY_OWNER)) return;
  freeOwned(kernel, MEMORY_OWNER);
  freeOwned(kernel, HINTS_OWNER);
  putBackIsolated(kernel);
}

function freeOwned(kernel: GuestKernel, name: string): void {
  if (!kernel.allocator.owners.names.includes(name)) return;
  const owner = kernel.addOwner({ name, contents: 'kept' });
  const blocks: [pfn: number, order: number][] = [];
  kernel.allocator.forEachOwned(owner, (pfn, order) => blocks.push([pfn, order]));
  for (const [pfn, order] of blocks) kernel.free(pfn, order);
  kernel.removeOwner(owner);
}

/** Reporting alone isolates blocks. The host that was told of them is not this one. */
function putBackIsolated({ allocator, pages }: GuestKernel): void {
  for (const { start, end } of allocator.spans) {
    for (let pfn = start; pfn < end; ) {
      const state = pages.state[pfn];
      const order = state & ORDER_MASK;
      if ((state & KIND_MASK) === KIND_ISOLATED) allocator.putBack(pfn, order, false);
      pfn += state === 0 ? 1 : 1 << order;
    }
  }
}
