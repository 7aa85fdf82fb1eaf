/**
 * The saving of a guest, warmed up with a small one in the thread of one that runs and is about to leave: it stands still
 * while it is saved, and should not wait for code to be compiled then. Takes ten milliseconds of its time.
 */
import { Guest } from '../guest/guest.ts';
import { HeapBacking } from '../memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';

/** Enough pages, and often enough, for the loops over them to be compiled. */
const MEMORY_BYTES = 16 * 2 ** 20;
const USED_PAGES = MEMORY_BYTES / PAGE_SIZE / 2;
const SAVES = 10;

export function warmUpSaving(): void {
  const addresses = { guestAddress: 0, size: MEMORY_BYTES, userAddress: 0 };
  const memory = new GuestMemory([new MemoryRegion(addresses, new HeapBacking(MEMORY_BYTES))]);
  const guest = Guest.boot({ memory, seed: 1 });
  const process = guest.kernel.spawn('warm-up');
  for (let page = 0; page < USED_PAGES; page++) process.write(page);
  for (let save = 0; save < SAVES; save++) guest.save();
}
