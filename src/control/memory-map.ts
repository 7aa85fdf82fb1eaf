/**
 * What a map of a guest's memory says, and how its layers are written down. Nothing here needs Node: the page in the
 * browser reads maps with the same code that the daemon writes them with.
 *
 * A map cuts guest memory into cells of equal size and says for each layer which share of each cell is in it. One
 * byte a cell is enough for an eye, and runs of equal cells are common, so a layer is run-length encoded: pairs of
 * the share and the length of its run as LEB128, all of it in base64.
 */

/**
 * `resident`: the host holds memory for it, and has not swapped it out. `ballooned`: the guest gave it away and has not
 * taken it back; of that `pending` is not yet given back to the host. `reported`: given back by free page reporting, and
 * neither resident nor ballooned since. `hinted`: the guest said in the newest hint session that it does not use it.
 * `dirty`: the migration under way has it still to send; not known where none is under way.
 */
export const MAP_LAYERS = ['resident', 'ballooned', 'pending', 'reported', 'hinted', 'dirty'] as const;

export type MapLayer = (typeof MAP_LAYERS)[number];

/** A square of 64 by 64: as many cells as an eye tells apart, and at 2 MiB a cell an 8 GiB guest. */
export const MAP_CELLS_MAX = 4096;

export interface MapRegion {
  readonly guestAddress: number;
  readonly bytes: number;
}

/** Addresses of a map count through the regions in rising order, as if there were no gaps between them. */
export interface MemoryMap {
  readonly memoryBytes: number;
  /** Where the first cell begins; a multiple of {@link cellBytes}. */
  readonly fromBytes: number;
  /** What the cells cover; the last cell may be cut short by the end of memory. */
  readonly bytes: number;
  /** A power of two, a page at least. */
  readonly cellBytes: number;
  /** Where guest memory lies in the guest's physical addresses. */
  readonly regions: readonly MapRegion[];
  /** Exact sizes of the layers within the map; null where it is not known. */
  readonly totals: Readonly<Record<MapLayer, number | null>>;
  /** The layers, encoded; null where it is not known. */
  readonly layers: Readonly<Record<MapLayer, string | null>>;
  /** What was not looked at yet: the resident layer is empty there, whatever the host holds. */
  readonly unseenBytes: number;
  /** Age of the oldest part of the resident layer, which takes its time; null when a part was never looked at. */
  readonly residentAgeMs: number | null;
}

export interface MapOptions {
  /** Where the map is to begin; rounded down to whole cells. */
  readonly fromBytes?: number;
  /** How much it is to cover; all from there when left out. */
  readonly bytes?: number;
  /** Cells at most. */
  readonly cells?: number;
}

/** 0 when nothing of a cell is in the layer, 255 when all of it is, and in between in proportion. */
export function shareOf(pages: number, of: number): number {
  if (pages === 0) return 0;
  if (pages >= of) return 255;
  return Math.max(1, Math.min(254, Math.round((pages * 255) / of)));
}

export function encodeShares(shares: Uint8Array): string {
  const bytes: number[] = [];
  for (let at = 0; at < shares.length; ) {
    const share = shares[at];
    let end = at + 1;
    while (end < shares.length && shares[end] === share) end++;
    bytes.push(share);
    let run = end - at;
    while (run >= 0x80) {
      bytes.push((run & 0x7f) | 0x80);
      run >>>= 7;
    }
    bytes.push(run);
    at = end;
  }
  // In pieces: a call takes only so many arguments.
  let text = '';
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.slice(at, at + 4096));
  return btoa(text);
}

/** @throws RangeError when the text is no layer of `cells` cells */
export function decodeShares(text: string, cells: number): Uint8Array {
  const bytes = bytesOf(text);
  const shares = new Uint8Array(cells);
  let filled = 0;
  for (let at = 0; at < bytes.length; ) {
    const share = bytes.charCodeAt(at++);
    let run = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = at < bytes.length && shift < 28 ? bytes.charCodeAt(at++) : Number.NaN;
      if (Number.isNaN(byte)) throw new RangeError('a layer of a map is cut short');
      run |= (byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    if (run === 0 || run > cells - filled)
      throw new RangeError('a layer of a map has more cells than the map');
    shares.fill(share, filled, filled + run);
    filled += run;
  }
  if (filled !== cells) throw new RangeError('a layer of a map has fewer cells than the map');
  return shares;
}

function bytesOf(text: string): string {
  try {
    return atob(text);
  } catch {
    throw new RangeError('a layer of a map is not base64');
  }
}
