/** The allocator whose state a host may share: what it hands out, and what it makes of words that the host has changed. */
import { describe, expect, it } from 'vitest';
import {
  FRAME_EVICTED,
  FRAME_FREE,
  FRAME_HELD,
  FRAME_PAGES,
  FRAME_RECLAIMING,
  sharedWordCount,
  treeOf,
} from '../../src/balloon/shared-frames.ts';
import { Random } from '../../src/guest/random.ts';
import { LASTING, PASSING, TwoLevelFrames } from '../../src/guest/two-level.ts';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { NIL, ORDER_MAX } from '../../src/memory/page-blocks.ts';
import { SharedWords } from '../../src/memory/shared-words.ts';

const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_817);
/** More than one tree. */
const FRAMES = 40;

function open(frames = FRAMES) {
  const size = frames * FRAME_PAGES * 4096;
  const memory = new GuestMemory([
    new MemoryRegion({ guestAddress: 0, size, userAddress: 0 }, new HeapBacking(size)),
  ]);
  const allocator = new TwoLevelFrames(memory, 0, frames);
  const words = new SharedWords(memory, allocator.table.address, sharedWordCount(frames));
  return { memory, allocator, words };
}

describe('the allocator of two levels', () => {
  it('hands out every page once, in blocks of any order, and takes them back', () => {
    const { allocator } = open();
    const all = FRAMES * FRAME_PAGES - allocator.reservedPages;
    expect(allocator.freePages).toBe(all);
    const random = new Random(SEED);
    const used = new Uint8Array(FRAMES * FRAME_PAGES);
    used.fill(1, 0, allocator.reservedPages);
    const blocks: { pfn: number; order: number }[] = [];
    for (let order = ORDER_MAX; order >= 0; ) {
      const pfn = allocator.allocate(order);
      if (pfn === NIL) {
        order--;
        continue;
      }
      expect(pfn % (1 << order)).toBe(0);
      expect(used.subarray(pfn, pfn + (1 << order)).includes(1)).toBe(false);
      used.fill(1, pfn, pfn + (1 << order));
      blocks.push({ pfn, order });
      if (random.below(3) === 0) order = random.below(ORDER_MAX + 1);
    }
    expect(used.includes(0)).toBe(false);
    expect(allocator.freePages).toBe(0);
    for (const { pfn, order } of blocks) allocator.free(pfn, order);
    expect(allocator.freePages).toBe(all);
    // All frames but the state's are whole again.
    for (let frame = 1; frame < FRAMES; frame++) expect(allocator.wordOf(frame)).toBe(FRAME_FREE);
  });

  it(`keeps its books in any order of things, seed ${SEED}`, () => {
    const { allocator } = open(8);
    const all = allocator.freePages;
    const random = new Random(SEED);
    const blocks: { pfn: number; order: number }[] = [];
    let pages = 0;
    for (let step = 0; step < 5_000; step++) {
      if (random.below(5) < 3) {
        const order = random.below(ORDER_MAX + 1);
        const pfn = allocator.allocate(order);
        if (pfn === NIL) continue;
        blocks.push({ pfn, order });
        pages += 1 << order;
      } else if (blocks.length > 0) {
        const [{ pfn, order }] = blocks.splice(random.below(blocks.length), 1);
        pages -= 1 << order;
        // As the kernel splits blocks whose pages go one by one.
        if (order >= 9) allocator.split(pfn, order);
        const single = order > 0 && (order >= 9 || random.below(2) === 0);
        if (single) for (let page = pfn; page < pfn + (1 << order); page++) allocator.free(page, 0);
        else allocator.free(pfn, order);
      }
      if (step % 100 === 0) expect(allocator.freePages).toBe(all - pages);
    }
    for (const { pfn, order } of blocks) allocator.free(pfn, order);
    expect(allocator.freePages).toBe(all);
  });

  it('fills frames that are in use before it begins others', () => {
    const { allocator } = open();
    const pages = Array.from({ length: 3 * FRAME_PAGES }, () => allocator.allocate(0));
    expect(new Set(pages.map(pfn => Math.floor(pfn / FRAME_PAGES))).size).toBe(4);
    const [, , last] = [...new Set(pages.map(pfn => Math.floor(pfn / FRAME_PAGES)))];
    const hole = pages.find(pfn => Math.floor(pfn / FRAME_PAGES) === last) ?? NIL;
    allocator.free(hole, 0);
    const rest = Array.from({ length: FRAME_PAGES }, () => allocator.allocate(0));
    expect(rest).toContain(hole);
  });

  it('keeps pages that stay apart from those that come and go, for as long as there are frames for both', () => {
    const { allocator } = open();
    const frameOf = (pfn: number) => Math.floor(pfn / FRAME_PAGES);
    // What is left beside the state is for both.
    const first = FRAME_PAGES - allocator.reservedPages;
    for (let page = 0; page < first; page++) allocator.allocate(0, page % 2 === 0 ? PASSING : LASTING);
    const passing: number[] = [];
    const lasting: number[] = [];
    for (let page = 0; page < 4 * FRAME_PAGES; page++) {
      passing.push(allocator.allocate(0, PASSING));
      if (page % 8 === 0) lasting.push(allocator.allocate(0, LASTING));
    }
    expect(new Set(lasting.map(frameOf)).size).toBe(1);
    for (const pfn of passing) allocator.free(pfn, 0);
    const used = Array.from({ length: FRAMES }, (_, frame) => allocator.wordOf(frame));
    expect(used.filter(word => word !== FRAME_FREE)).toHaveLength(2);
    // Where nothing else is left, the others' frames are good enough.
    let pages = 0;
    while (allocator.allocate(0, PASSING) !== NIL) pages++;
    expect(pages).toBe((FRAMES - 1) * FRAME_PAGES - lasting.length);
    expect(allocator.freePages).toBe(0);
  });

  it('refuses to free what is free', () => {
    const { allocator } = open();
    const page = allocator.allocate(0);
    allocator.free(page, 0);
    expect(() => allocator.free(page, 0)).toThrow('which is free');
    const frame = allocator.allocate(9);
    allocator.free(frame, 9);
    expect(() => allocator.free(frame, 9)).toThrow('not in use as one');
  });
});

