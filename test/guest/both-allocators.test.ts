/** The guest kernel on either allocator: the same must be true of it, whichever hands out its pages. */
import { describe, expect, it } from 'vitest';
import { PageAllocator, spansOf } from '../../src/guest/allocator.ts';
import { ManualClock } from '../../src/guest/clock.ts';
import type { FrameAllocator } from '../../src/guest/frame-allocator.ts';
import { GFP_BALLOON, GFP_HINT, GFP_MEMALLOC, GFP_MOVABLE, GFP_ZERO } from '../../src/guest/gfp.ts';
import { Guest, type WorkloadSpec } from '../../src/guest/guest.ts';
import { checkAllocator } from '../../src/guest/invariants.ts';
import type { KernelCore } from '../../src/guest/kernel-core.ts';
import { Random } from '../../src/guest/random.ts';
import { TwoLevelAllocator } from '../../src/guest/two-level-allocator.ts';
import { checkTwoLevel } from '../../src/guest/two-level-invariants.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { FIXED_PAGES } from '../../src/memory/kernel-memory.ts';
import { gpaOf } from '../../src/memory/page.ts';
import { NIL, ORDER_MAX } from '../../src/memory/page-blocks.ts';
import { heapMemory, SEED } from './guest.ts';

const MIB = 256;

interface Checked<Allocator extends FrameAllocator = FrameAllocator> {
  readonly allocator: Allocator;
  readonly check: () => { readonly free: number; readonly allocated: number };
}

interface Kind {
  readonly open: (memory: GuestMemory) => Checked;
  readonly boot: (options: Parameters<typeof Guest.bootShared>[0]) => Guest<KernelCore>;
}

const BUDDY: Kind = {
  open: memory => {
    const allocator = new PageAllocator({ spans: spansOf(memory), dma32End: 2 ** 20 });
    allocator.populate();
    return {
      allocator,
      check: () => {
        allocator.drainPerCpu();
        return checkAllocator(allocator);
      },
    };
  },
  boot: options => Guest.boot(options),
};
const TWO_LEVEL: Kind = {
  open: memory => {
    const allocator = new TwoLevelAllocator(memory);
    return { allocator, check: () => checkTwoLevel(allocator) };
  },
  boot: options => Guest.bootShared(options),
};

const EVERYTHING: readonly WorkloadSpec[] = [
  { kind: 'build', jobs: 4 },
  { kind: 'churn', pages: 8 * MIB },
  { kind: 'read', pages: 20 * MIB },
];

const digest = ({ kernel }: Guest<KernelCore>) => ({
  meminfo: kernel.meminfo(),
  vmstat: kernel.vmstat(),
  processes: [...kernel.processes].map(process => [process.name, process.residentPages, process.frameOf(0)]),
});

