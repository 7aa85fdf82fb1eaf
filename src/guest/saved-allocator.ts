/**
 * Saving and loading the page allocator: where every page is, in the order of the lists, so that a resumed guest
 * goes on exactly as the saved one would have. Loading believes nothing: each page is claimed once, inside of
 * memory, by a block that may stand there.
 *
 * Allocated pages are saved as runs: neighbours of one order, owner and flags whose index counts up.
 */

import { PageBitmap } from '../memory/page-bitmap.ts';
import { ORDER_MAX, ORDERS } from '../memory/page-blocks.ts';
import type { PageAllocator } from './allocator.ts';
import {
  KIND_ALLOCATED,
  KIND_ISOLATED,
  KIND_MASK,
  KIND_PER_CPU,
  MIGRATE_TYPES,
  type MigrateType,
  ORDER_MASK,
  type PageState,
} from './page-state.ts';
import { SavedGuestError, type StateReader, type StateWriter } from './saved-state.ts';
import type { Zone } from './zone.ts';

/** More names of owners than any guest has processes, and few enough to read before anything is checked. */
const OWNERS_SAVED_MAX = 2 ** 16;
const RUN_WORDS = 4;
/** Below so many pages storing one by one is faster than four calls that fill. */
const SHORT_RUN = 32;

export function saveAllocator(allocator: PageAllocator, into: StateWriter): void {
  const { pages, spans, zones } = allocator;
  into.array(spans.flatMap(({ start, end }) => [start, end]));
  into.array(zones.map(zone => zone.start));
  into.array(pages.blockType);
  const names = allocator.owners.names;
  into.u32(names.length);
  for (const name of names) into.text(name);
  for (const zone of zones) {
    for (let order = 0; order < ORDERS; order++) {
      for (let type = 0; type < MIGRATE_TYPES; type++) saveList(zone, order, type, into);
    }
    for (let type = 0; type < MIGRATE_TYPES; type++) {
      const hot = zone.hotPages(type as MigrateType);
      into.array(Array.from({ length: hot.count }, (_, i) => hot.at(i)));
    }
    into.integer(zone.buddy.fallbacks);
    into.integer(zone.buddy.steals);
  }
  saveBlocks(allocator, into);
  into.integer(allocator.allocated);
  into.integer(allocator.freed);
}

function saveList(zone: Zone, order: number, type: number, into: StateWriter): void {
  const { lists } = zone.buddy;
  let reported = 0;
  const start = into.open();
  lists.forEach(order, type, pfn => {
    into.u32(pfn);
    if (lists.isReported(pfn)) reported++;
  });
  into.close(start);
  into.u32(reported);
}

/** Isolated and allocated blocks. */
function saveBlocks({ pages, spans }: PageAllocator, into: StateWriter): void {
  const isolated: number[] = [];
  const start = into.open();
  const { state } = pages;
  for (const span of spans) {
    for (let pfn = span.start; pfn < span.end; ) {
      const kind = state[pfn] & KIND_MASK;
      if (kind === KIND_ALLOCATED) {
        pfn = saveRun(pages, pfn, span.end, into);
        continue;
      }
      const order = state[pfn] & ORDER_MASK;
      if (kind === KIND_ISOLATED) isolated.push(pfn, order);
      pfn += kind === 0 ? 1 : 1 << order;
    }
  }
  into.close(start);
  into.array(isolated);
}

/** The run of allocated blocks that begins at `pfn`; returns where it ends. */
function saveRun(pages: PageState, pfn: number, end: number, into: StateWriter): number {
  const { state: states, flags, owner: owners, index } = pages;
  const state = states[pfn];
  const order = state & ORDER_MASK;
  const owner = owners[pfn];
  // A page without an owner has no index, only what its former owner left there.
  const step = owner === 0 ? 0 : 1;
  const first = step * index[pfn];
  let next = pfn + (1 << order);
  let count = 1;
  while (
    next < end &&
    states[next] === state &&
    owners[next] === owner &&
    flags[next] === flags[pfn] &&
    (step === 0 || index[next] === (first + count) >>> 0)
  ) {
    count++;
    next += 1 << order;
  }
  into.u32(pfn);
  into.u32(count);
  into.u32((order | (flags[pfn] << 8) | (owner << 16)) >>> 0);
  into.u32(first);
  return next;
}

/**
 * Loads what {@link saveAllocator} wrote into an allocator over the same memory that was never populated.
 * @throws SavedGuestError when it is for another memory, or impossible
 */
export function loadAllocator(allocator: PageAllocator, from: StateReader): void {
  const { pages, spans, zones } = allocator;
  const layout = [...spans.flatMap(({ start, end }) => [start, end]), ...zones.map(zone => zone.start)];
  const saved = [...from.array('memory spans', layout.length), ...from.array('zones', layout.length)];
  if (saved.length !== layout.length || saved.some((word, i) => word !== layout[i])) {
    throw new SavedGuestError('it is a guest of another memory layout');
  }
  const types = from.array('migrate types', pages.blockType.length);
  if (types.length !== pages.blockType.length || types.some(type => type >= MIGRATE_TYPES)) {
    throw new SavedGuestError('its migrate types are wrong');
  }
  pages.blockType.set(types);
  const owners = from.u32('owners', OWNERS_SAVED_MAX);
  const names = Array.from({ length: owners }, () => from.text('the name of an owner'));
  if (new Set(names.filter(name => name !== '')).size !== names.filter(name => name !== '').length) {
    throw new SavedGuestError('two owners of pages have one name');
  }
  const present = allocator.owners.names;
  if (present.some((name, id) => names[id] !== name)) {
    throw new SavedGuestError('the first owners of pages are not those of a guest kernel');
  }
  allocator.owners.expect(names);

  const loading = new Loading(allocator, names);
  for (const zone of zones) loading.zone(zone, from);
  loading.blocks(from);
  loading.complete();
  allocator.allocated = from.integer('pages allocated');
  allocator.freed = from.integer('pages freed');
}

