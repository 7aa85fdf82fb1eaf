/** The layer of a memory map that only a migration knows: the pages that it has still to send. */
import { encodeShares, type MemoryMap, shareOf } from '../control/memory-map.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { SlotBitmap } from '../migration/slot-bitmap.ts';

/** `dirty` counts pages as the map counts bytes: through the regions, without the gaps. */
export function withDirty(map: MemoryMap, dirty: SlotBitmap): MemoryMap {
  const { fromBytes, bytes, cellBytes, totals, layers } = map;
  const [first, pages, cellPages] = [fromBytes / PAGE_SIZE, bytes / PAGE_SIZE, cellBytes / PAGE_SIZE];
  let total = 0;
  const shares = new Uint8Array(Math.ceil(pages / cellPages));
  for (let cell = 0; cell < shares.length; cell++) {
    const cut = Math.min(cellPages, pages - cell * cellPages);
    const start = first + cell * cellPages;
    const count = dirty.countIn(start, start + cut);
    shares[cell] = shareOf(count, cut);
    total += count;
  }
  return {
    ...map,
    totals: { ...totals, dirty: total * PAGE_SIZE },
    layers: { ...layers, dirty: encodeShares(shares) },
  };
}
