import { describe, expect, it } from 'vitest';
import { PageAllocator } from '../../src/guest/allocator.ts';
import { GFP_DMA32, GFP_HINT, GFP_MEMALLOC, GFP_MOVABLE, GFP_RECLAIMABLE } from '../../src/guest/gfp.ts';
import { checkAllocator } from '../../src/guest/invariants.ts';
import { Random } from '../../src/guest/random.ts';
import type { PageOwner } from '../../src/memory/kernel-memory.ts';
import { NIL, ORDER_MAX, PAGEBLOCK_ORDER } from '../../src/memory/page-blocks.ts';
import { PageRanges } from '../../src/memory/page-ranges.ts';

const MIB = 256;

/** 48 MiB of memory around a hole, in two zones. */
function boot(): PageAllocator {
  const allocator = new PageAllocator({
    spans: [
      { start: 16, end: 20 * MIB },
      { start: 24 * MIB, end: 52 * MIB + 100 },
    ],
    dma32End: 32 * MIB,
  });
  allocator.populate();
  return allocator;
}

const anywhere = GFP_MOVABLE | GFP_MEMALLOC;

describe('the page allocator', () => {
  it('boots with all memory free in the largest blocks that alignment allows', () => {
    const allocator = boot();
    const census = checkAllocator(allocator);
    expect(census.free).toBe(20 * MIB - 16 + 28 * MIB + 100);
    expect(census.free).toBe(allocator.managedPages);
    expect(allocator.freeBlocks(ORDER_MAX)).toBe(4 + 7);
  });

  it('hands out all of its memory once, and gets back all of it merged', () => {
    const allocator = boot();
    const before = PageRanges.of();
    allocator.listFree(before);
    const seen = new Set<number>();
    for (let pfn = allocator.allocate(0, anywhere); pfn !== NIL; pfn = allocator.allocate(0, anywhere)) {
      seen.add(pfn);
    }
    expect(seen.size).toBe(allocator.managedPages);
    expect(checkAllocator(allocator)).toMatchObject({ free: 0, perCpu: 0 });
    for (const pfn of seen) allocator.free(pfn, 0);
    allocator.drainPerCpu();
    checkAllocator(allocator);
    const after = PageRanges.of();
    allocator.listFree(after);
    expect(after.normalize().toArray()).toEqual(before.normalize().toArray());
    expect(allocator.freeBlocks(ORDER_MAX)).toBe(11);
  });

  it('hands out single pages of a fresh block in rising order and reuses freed ones last first', () => {
    const allocator = boot();
    const pfns = Array.from({ length: 300 }, () => allocator.allocate(0, GFP_MOVABLE));
    const rising = pfns.filter((pfn, i) => i > 0 && pfn === pfns[i - 1] + 1);
    expect(rising.length).toBeGreaterThan(290);
    allocator.free(pfns[10], 0);
    allocator.free(pfns[20], 0);
    expect(allocator.allocate(0, GFP_MOVABLE)).toBe(pfns[20]);
    expect(allocator.allocate(0, GFP_MOVABLE)).toBe(pfns[10]);
  });

  it('takes from the normal zone first and from below 4 GiB only if asked or needed', () => {
    const allocator = boot();
    expect(allocator.zoneOf(allocator.allocate(3, GFP_MOVABLE)).name).toBe('Normal');
    expect(allocator.zoneOf(allocator.allocate(3, GFP_MOVABLE | GFP_DMA32)).name).toBe('DMA32');
    const [dma32, normal] = allocator.zones;
    while (allocator.allocate(0, GFP_MOVABLE) !== NIL);
    expect(normal.freePages).toBeGreaterThanOrEqual(normal.watermarks.low);
    expect(dma32.freePages).toBeGreaterThanOrEqual(dma32.watermarks.low + dma32.reserve);
    expect(normal.freePages + dma32.freePages).toBeLessThan(1000);
  });

  it('leaves each watermark intact unless it is told not to', () => {
    const allocator = boot();
    while (allocator.allocate(0, GFP_MOVABLE, 'high') !== NIL);
    const high = allocator.freePages;
    while (allocator.allocate(0, GFP_MOVABLE, 'min') !== NIL);
    expect(allocator.freePages).toBeLessThan(high);
    expect(allocator.freePages).toBeGreaterThan(0);
    while (allocator.allocate(0, anywhere) !== NIL);
    expect(allocator.freePages).toBe(0);
  });

  it('detects a double free, a free of another order, and a free inside a block', () => {
    const allocator = boot();
    const single = allocator.allocate(0, GFP_MOVABLE);
    const block = allocator.allocate(4, GFP_MOVABLE);
    expect(() => allocator.free(block, 3)).toThrow('state');
    expect(() => allocator.free(block + 1, 0)).toThrow('state');
    expect(() => allocator.free(20 * MIB + 5, 0)).toThrow('state');
    allocator.free(single, 0);
    expect(() => allocator.free(single, 0)).toThrow('state');
    allocator.free(block, 4);
    expect(() => allocator.free(block, 4)).toThrow('state');
    checkAllocator(allocator);
  });

  it('splits an allocated block into pages that are freed one by one', () => {
    const allocator = boot();
    const free = allocator.freePages;
    const pfn = allocator.allocate(9, GFP_MOVABLE);
    allocator.split(pfn, 9);
    expect(checkAllocator(allocator).allocated).toBe(512);
    for (let i = 0; i < 512; i++) allocator.free(pfn + i, 0);
    allocator.drainPerCpu();
    expect(allocator.freePages).toBe(free);
    checkAllocator(allocator);
  });

  it('keeps unmovable pages together in pageblocks of their own', () => {
    const allocator = boot();
    const blocks = new Set<number>();
    for (let i = 0; i < 400; i++) {
      blocks.add(allocator.allocate(0, 0) >>> PAGEBLOCK_ORDER);
      allocator.allocate(0, GFP_MOVABLE);
      allocator.allocate(1, GFP_RECLAIMABLE);
    }
    expect(blocks.size).toBeLessThanOrEqual(2);
    checkAllocator(allocator);
  });

  it('counts pages whose owner lets them move as movable', () => {
    const allocator = boot();
    const still: PageOwner = { name: 'slab', contents: 'kept' };
    const mobile: PageOwner = { name: 'process', contents: 'kept', migrate: () => true };
    const pfn = allocator.allocate(0, GFP_MOVABLE);
    expect(allocator.isMovable(pfn)).toBe(false);
    const id = allocator.owners.add(mobile);
    allocator.own(pfn, id, 7);
    expect(allocator.isMovable(pfn)).toBe(true);
    expect(allocator.ownerOf(pfn)).toBe(mobile);
    allocator.own(pfn, allocator.owners.add(still));
    expect(allocator.isMovable(pfn)).toBe(false);
    allocator.owners.remove(id);
    expect(allocator.owners.add({ ...still, name: 'another' })).toBe(id);
    expect(() => allocator.owners.add(still)).toThrow('two owners');
  });
});