class Loading {
  readonly #allocator: PageAllocator;
  /** For each id, whether there is such an owner; 0 is none. */
  readonly #named: Uint8Array;
  readonly #claimed: PageBitmap;
  #span = { start: 0, end: 0 };
  #pages = 0;

  constructor(allocator: PageAllocator, names: readonly string[]) {
    this.#allocator = allocator;
    this.#named = Uint8Array.from(names, (name, id) => (id === 0 || name !== '' ? 1 : 0));
    this.#claimed = new PageBitmap(allocator.pages.length);
  }

  /** Checks that `count` blocks of `order` from `pfn` on may stand there and nothing else does yet. */
  #claim(pfn: number, order: number, count = 1): void {
    const size = count * (1 << order);
    if (pfn % (1 << order) !== 0 || !this.#inside(pfn, size) || this.#claimed.set(pfn, size) !== size) {
      throw new SavedGuestError(`a block of order ${order} cannot be at frame ${pfn}`);
    }
    this.#pages += size;
  }

  #inside(pfn: number, size: number): boolean {
    // One after the other they are mostly where the last one was.
    const { start, end } = this.#span;
    if (pfn >= start && pfn + size <= end) return true;
    const span = this.#allocator.spans.find(one => pfn >= one.start && pfn + size <= one.end);
    if (span === undefined) return false;
    this.#span = span;
    return true;
  }

  zone(zone: Zone, from: StateReader): void {
    const { pages } = this.#allocator;
    const blocksMax = zone.managedPages;
    for (let order = 0; order < ORDERS; order++) {
      for (let type = 0; type < MIGRATE_TYPES; type++) {
        const list = from.array('a free list', blocksMax);
        const reported = from.u32('reported blocks', list.length);
        list.forEach((pfn, i) => {
          this.#claim(pfn, order);
          if (this.#allocator.zoneOf(pfn) !== zone || zone.buddy.typeOf(pfn) !== type) {
            throw new SavedGuestError(`frame ${pfn} is on a free list that is not its own`);
          }
          zone.buddy.append(pfn, order, i >= list.length - reported);
        });
      }
    }
    for (let type = 0; type < MIGRATE_TYPES; type++) {
      const hot = zone.hotPages(type as MigrateType);
      for (const pfn of from.array('a per-cpu list', hot.capacity)) {
        this.#claim(pfn, 0);
        if (this.#allocator.zoneOf(pfn) !== zone)
          throw new SavedGuestError(`frame ${pfn} is in another zone`);
        pages.state[pfn] = KIND_PER_CPU;
        hot.pushCold(pfn);
        zone.perCpuPages++;
      }
    }
    zone.buddy.fallbacks = from.integer('fallbacks');
    zone.buddy.steals = from.integer('steals');
  }

  blocks(from: StateReader): void {
    const { pages, managedPages } = this.#allocator;
    const runs = from.view('allocated blocks', RUN_WORDS * managedPages);
    for (let i = 0; i + RUN_WORDS <= runs.length; i += RUN_WORDS) {
      // Word by word: there may be a run for every page.
      const start = runs[i];
      const count = runs[i + 1];
      const meta = runs[i + 2];
      const index = runs[i + 3];
      const order = this.#order(meta & 0xff);
      const owner = meta >>> 16;
      if (count === 0 || count > managedPages || (owner !== 0 && this.#named[owner] !== 1)) {
        throw new SavedGuestError(`the allocated pages at frame ${start} have no owner`);
      }
      this.#claim(start, order, count);
      const flags = (meta >>> 8) & 0xff;
      if (order === 0 && count < SHORT_RUN) {
        for (let page = 0; page < count; page++) {
          pages.state[start + page] = KIND_ALLOCATED;
          pages.flags[start + page] = flags;
          pages.owner[start + page] = owner;
          pages.index[start + page] = index + page;
        }
        continue;
      }
      if (order === 0) {
        // Nearly all of what a guest uses are single pages, many to a run.
        pages.state.fill(KIND_ALLOCATED, start, start + count);
        pages.flags.fill(flags, start, start + count);
        pages.owner.fill(owner, start, start + count);
        for (let page = 0; page < count; page++) pages.index[start + page] = index + page;
        continue;
      }
      for (let block = 0; block < count; block++) {
        const pfn = start + (block << order);
        pages.state[pfn] = KIND_ALLOCATED | order;
        pages.flags[pfn] = flags;
        pages.owner[pfn] = owner;
        pages.index[pfn] = index + block;
      }
    }
    const isolated = from.array('isolated blocks', 2 * managedPages);
    for (let i = 0; i + 1 < isolated.length; i += 2) {
      const order = this.#order(isolated[i + 1]);
      this.#claim(isolated[i], order);
      pages.state[isolated[i]] = KIND_ISOLATED | order;
    }
  }

  #order(order: number): number {
    if (order > ORDER_MAX) throw new SavedGuestError(`a block of order ${order}, above ${ORDER_MAX}`);
    return order;
  }

  complete(): void {
    const missing = this.#allocator.managedPages - this.#pages;
    if (missing !== 0) throw new SavedGuestError(`${missing} pages are nowhere`);
  }
}
