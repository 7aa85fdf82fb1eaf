/**
 * Draws the map of one guest's memory, in the daemon's main thread: counts pages in the bitmaps that a data-plane
 * thread shared, and keeps looking which of them the host holds.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { GuestStateError } from '../control/errors.ts';
import {
  encodeShares,
  MAP_CELLS_MAX,
  MAP_LAYERS,
  type MapLayer,
  type MapOptions,
  type MemoryMap,
  shareOf,
} from '../control/memory-map.ts';
import { BLOCK_PAGES, BlockBitmap, type BlockWords } from '../memory/block-bitmap.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { maskOf, PageBitmap, popcount } from '../memory/page-bitmap.ts';
import { CHUNK_PAGES } from '../memory/page-set.ts';
import { PendingDiscards } from '../memory/pending-discards.ts';
import { OwnedFd } from '../sys/fd.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { MapSources, RegionSource } from './map-sources.ts';
import { Residency } from './residency.ts';

/** Time for looking at memory that was seen before: a percent of a core for a page that asks once a second. */
const LOOK_MS_MAX = 12;
/** Time for memory that was not looked at yet: enough for some 25 GiB, and then the map says that it is not whole. */
const FIRST_LOOK_MS_MAX = 200;
/** While memory is on its way to the host, the processors are its: looking has this share of its time. */
const BUSY_SHARE = 1 / 6;
/** Other requests have their turn after this long. */
const SLICE_MS = 3;

/** The part of a region that lies in the map. Pages count from the region's start, `at` from the map's. */
interface Part {
  readonly region: RegionSource;
  readonly residency: Residency | undefined;
  readonly firstPage: number;
  readonly pages: number;
  readonly at: number;
}

type CountIn = (start: number, count: number) => number;

interface Extent {
  readonly firstPage: number;
  readonly pages: number;
  readonly cellPages: number;
}

export class MapSurvey {
  #residencies = new Map<string, Residency>();
  /** Counts the maps, so that every region has its turn. */
  #turn = 0;

  /**
   * Draws the map, and closes the descriptors in `sources`.
   * @throws GuestStateError when the guest has no memory
   */
  async draw(name: string, sources: MapSources, options: MapOptions): Promise<MemoryMap> {
    const files = new Map<RegionSource, OwnedFd>();
    for (const region of sources.regions) {
      if (region.file !== null) files.set(region, new OwnedFd(region.file.fd));
    }
    try {
      if (sources.regions.length === 0)
        throw new GuestStateError(`${name} has no memory to map: no guest is connected`);
      this.#remember(sources.regions);
      const memoryPages = sources.regions.reduce((total, { bytes }) => total + bytes / PAGE_SIZE, 0);
      const extent = extentOf(memoryPages, options);
      const parts = this.#parts(sources.regions, extent);
      await look(parts, files, this.#turn++);
      return await mapOf(sources, memoryPages, extent, parts);
    } finally {
      for (const fd of files.values()) fd.close();
    }
  }

  /** Keeps what is known of regions that are still there, and of no others. */
  #remember(regions: readonly RegionSource[]): void {
    const before = this.#residencies;
    this.#residencies = new Map();
    for (const { identity, bytes, file } of regions) {
      if (file === null) continue;
      this.#residencies.set(identity, before.get(identity) ?? new Residency(bytes / PAGE_SIZE));
    }
  }

  #parts(regions: readonly RegionSource[], { firstPage, pages }: Extent): Part[] {
    const parts: Part[] = [];
    let base = 0;
    for (const region of regions) {
      const regionPages = region.bytes / PAGE_SIZE;
      const from = Math.max(firstPage, base);
      const to = Math.min(firstPage + pages, base + regionPages);
      if (from < to) {
        const residency = this.#residencies.get(region.identity);
        parts.push({ region, residency, firstPage: from - base, pages: to - from, at: from - firstPage });
      }
      base += regionPages;
    }
    return parts;
  }
}

/** The cells that cover at least what was asked for, and are no more than asked for. */
function extentOf(memoryPages: number, { fromBytes = 0, bytes, cells = MAP_CELLS_MAX }: MapOptions): Extent {
  const from = Math.min(Math.floor(fromBytes / PAGE_SIZE), memoryPages - 1);
  const wanted = bytes === undefined ? memoryPages : Math.max(1, Math.ceil(bytes / PAGE_SIZE));
  const to = Math.min(from + wanted, memoryPages);
  let cellPages = 1;
  while (Math.ceil(to / cellPages) - Math.floor(from / cellPages) > cells) cellPages *= 2;
  const firstPage = Math.floor(from / cellPages) * cellPages;
  const pages = Math.min(Math.ceil(to / cellPages) * cellPages, memoryPages) - firstPage;
  return { firstPage, pages, cellPages };
}

