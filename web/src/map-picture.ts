/** From a map to pixels: a cell's colour is the mixture of what it is made of. Nothing here touches the page. */
import { decodeShares } from '../../src/control/memory-map.ts';
import type { MapLayer, MemoryMap } from './api.ts';

/** What a cell is made of; the parts of a cell add up to all of it. */
export const PARTS = ['ballooned', 'pending', 'hinted', 'dirty', 'resident', 'reported', 'empty'] as const;
export type MapPart = (typeof PARTS)[number];

type Colours = Readonly<Record<MapPart, readonly [red: number, green: number, blue: number]>>;

export interface Picture {
  readonly map: MemoryMap;
  readonly cells: number;
  /** Shares of each layer, 0 to 255; undefined where the layer is not known. */
  readonly layers: Readonly<Record<MapLayer, Uint8Array | undefined>>;
}

export function pictureOf(map: MemoryMap): Picture {
  const cells = Math.ceil(map.bytes / map.cellBytes);
  const layers = Object.fromEntries(
    Object.entries(map.layers).map(([layer, text]) => [
      layer,
      text === null ? undefined : decodeShares(text, cells),
    ]),
  ) as Picture['layers'];
  return { map, cells, layers };
}

/**
 * Divides a cell among the parts, into `into`, in 255ths. What is known of pages overlaps (a ballooned page that is
 * pending is resident too), so the more telling comes first and the others have what is left.
 */
export function divideCell({ layers }: Picture, cell: number, into: Record<MapPart, number>): void {
  const share = (layer: MapLayer): number => layers[layer]?.[cell] ?? 0;
  into.pending = Math.min(share('pending'), share('ballooned'));
  into.ballooned = share('ballooned') - into.pending;
  let left = 255 - share('ballooned');
  into.dirty = Math.min(left, share('dirty'));
  left -= into.dirty;
  const resident = Math.min(left, Math.max(0, share('resident') - into.pending - into.dirty));
  into.hinted = Math.min(resident, share('hinted'));
  into.resident = resident - into.hinted;
  left -= resident;
  into.reported = Math.min(left, share('reported'));
  into.empty = left - into.reported;
}

/** One pixel a cell; what lies beyond the last cell stays transparent. */
export function paint(picture: Picture, colours: Colours, image: Uint8ClampedArray): void {
  const parts = { ballooned: 0, pending: 0, hinted: 0, dirty: 0, resident: 0, reported: 0, empty: 0 };
  image.fill(0);
  for (let cell = 0; cell < picture.cells; cell++) {
    divideCell(picture, cell, parts);
    let red = 0;
    let green = 0;
    let blue = 0;
    for (const part of PARTS) {
      const weight = parts[part];
      if (weight === 0) continue;
      const [r, g, b] = colours[part];
      // Squares mix as light does, so that half and half is not darker than either.
      red += weight * r * r;
      green += weight * g * g;
      blue += weight * b * b;
    }
    const at = cell * 4;
    image[at] = Math.sqrt(red / 255);
    image[at + 1] = Math.sqrt(green / 255);
    image[at + 2] = Math.sqrt(blue / 255);
    image[at + 3] = 255;
  }
}

/** Columns for a box of this width: a power of two, so that rows begin at round addresses. */
export function columnsFor(width: number, cells: number): number {
  let columns = width < 560 ? 64 : 128;
  while (columns > 16 && columns * columns > cells * 8) columns /= 2;
  return columns;
}

/** Where an address that counts through the regions lies in the guest's physical addresses. */
export function physicalOf({ regions }: MemoryMap, offset: number): number {
  let base = 0;
  for (const { guestAddress, bytes } of regions) {
    if (offset < base + bytes) return guestAddress + offset - base;
    base += bytes;
  }
  return offset;
}