describe('free page reporting', () => {
  it('isolates each unreported block once and forgets the report when the block is used', () => {
    const allocator = boot();
    const blocks: number[] = [];
    for (let pfn = allocator.isolateUnreported(10); pfn !== NIL; pfn = allocator.isolateUnreported(10)) {
      blocks.push(pfn);
    }
    const pages = blocks.length << 10;
    expect(new Set(blocks).size).toBe(blocks.length);
    expect(blocks.length).toBeGreaterThan(8);
    expect(checkAllocator(allocator).isolated).toBe(pages);
    for (const pfn of blocks) allocator.putBack(pfn, 10, true);
    expect(checkAllocator(allocator).reported).toBe(pages);
    expect(allocator.freeBlocks(10)).toBe(11);

    let used = allocator.allocate(10, GFP_HINT);
    while (!blocks.includes(used)) used = allocator.allocate(10, GFP_HINT);
    allocator.free(used, 10);
    expect(allocator.isReported(used)).toBe(false);
    expect(allocator.isolateUnreported(10)).toBe(used);
    allocator.putBack(used, 10, false);
    expect(allocator.isReported(used)).toBe(false);
    expect(checkAllocator(allocator).reported).toBeLessThan(pages);
    allocator.forgetReports();
    expect(checkAllocator(allocator).reported).toBe(0);
  });

  it('does not call a block reported that merged with one of which the host knows nothing', () => {
    const allocator = boot();
    const pair = allocator.allocate(10, anywhere);
    allocator.split(pair, 10);
    for (let i = 0; i < 512; i++) allocator.free(pair + i, 0);
    allocator.drainPerCpu();
    let block = allocator.isolateUnreported(9);
    while (block !== pair && block !== NIL) block = allocator.isolateUnreported(9);
    expect(block).toBe(pair);
    for (let i = 512; i < 1024; i++) allocator.free(pair + i, 0);
    allocator.drainPerCpu();
    allocator.putBack(pair, 9, true);
    expect(allocator.orderOf(pair)).toBe(10);
    expect(allocator.isReported(pair)).toBe(false);
    checkAllocator(allocator);
  });

  it('wakes up when a block of 2 MiB or more becomes free, not when one comes back from a report', () => {
    const allocator = boot();
    const freed: number[] = [];
    allocator.onLargeFree = order => freed.push(order);
    const pfn = allocator.allocate(9, GFP_MOVABLE);
    allocator.free(pfn, 9);
    expect(freed).toEqual([10]);
    const block = allocator.isolateUnreported(10);
    allocator.putBack(block, 10, true);
    expect(freed).toEqual([10]);
  });

  it('leaves a zone its low watermark', () => {
    const allocator = boot();
    while (allocator.isolateUnreported(10) !== NIL);
    while (allocator.isolateUnreported(9) !== NIL);
    for (const zone of allocator.zones) expect(zone.freePages).toBeGreaterThanOrEqual(zone.watermarks.low);
  });
});