describe('frames that the host has its hand on', () => {
  it('are the last to be taken when evicted, and said to be zeros', () => {
    const { allocator, words } = open(4);
    expect(words.replace(2, FRAME_FREE, FRAME_EVICTED)).toBe(true);
    const blocks = Array.from({ length: 4 }, () => [allocator.allocate(9), allocator.zeroed]);
    expect(blocks).toEqual([
      [FRAME_PAGES, false],
      [3 * FRAME_PAGES, false],
      [2 * FRAME_PAGES, true],
      [NIL, false],
    ]);
    allocator.free(2 * FRAME_PAGES, 9);
    expect(allocator.allocate(9)).toBe(2 * FRAME_PAGES);
    expect(allocator.zeroed).toBe(false);
  });

  it('give single pages, too, of which the first alone is said to be zeros', () => {
    const { allocator, words } = open(2);
    expect(words.replace(1, FRAME_FREE, FRAME_EVICTED)).toBe(true);
    while (allocator.freePages > FRAME_PAGES) allocator.allocate(0);
    expect([allocator.allocate(0), allocator.zeroed]).toEqual([FRAME_PAGES, true]);
    expect([allocator.allocate(0), allocator.zeroed]).toEqual([FRAME_PAGES + 1, false]);
  });

  it.each([
    ['being discarded', FRAME_RECLAIMING, FRAME_PAGES],
    ['held', FRAME_HELD, 0],
  ])('are left alone while they are %s', (_, word, busyPages) => {
    const { allocator, words } = open(3);
    words.replace(1, FRAME_FREE, word);
    expect(allocator.busyPages).toBe(busyPages);
    const got = new Set<number>();
    for (let pfn = allocator.allocate(0); pfn !== NIL; pfn = allocator.allocate(0))
      got.add(Math.floor(pfn / FRAME_PAGES));
    expect([...got].sort()).toEqual([0, 2]);
    expect(allocator.allocate(9)).toBe(NIL);
    expect(words.load(1)).toBe(word);
  });

  it('are all the guest’s again when the host is gone, wherever it stopped between a word and its tree', () => {
    const { allocator, words } = open();
    const before = allocator.freePages;
    const all = [FRAME_RECLAIMING, FRAME_EVICTED, FRAME_HELD];
    for (const [index, word] of all.entries()) words.replace(5 + index, FRAME_FREE, word);
    // One frame was held, and its tree not told; another tree was told of frames that were not held.
    words.add(FRAMES + treeOf(39), -8 * FRAME_PAGES);
    allocator.hostGone();
    expect(allocator.freePages).toBe(before);
    expect([5, 6, 7].map(frame => allocator.wordOf(frame))).toEqual([FRAME_FREE, FRAME_FREE, FRAME_FREE]);
    let frames = 0;
    while (allocator.allocate(9) !== NIL) frames++;
    expect(frames).toBe(FRAMES - 1);
  });
});
