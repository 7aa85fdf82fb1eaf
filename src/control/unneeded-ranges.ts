/**
 * The pages that a guest does not use, as ranges of its physical addresses and as a bitmap: what is in its balloon, and
 * what it named in its newest hint session. Read from its map, page by page.
 */
import { PAGE_SIZE } from '../memory/page.ts';
import { GuestStateError } from './errors.ts';
import { decodeShares, MAP_CELLS_MAX, type MapRegion, type MemoryMap } from './memory-map.ts';
import type { GuestControl } from './operations.ts';

/** A map of so much has a cell for each page. */
const MAP_BYTES = MAP_CELLS_MAX * PAGE_SIZE;
const WHOLE = 255;

/** By what a range is known to be unused: it is in the balloon, or it was named in the hint session. */
type UnneededBy = 'balloon' | 'hint';

export interface UnneededRange {
  readonly guestAddress: number;
  readonly bytes: number;
  readonly by: UnneededBy;
}

interface Unneeded {
  readonly memoryBytes: number;
  readonly regions: readonly MapRegion[];
  readonly ranges: readonly UnneededRange[];
}

/** @throws GuestStateError when the guest's hypervisor tells no map */
export async function unneededRanges(control: GuestControl, name: string, hints: boolean): Promise<Unneeded> {
  const ranges: UnneededRange[] = [];
  let map: MemoryMap;
  let fromBytes = 0;
  do {
    map = await control.map(name, { fromBytes, bytes: MAP_BYTES, cells: MAP_CELLS_MAX });
    if (map.cellBytes !== PAGE_SIZE) throw new GuestStateError(`the map of ${name} has no single pages`);
    addRanges(ranges, map, hints);
    fromBytes = map.fromBytes + map.bytes;
  } while (fromBytes < map.memoryBytes);
  return { memoryBytes: map.memoryBytes, regions: map.regions, ranges };
}

/** Ranges of one map, joined with what came before. */
function addRanges(ranges: UnneededRange[], map: MemoryMap, hints: boolean): void {
  const { fromBytes, bytes, layers, regions } = map;
  const pages = bytes / PAGE_SIZE;
  const layer = (text: string | null) => (text === null ? undefined : decodeShares(text, pages));
  const ballooned = layer(layers.ballooned);
  const hinted = hints ? layer(layers.hinted) : undefined;
  const by = (page: number): UnneededBy | undefined => {
    if (ballooned?.[page] === WHOLE) return 'balloon';
    return hinted?.[page] === WHOLE ? 'hint' : undefined;
  };
  const addresses = addressesIn(regions, fromBytes);
  for (let page = 0; page < pages; page++) {
    const guestAddress = addresses.next();
    const reason = by(page);
    if (reason === undefined) continue;
    const last = ranges.at(-1);
    if (last?.by === reason && last.guestAddress + last.bytes === guestAddress) {
      ranges[ranges.length - 1] = { ...last, bytes: last.bytes + PAGE_SIZE };
    } else {
      ranges.push({ guestAddress, bytes: PAGE_SIZE, by: reason });
    }
  }
}

/** Addresses of pages one after the other: a map counts through the regions, without the gaps between them. */
function addressesIn(regions: readonly MapRegion[], fromBytes: number): { next(): number } {
  let region = 0;
  let at = fromBytes;
  while (region < regions.length && at >= regions[region].bytes) at -= regions[region++].bytes;
  return {
    next() {
      const { guestAddress, bytes } = regions[region];
      const address = guestAddress + at;
      at += PAGE_SIZE;
      if (at >= bytes) {
        at = 0;
        region++;
      }
      return address;
    },
  };
}

/** A bit for each page in the order of the regions, without the gaps between them, the lowest first; 1: not needed. */
export function bitmapOf(regions: readonly MapRegion[], ranges: readonly UnneededRange[]): Uint8Array {
  const pages = regions.reduce((sum, { bytes }) => sum + bytes / PAGE_SIZE, 0);
  const bitmap = new Uint8Array(Math.ceil(pages / 8));
  let firstPage = 0;
  for (const { guestAddress, bytes } of regions) {
    for (const range of ranges) {
      const from = Math.max(range.guestAddress, guestAddress);
      const to = Math.min(range.guestAddress + range.bytes, guestAddress + bytes);
      for (let at = from; at < to; at += PAGE_SIZE) {
        const page = firstPage + (at - guestAddress) / PAGE_SIZE;
        bitmap[page >>> 3] |= 1 << (page & 7);
      }
    }
    firstPage += bytes / PAGE_SIZE;
  }
  return bitmap;
}
