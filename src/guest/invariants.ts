/**
 * What must be true of the allocator at any time, checked from scratch: every managed page is in exactly one
 * place, buddies have merged, lists and counters agree with the page state. For tests, simulations and the
 * loading of saved guests; it costs a walk over all pages.
 */
import { NIL, ORDER_MAX, ORDERS, PAGEBLOCK_ORDER } from '../memory/page-blocks.ts';
import { assert, InvariantError } from '../sys/error.ts';
import type { PageAllocator } from './allocator.ts';
import {
  KIND_ALLOCATED,
  KIND_FREE,
  KIND_ISOLATED,
  KIND_MASK,
  KIND_PER_CPU,
  MIGRATE_TYPES,
  type MigrateType,
  ORDER_MASK,
  REPORTED,
} from './page-state.ts';
import type { Zone } from './zone.ts';

/** Pages by where they are. */
export interface Census {
  free: number;
  perCpu: number;
  allocated: number;
  isolated: number;
  reported: number;
}

// Not `assert`, whose message would be made for every page though it is hardly ever read.
function fail(message: string): never {
  throw new InvariantError(message);
}

/** @throws InvariantError that names the first page or list at fault */
export function checkAllocator(allocator: PageAllocator): Census {
  const { pages } = allocator;
  const census: Census = { free: 0, perCpu: 0, allocated: 0, isolated: 0, reported: 0 };
  const blocks = new Map<Zone, Int32Array>(
    allocator.zones.map(zone => [zone, new Int32Array(ORDERS * MIGRATE_TYPES)]),
  );
  let outside = 0;
  for (const { start, end } of allocator.spans) {
    checkUnmanaged(allocator, outside, start);
    for (let pfn = start; pfn < end; ) {
      const state = pages.state[pfn];
      const order = state & ORDER_MASK;
      const size = 1 << order;
      if (order > ORDER_MAX || pfn % size !== 0 || pfn + size > end) fail(`frame ${pfn}: a crooked block`);
      for (let tail = pfn + 1; tail < pfn + size; tail++) {
        if (pages.state[tail] !== 0) fail(`frame ${tail} starts a block inside another`);
      }
      switch (state & KIND_MASK) {
        case KIND_FREE: {
          const buddy = pfn ^ size;
          const merged = order === ORDER_MAX || (pages.state[buddy] & ~REPORTED) !== (KIND_FREE | order);
          if (!merged) fail(`frames ${pfn} and ${buddy} are free buddies that did not merge`);
          const counts = blocks.get(allocator.zoneOf(pfn));
          if (counts !== undefined)
            counts[order * MIGRATE_TYPES + pages.blockType[pfn >>> PAGEBLOCK_ORDER]]++;
          census.free += size;
          if ((state & REPORTED) !== 0) census.reported += size;
          break;
        }
        case KIND_ALLOCATED:
          census.allocated += size;
          if (pages.owner[pfn] !== 0 && allocator.ownerOf(pfn) === undefined) {
            fail(`frame ${pfn}: its owner left`);
          }
          break;
        case KIND_PER_CPU:
          if (order > 0) fail(`frame ${pfn}: a per-cpu page of order ${order}`);
          census.perCpu++;
          break;
        case KIND_ISOLATED:
          census.isolated += size;
          break;
        default:
          fail(`frame ${pfn} is nowhere`);
      }
      pfn += size;
    }
    outside = end;
  }
  checkUnmanaged(allocator, outside, pages.length);
  for (const zone of allocator.zones) {
    checkLists(allocator, zone, blocks.get(zone) ?? new Int32Array());
    checkPerCpu(allocator, zone);
  }
  assert(census.free === allocator.freePages, 'the count of free pages is wrong');
  assert(census.perCpu === allocator.perCpuPages, 'the count of per-cpu pages is wrong');
  return census;
}

function checkUnmanaged({ pages }: PageAllocator, start: number, end: number): void {
  for (let pfn = start; pfn < end; pfn++) {
    if (pages.state[pfn] !== 0) fail(`frame ${pfn} is no memory, yet has a state`);
  }
}

function checkLists(allocator: PageAllocator, zone: Zone, expected: Int32Array): void {
  const { pages } = allocator;
  const { lists } = zone.buddy;
  let free = 0;
  for (let order = 0; order < ORDERS; order++) {
    for (let type = 0; type < MIGRATE_TYPES; type++) {
      const name = `${zone.name}'s free list of order ${order}, type ${type}`;
      let length = 0;
      let before = NIL;
      let reported = false;
      lists.forEach(order, type, pfn => {
        if ((pages.state[pfn] & ~REPORTED) !== (KIND_FREE | order)) fail(`${name} holds frame ${pfn}`);
        if (pages.previous[pfn] !== before) fail(`${name} is torn before frame ${pfn}`);
        if (pages.blockType[pfn >>> PAGEBLOCK_ORDER] !== type) fail(`${name} holds another's frame ${pfn}`);
        if (pfn < zone.start || pfn >= zone.end) fail(`${name} holds another zone's frame ${pfn}`);
        if (reported && !lists.isReported(pfn)) fail(`${name}: unreported frame ${pfn} after a reported one`);
        reported = lists.isReported(pfn);
        before = pfn;
        length++;
        if (length > expected[order * MIGRATE_TYPES + type]) fail(`${name} is longer than its blocks`);
      });
      assert(length === expected[order * MIGRATE_TYPES + type], `${name} lacks blocks`);
      assert(length === lists.length(order, type as MigrateType), `${name} is miscounted`);
      const available = (lists.available[type] & (1 << order)) !== 0;
      assert(available === length > 0, `${name}: its summary bit is wrong`);
      free += length << order;
    }
  }
  assert(free === lists.pages, `${zone.name}: free pages are miscounted`);
}

function checkPerCpu(allocator: PageAllocator, zone: Zone): void {
  const seen = new Set<number>();
  for (let type = 0; type < MIGRATE_TYPES; type++) {
    const hot = zone.hotPages(type as MigrateType);
    for (let i = 0; i < hot.count; i++) {
      const pfn = hot.at(i);
      assert(
        allocator.pages.state[pfn] === KIND_PER_CPU,
        `${zone.name}: per-cpu frame ${pfn} is elsewhere too`,
      );
      seen.add(pfn);
    }
  }
  assert(seen.size === zone.perCpuPages, `${zone.name}: per-cpu pages are miscounted`);
}