describe.each([
  ['buddy', BUDDY],
  ['two-level', TWO_LEVEL],
])(`the %s allocator (AEROSTAT_SEED=${SEED})`, (_, { open, boot }) => {
  it('keeps its books in any order of things, and no page has two holders', () => {
    const { allocator, check } = open(heapMemory(16));
    const all = allocator.freePages;
    expect(check()).toMatchObject({ free: all, allocated: 0 });
    expect(all).toBe(allocator.managedPages);
    const random = new Random(SEED);
    const blocks: { pfn: number; order: number }[] = [];
    const used = new Uint8Array(allocator.pages.length);
    let pages = 0;
    const taken = (pfn: number, order: number, value: 0 | 1) => {
      expect(used.subarray(pfn, pfn + (1 << order)).includes(value)).toBe(false);
      used.fill(value, pfn, pfn + (1 << order));
      pages += value === 1 ? 1 << order : -(1 << order);
    };
    for (let step = 0; step < 3_000; step++) {
      if (random.below(5) < 3) {
        const order = random.below(ORDER_MAX + 1);
        const pfn = allocator.allocate(
          order,
          GFP_MOVABLE | (random.below(2) === 0 ? 0 : GFP_MEMALLOC),
          'low',
        );
        if (pfn === NIL) continue;
        expect(pfn % (1 << order)).toBe(0);
        taken(pfn, order, 1);
        blocks.push({ pfn, order });
      } else if (blocks.length > 0) {
        const [{ pfn, order }] = blocks.splice(random.below(blocks.length), 1);
        taken(pfn, order, 0);
        if (random.below(2) === 0) allocator.free(pfn, order);
        else {
          allocator.split(pfn, order);
          for (let page = pfn; page < pfn + (1 << order); page++) allocator.free(page, 0);
        }
      }
      if (step % 100 === 0) expect(check()).toMatchObject({ free: all - pages, allocated: pages });
    }
    for (const { pfn, order } of blocks) allocator.free(pfn, order);
    expect(check()).toMatchObject({ free: all, allocated: 0 });
    expect(allocator.freed).toBe(allocator.allocated);
  });

  it('leaves each watermark intact unless it is told not to', () => {
    const { allocator, check } = open(heapMemory(32));
    const { low, high } = allocator.keptPages;
    expect(high).toBeGreaterThan(low);
    while (allocator.allocate(0, GFP_MOVABLE, 'high') !== NIL);
    expect(allocator.freePages).toBe(high);
    expect(allocator.hasRoom()).toBe(false);
    expect(allocator.missingPages()).toBe(0);
    while (allocator.allocate(0, GFP_MOVABLE, 'low') !== NIL);
    expect(allocator.freePages).toBe(low);
    expect(allocator.missingPages()).toBe(high - low);
    while (allocator.allocate(0, GFP_MOVABLE, 'min') !== NIL);
    expect(allocator.freePages).toBeGreaterThan(0);
    while (allocator.allocate(0, GFP_MOVABLE | GFP_MEMALLOC, 'low') !== NIL);
    expect(check()).toMatchObject({ free: 0, allocated: allocator.managedPages });
  });

  it('detects a double free, a free of another order, and a free inside a block', () => {
    const { allocator } = open(heapMemory(16));
    const single = allocator.allocate(0, GFP_MOVABLE, 'low');
    const block = allocator.allocate(4, GFP_MOVABLE, 'low');
    const huge = allocator.allocate(9, GFP_MOVABLE, 'low');
    expect(() => allocator.free(block, 3)).toThrow('state');
    expect(() => allocator.free(block + 1, 0)).toThrow('state');
    expect(() => allocator.free(huge + 7, 0)).toThrow('state');
    expect(() => allocator.split(block, 3)).toThrow('split');
    allocator.free(single, 0);
    expect(() => allocator.free(single, 0)).toThrow('state');
  });

  it('gives workloads pages that keep what was written, and leaves nothing behind', () => {
    const guest = boot({ memory: heapMemory(36), seed: SEED });
    const workloads = EVERYTHING.map(spec => guest.start(spec));
    for (let i = 0; i < 20; i++) {
      expect(guest.step(10_000)).toBe(10_000);
      guest.kernel.checkInvariants();
    }
    expect(guest.verify()).toBeGreaterThan(4000);
    const { asyncReclaims, directReclaims, oomKills } = guest.kernel.vmstat();
    expect(asyncReclaims + directReclaims).toBeGreaterThan(0);
    expect(oomKills).toBe(0);
    for (const workload of workloads) workload.stop();
    guest.step(1);
    expect(guest.workloads).toEqual([]);
    guest.kernel.shrinkAll();
    guest.kernel.dropCaches();
    expect(guest.kernel.checkInvariants()).toMatchObject({ allocated: 0 });
  });

  it('has the same history for the same seed, and another for another', () => {
    const run = (seed: number) => {
      const guest = boot({ memory: heapMemory(32), seed });
      for (const spec of EVERYTHING) guest.start(spec);
      for (let i = 0; i < 50; i++) guest.step(1024);
      return digest(guest);
    };
    expect(run(SEED)).toEqual(run(SEED));
    expect(run(SEED)).not.toEqual(run(SEED + 1));
  });

  it('lets workloads be larger than memory: a process is killed and replaced', () => {
    const guest = boot({ memory: heapMemory(24), seed: SEED });
    guest.start({ kind: 'churn', pages: 9 * MIB });
    guest.start({ kind: 'build', jobs: 3, workingPages: 8 * MIB });
    for (let i = 0; i < 40; i++) {
      guest.step(5000);
      guest.kernel.checkInvariants();
    }
    expect(guest.kernel.vmstat().oomKills).toBeGreaterThan(2);
    guest.verify();
  });

  it('finds room in the page cache, in the background, for a balloon, and not for hints', () => {
    const clock = new ManualClock();
    const { kernel } = boot({ memory: heapMemory(32), seed: SEED, clock });
    const file = kernel.cache.create(8192);
    for (let page = 0; page < 8192; page++) kernel.cache.read(file, page);
    for (let page = 0; page < 100; page++) kernel.cache.write(file, page);
    expect(kernel.runBackground()).toBeGreaterThan(0);
    expect(kernel.allocator.freePages).toBeGreaterThanOrEqual(kernel.allocator.keptPages.high);
    while (kernel.allocate(0, GFP_HINT) !== NIL);
    const cached = kernel.cache.pages;
    expect(kernel.allocate(0, GFP_HINT)).toBe(NIL);
    expect(kernel.cache.pages).toBe(cached);
    expect(kernel.allocate(0, GFP_BALLOON)).not.toBe(NIL);
    expect(kernel.cache.pages).toBeLessThan(cached);
    clock.advance(5000);
    kernel.runBackground();
    expect(kernel.cache.dirtyPages).toBe(0);
    kernel.verify();
  });

  it('asks who holds memory for some before a process is killed', () => {
    const { kernel } = boot({ memory: heapMemory(16), seed: SEED });
    const held: number[] = [];
    for (let pages = 0; pages < 1000; pages++) held.push(kernel.allocate(0, GFP_BALLOON));
    kernel.addOomNotifier({
      name: 'balloon',
      release() {
        const given = held.splice(0, 256);
        for (const pfn of given) kernel.free(pfn, 0);
        return given.length;
      },
    });
    const process = kernel.spawn('greedy');
    let index = 0;
    while (held.length > 0) expect(process.write(index++)).toBe(true);
    expect(kernel.vmstat().oomKills).toBe(0);
    while (process.write(index)) index++;
    expect(process.state).toBe('killed');
    kernel.allocator.drainPerCpu();
    expect(kernel.checkInvariants().allocated).toBe(0);
  });

  it('fills pages that are to be zeros, also those that were used before', () => {
    const { kernel } = boot({ memory: heapMemory(16), seed: SEED });
    const dirty = kernel.spawn('dirty');
    for (let index = 0; index < 3000; index++) dirty.write(index);
    dirty.exit();
    for (let block = 0; block < 100; block++) {
      const pfn = block % 2 === 0 ? kernel.allocate(3, GFP_ZERO) : kernel.allocateFor(FIXED_PAGES, 3);
      for (let page = pfn; page < pfn + 8; page++) {
        expect([kernel.memory.u32(gpaOf(page)), kernel.memory.u32(gpaOf(page) + 4092)]).toEqual([0, 0]);
      }
    }
  });
});