describe('long random histories', () => {
  const seed = Number(process.env.AEROSTAT_SEED ?? 20_260_701);
  for (let run = 0; run < 6; run++) {
    it(`keep every invariant (AEROSTAT_SEED=${seed}, run ${run})`, () => {
      const random = new Random(seed + run);
      const allocator = boot();
      const id = allocator.owners.add({ name: 'test', contents: 'none', migrate: () => false });
      const held: [pfn: number, order: number][] = [];
      const isolated: [pfn: number, order: number][] = [];
      let pages = 0;
      for (let step = 0; step < 30_000; step++) {
        const want = step % 10_000 < 5_000 ? 0.62 : 0.38;
        if (random.chance(want)) {
          const order = random.chance(0.7) ? 0 : random.below(ORDER_MAX + 1);
          const type = random.below(3);
          const pfn = allocator.allocate(order, type | (random.chance(0.1) ? GFP_MEMALLOC : 0));
          if (pfn === NIL) continue;
          if (type === GFP_MOVABLE && order === 0) allocator.own(pfn, id, step);
          held.push([pfn, order]);
          pages += 1 << order;
        } else if (held.length > 0) {
          const at = random.below(held.length);
          const [pfn, order] = held[at];
          held[at] = held[held.length - 1];
          held.pop();
          if (order > 0 && random.chance(0.1)) {
            allocator.split(pfn, order);
            for (let i = 0; i < 1 << order; i++) allocator.free(pfn + i, 0);
          } else {
            allocator.free(pfn, order);
          }
          pages -= 1 << order;
        }
        if (random.chance(0.01)) {
          const order = random.between(9, 10);
          const pfn = allocator.isolateUnreported(order);
          if (pfn !== NIL) isolated.push([pfn, order]);
        }
        if (isolated.length > 0 && random.chance(0.02)) {
          const [pfn, order] = isolated.splice(random.below(isolated.length), 1)[0];
          allocator.putBack(pfn, order, random.chance(0.8));
        }
        if (random.chance(0.001)) allocator.drainPerCpu();
        if (step % 1000 === 999) {
          const census = checkAllocator(allocator);
          expect(census.allocated).toBe(pages);
          expect(census.isolated).toBe(isolated.reduce((sum, [, order]) => sum + (1 << order), 0));
        }
      }
      for (const [pfn, order] of held) allocator.free(pfn, order);
      for (const [pfn, order] of isolated) allocator.putBack(pfn, order, false);
      allocator.drainPerCpu();
      expect(checkAllocator(allocator)).toMatchObject({ free: allocator.managedPages, perCpu: 0 });
      expect(allocator.freeBlocks(ORDER_MAX)).toBe(11);
    });
  }
});
