/** What a map says of a migration is what its bitmap says, in whatever cells. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeShares, encodeShares, type MemoryMap } from '../../src/control/memory-map.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { SlotBitmap } from '../../src/migration/slot-bitmap.ts';
import { withDirty } from '../../src/vm/dirty-layer.ts';

const PAGES = 1000;

function mapOf(firstPage: number, pages: number, cellPages: number): MemoryMap {
  const nothing = encodeShares(new Uint8Array(Math.ceil(pages / cellPages)));
  return {
    memoryBytes: PAGES * PAGE_SIZE,
    fromBytes: firstPage * PAGE_SIZE,
    bytes: pages * PAGE_SIZE,
    cellBytes: cellPages * PAGE_SIZE,
    regions: [{ guestAddress: 0, bytes: PAGES * PAGE_SIZE }],
    totals: { resident: 0, ballooned: 0, pending: 0, reported: 0, hinted: 0, dirty: null },
    layers: {
      resident: nothing,
      ballooned: nothing,
      pending: nothing,
      reported: nothing,
      hinted: nothing,
      dirty: null,
    },
    unseenBytes: 0,
    residentAgeMs: 0,
  };
}

test('a map of any part counts the pages that are still to be sent', () => {
  const run = fc.tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: 200 }));
  fc.assert(
    fc.property(fc.array(run), fc.nat(6), fc.nat(14), fc.nat(PAGES), (runs, shift, from, length) => {
      const cellPages = 2 ** shift;
      const firstPage = from * cellPages;
      const pages = Math.min(PAGES - firstPage, length + 1);
      const dirty = new SlotBitmap(PAGES);
      for (const [start, count] of runs) dirty.set(start, Math.min(count, PAGES - start));
      const { totals, layers } = withDirty(mapOf(firstPage, pages, cellPages), dirty);
      expect(totals.dirty).toBe(dirty.countIn(firstPage, firstPage + pages) * PAGE_SIZE);
      const shares = decodeShares(layers.dirty ?? '', Math.ceil(pages / cellPages));
      for (const [cell, share] of shares.entries()) {
        const start = firstPage + cell * cellPages;
        const end = Math.min(start + cellPages, firstPage + pages);
        const count = dirty.countIn(start, end);
        expect([share === 0, share === 255]).toEqual([count === 0, count === end - start]);
      }
    }),
  );
});

test('what else the map says stays', () => {
  const map = mapOf(0, PAGES, 8);
  const { totals, layers, ...rest } = withDirty(map, new SlotBitmap(PAGES));
  expect({ ...totals, dirty: null }).toEqual(map.totals);
  expect({ ...layers, dirty: null }).toEqual(map.layers);
  expect(rest).toMatchObject({ memoryBytes: map.memoryBytes, cellBytes: map.cellBytes });
});
