import { describe, expect, it } from 'vitest';
import { age, fragmentation } from '../../src/guest/fragmentation.ts';
import { GFP_MOVABLE } from '../../src/guest/gfp.ts';
import { Random } from '../../src/guest/random.ts';
import { NIL } from '../../src/memory/page-blocks.ts';
import { bootGuest, SEED } from './guest.ts';

describe('fragmentation', () => {
  it('is 0 in a fresh guest and counts what lies outside of 2 MiB blocks', () => {
    const kernel = bootGuest(16, { reservedPages: 1024 });
    expect(fragmentation(kernel.allocator).degree).toBe(0);
    const pfn = kernel.allocate(9, GFP_MOVABLE);
    kernel.split(pfn, 9);
    for (let i = 1; i < 512; i++) kernel.free(pfn + i, 0);
    const { degree, freePages, blocks } = fragmentation(kernel.allocator);
    expect(freePages).toBe(3 * 1024 - 1);
    expect(degree).toBe(511 / freePages);
    expect(blocks[9]).toBe(1);
    expect(blocks[10]).toBe(2);
  });
});

describe(`ageing (AEROSTAT_SEED=${SEED})`, () => {
  it.each([0, 0.1, 0.5, 0.9])('reaches a degree of %f, undone by the holders’ exit', degree => {
    const kernel = bootGuest(128);
    const { before, after, holders } = age(kernel, new Random(SEED), { degree });
    expect(before.degree).toBeLessThan(0.02);
    expect(Math.abs(after.degree - degree)).toBeLessThan(0.03);
    expect(after.freePages).toBeGreaterThan(before.freePages * 0.95);
    expect(fragmentation(kernel.allocator)).toEqual(after);
    kernel.checkInvariants();
    kernel.verify();
    for (const holder of holders) holder.exit();
    kernel.allocator.drainPerCpu();
    expect(fragmentation(kernel.allocator).degree).toBeLessThan(0.02);
    expect(kernel.checkInvariants().allocated).toBe(0);
  });

  it('shuffles what is allocated next', () => {
    const kernel = bootGuest(64);
    age(kernel, new Random(SEED), { degree: 0.9 });
    const pfns = Array.from({ length: 2000 }, () => kernel.allocate(0, GFP_MOVABLE));
    const adjacent = pfns.filter((pfn, i) => i > 0 && Math.abs(pfn - pfns[i - 1]) === 1).length;
    expect(adjacent).toBeLessThan(1950);
    expect(new Set(pfns.map(pfn => pfn >>> 9)).size).toBeGreaterThan(3);
  });

  it('can be mended by compaction unless the holders are pinned', () => {
    const degreeAfterCompaction = (pinnedShare: number) => {
      const kernel = bootGuest(64);
      age(kernel, new Random(SEED), { degree: 0.7, pinnedShare });
      kernel.compact();
      kernel.verify();
      kernel.checkInvariants();
      return fragmentation(kernel.allocator).degree;
    };
    expect(degreeAfterCompaction(0)).toBeLessThan(0.15);
    expect(degreeAfterCompaction(1)).toBeGreaterThan(0.6);
  });

  it('is the same for the same seed and another for another', () => {
    const walk = (seed: number) => {
      const kernel = bootGuest(32);
      age(kernel, new Random(seed), { degree: 0.5 });
      return Array.from({ length: 500 }, () => kernel.allocate(0, GFP_MOVABLE));
    };
    expect(walk(SEED)).toEqual(walk(SEED));
    expect(walk(SEED)).not.toEqual(walk(SEED + 1));
    expect(walk(SEED)).not.toContain(NIL);
  });

  it('touches every free page on the way if asked to', () => {
    const kernel = bootGuest(16);
    const touched = new Set<number>();
    kernel.access.writeLog = { add: pfn => void touched.add(pfn) };
    age(kernel, new Random(SEED), { degree: 0.3, touch: true });
    expect(touched.size).toBe(kernel.allocator.managedPages);
  });
});