/** Lets other requests have their turn when this one had its slice. */
class Slices {
  readonly startedMs = monotonicMs();
  #endMs = this.startedMs + SLICE_MS;

  /** Time since the beginning. */
  get elapsedMs(): number {
    return monotonicMs() - this.startedMs;
  }

  get over(): boolean {
    return monotonicMs() > this.#endMs;
  }

  async pause(): Promise<void> {
    await nextTurn();
    this.#endMs = monotonicMs() + SLICE_MS;
  }
}

/**
 * Looks at what was never looked at, and then at what has its turn again, in slices. `turn` says which part comes first: a
 * large one would take all the time each time.
 */
async function look(
  parts: readonly Part[],
  files: ReadonlyMap<RegionSource, OwnedFd>,
  turn: number,
): Promise<void> {
  const share = parts.some(({ region }) => pendingOf(region).outstanding > 0) ? BUSY_SHARE : 1;
  const slices = new Slices();
  const looked = parts.flatMap(({ region, residency, firstPage, pages }) => {
    const fd = files.get(region);
    if (fd === undefined || residency === undefined || region.file === null) return [];
    return [{ residency, firstPage, pages, file: { fd, fileOffset: region.file.fileOffset } }];
  });
  for (const { residency, firstPage, pages, file } of looked) {
    let block = residency.nextUnseen(0, firstPage, pages);
    while (block !== undefined && slices.elapsedMs <= share * FIRST_LOOK_MS_MAX) {
      residency.look(block, file);
      if (slices.over) await slices.pause();
      block = residency.nextUnseen(block + 1, firstPage, pages);
    }
  }
  for (let index = 0; index < looked.length; index++) {
    const { residency, firstPage, pages, file } = looked[(turn + index) % looked.length];
    while (slices.elapsedMs <= share * LOOK_MS_MAX) {
      const block = residency.nextStale(firstPage, pages);
      if (block === undefined) break;
      residency.look(block, file);
      if (slices.over) await slices.pause();
    }
  }
}

async function mapOf(
  sources: MapSources,
  memoryPages: number,
  extent: Extent,
  parts: readonly Part[],
): Promise<MemoryMap> {
  const { firstPage, pages, cellPages } = extent;
  const layers: Record<string, string | null> = {};
  const totals: Record<string, number | null> = {};
  const slices = new Slices();
  for (const layer of MAP_LAYERS) {
    const counts = await countLayer(layer, extent, parts, sources.hinted, slices);
    layers[layer] = counts === null ? null : encodeShares(sharesOf(counts, extent));
    totals[layer] = counts === null ? null : counts.reduce((total, count) => total + count, 0) * PAGE_SIZE;
  }
  return {
    memoryBytes: memoryPages * PAGE_SIZE,
    fromBytes: firstPage * PAGE_SIZE,
    bytes: pages * PAGE_SIZE,
    cellBytes: cellPages * PAGE_SIZE,
    regions: sources.regions.map(({ guestAddress, bytes }) => ({ guestAddress, bytes })),
    totals: totals as MemoryMap['totals'],
    layers: layers as MemoryMap['layers'],
    unseenBytes: unseenPages(parts) * PAGE_SIZE,
    residentAgeMs: residentAge(parts),
  };
}

const unseenPages = (parts: readonly Part[]): number =>
  parts.reduce(
    (total, { residency, firstPage, pages }) => total + (residency?.unseenIn(firstPage, pages) ?? pages),
    0,
  );

function residentAge(parts: readonly Part[]): number | null {
  const oldest = parts.map(({ residency, firstPage, pages }) =>
    residency === undefined ? Number.NEGATIVE_INFINITY : residency.oldestMs(firstPage, pages),
  );
  const age = monotonicMs() - Math.min(...oldest);
  return Number.isFinite(age) ? age : null;
}

function sharesOf(counts: Float64Array, { pages, cellPages }: Extent): Uint8Array {
  const shares = new Uint8Array(counts.length);
  for (let cell = 0; cell < counts.length; cell++) {
    shares[cell] = shareOf(counts[cell], Math.min(cellPages, pages - cell * cellPages));
  }
  return shares;
}

