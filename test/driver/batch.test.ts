import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Batch } from '../../src/driver/batch.ts';
import { PageRanges } from '../../src/memory/page-ranges.ts';
import { SEED } from './world.ts';

const listed = (batch: Batch): (readonly [number, number])[] => {
  const ranges = new PageRanges();
  batch.listIn(ranges);
  return ranges.toArray();
};

describe('a batch of blocks', () => {
  it('joins blocks that follow each other upwards, and keeps the order of all others', () => {
    const batch = new Batch(8);
    batch.add(8, 2);
    batch.add(12, 2);
    batch.add(7, 0);
    batch.add(6, 0);
    batch.add(100, 3);
    expect(listed(batch)).toEqual([
      [8, 8],
      [7, 1],
      [6, 1],
      [100, 8],
    ]);
    expect([batch.count, batch.pages]).toEqual([5, 18]);
    batch.sort();
    expect(listed(batch)).toEqual([
      [6, 10],
      [100, 8],
    ]);
    batch.clear();
    expect(listed(batch)).toEqual([]);
  });

  it('refuses a block more than it has room for', () => {
    const batch = new Batch(1);
    batch.add(1, 0);
    expect(batch.full).toBe(true);
    expect(() => batch.add(2, 0)).toThrow('room');
  });

  it(`gives back what was put in, at any address (seed ${SEED})`, () => {
    const block = fc.record({
      pfn: fc.integer({ min: 0, max: 2 ** 40 }),
      order: fc.integer({ min: 0, max: 10 }),
    });
    fc.assert(
      fc.property(fc.array(block, { maxLength: 50 }), blocks => {
        const batch = new Batch(50);
        for (const { pfn, order } of blocks) batch.add(pfn, order);
        const seen: { pfn: number; order: number }[] = [];
        batch.forEach((pfn, order) => {
          seen.push({ pfn, order });
        });
        expect(seen).toEqual(blocks);
      }),
      { seed: SEED },
    );
  });
});