/** Pages of the layer in each cell; null where it is not known. */
async function countLayer(
  layer: MapLayer,
  { pages, cellPages }: Extent,
  parts: readonly Part[],
  hinted: MapSources['hinted'],
  slices: Slices,
): Promise<Float64Array | null> {
  const counts = new Float64Array(Math.ceil(pages / cellPages));
  const chunks = new Map([...hinted].map(([number, words]) => [number, new PageBitmap(CHUNK_PAGES, words)]));
  for (const part of parts) {
    const countIn = counter(layer, part, chunks);
    if (countIn === null) return null;
    for (let done = 0; done < part.pages; ) {
      const cell = Math.floor((part.at + done) / cellPages);
      const count = Math.min((cell + 1) * cellPages - part.at - done, part.pages - done);
      counts[cell] += countIn(part.firstPage + done, count);
      done += count;
      if (slices.over) await slices.pause();
    }
  }
  return counts;
}

/** Counts pages of the layer in a region. */
function counter(
  layer: MapLayer,
  { region, residency }: Part,
  hinted: ReadonlyMap<number, PageBitmap>,
): CountIn | null {
  const { bytes, guestAddress, unitPages } = region;
  const regionPages = bytes / PAGE_SIZE;
  const inBitmap = (parts: BlockWords): CountIn => {
    const bitmap = new BlockBitmap(regionPages, parts);
    return (start, count) => bitmap.countIn(start, count);
  };
  switch (layer) {
    case 'resident':
      return residency === undefined ? null : (start, count) => residency.countIn(start, count);
    case 'ballooned':
      return inBitmap(region.ballooned);
    case 'reported':
      return reportedAndUnused(region, residency);
    case 'pending':
      return inUnits(pendingOf(region), unitPages, new BlockBitmap(regionPages, region.ballooned));
    case 'dirty':
      // The migration knows, and adds it.
      return null;
    case 'hinted':
      return (start, count) => countInChunks(hinted, guestAddress / PAGE_SIZE + start, count);
  }
}

const pendingOf = ({ pending, bytes, unitPages }: RegionSource): PendingDiscards =>
  new PendingDiscards(pending, bytes / PAGE_SIZE / unitPages, unitPages * PAGE_SIZE);

/** Pages that were reported and were not seen in use since. */
function reportedAndUnused({ bytes, ...region }: RegionSource, residency: Residency | undefined): CountIn {
  const reported = new BlockBitmap(bytes / PAGE_SIZE, region.reported);
  const ballooned = new BlockBitmap(bytes / PAGE_SIZE, region.ballooned);
  return (start, count) => {
    const end = start + count;
    let total = 0;
    for (let at = start; at < end; ) {
      const block = Math.floor(at / BLOCK_PAGES);
      const to = Math.min(end, (block + 1) * BLOCK_PAGES);
      if (!reported.emptyBlock(block)) {
        for (let word = at >>> 5; word * 32 < to; word++) {
          const used = ballooned.wordAt(word) | (residency?.wordAt(word) ?? 0);
          total += popcount(maskOf(word, at, to) & reported.wordAt(word) & ~used);
        }
      }
      at = to;
    }
    return total;
  };
}

/** What is pending is ballooned, too: blocks without a ballooned page need not be gone through. */
function inUnits(pending: PendingDiscards, unitPages: number, ballooned: BlockBitmap): CountIn {
  if (pending.outstanding === 0) return () => 0;
  if (unitPages === 1) {
    return (start, count) => {
      let total = 0;
      for (let at = start; at < start + count; ) {
        const block = Math.floor(at / BLOCK_PAGES);
        const part = Math.min((block + 1) * BLOCK_PAGES, start + count) - at;
        if (!ballooned.emptyBlock(block)) total += pending.countIn(at, part);
        at += part;
      }
      return total;
    };
  }
  return (start, count) => {
    let total = 0;
    for (let at = start; at < start + count; ) {
      const unit = Math.floor(at / unitPages);
      const part = Math.min((unit + 1) * unitPages, start + count) - at;
      total += part * pending.countIn(unit, 1);
      at += part;
    }
    return total;
  };
}

function countInChunks(chunks: ReadonlyMap<number, PageBitmap>, pfn: number, count: number): number {
  if (chunks.size === 0) return 0;
  let total = 0;
  for (let at = pfn; at < pfn + count; ) {
    const start = at % CHUNK_PAGES;
    const part = Math.min(pfn + count - at, CHUNK_PAGES - start);
    total += chunks.get(Math.floor(at / CHUNK_PAGES))?.countIn(start, part) ?? 0;
    at += part;
  }
  return total;
}
