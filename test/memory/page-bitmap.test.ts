import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { maskOf, PageBitmap, popcount, wordsFor } from '../../src/memory/page-bitmap.ts';

const BITS = 200;

const range = fc
  .tuple(fc.nat(BITS - 1), fc.integer({ min: 1, max: BITS }))
  .map(([start, count]) => [start, Math.min(count, BITS - start)] as const);

/** Runs of the indices in a set, as the bitmap is to report them. */
function runsOf(members: ReadonlySet<number>, start = 0, end = BITS): [number, number][] {
  const runs: [number, number][] = [];
  for (let index = start; index < end; index++) {
    if (!members.has(index)) continue;
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === index) last[1]++;
    else runs.push([index, 1]);
  }
  return runs;
}

test('counts the bits of any word', () => {
  fc.assert(
    fc.property(fc.integer(), word => {
      expect(popcount(word)).toBe((word >>> 0).toString(2).replaceAll('0', '').length);
    }),
  );
});

test('masks the bits of a word that lie in a range', () => {
  fc.assert(
    fc.property(range, fc.nat(wordsFor(BITS) - 1), ([start, count], word) => {
      const end = start + count;
      fc.pre(word * 32 < end && word * 32 + 32 > start);
      for (let bit = 0; bit < 32; bit++) {
        const index = word * 32 + bit;
        expect((maskOf(word, start, end) & (1 << bit)) !== 0).toBe(index >= start && index < end);
      }
    }),
  );
});

describe('a bitmap', () => {
  test('is a set of indices, whatever is set and cleared', () => {
    const step = fc.record({ set: fc.boolean(), range });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), range, (steps, [from, count]) => {
        const bitmap = new PageBitmap(BITS);
        const members = new Set<number>();
        for (const {
          set,
          range: [start, length],
        } of steps) {
          const before = members.size;
          for (let index = start; index < start + length; index++) {
            if (set) members.add(index);
            else members.delete(index);
          }
          const changed = set ? bitmap.set(start, length) : bitmap.clear(start, length);
          expect(changed).toBe(Math.abs(members.size - before));
        }
        expect(bitmap.count()).toBe(members.size);
        const inRange = [...members].filter(index => index >= from && index < from + count);
        expect(bitmap.countIn(from, count)).toBe(inRange.length);
        for (let index = 0; index < BITS; index++) expect(bitmap.test(index)).toBe(members.has(index));

        const sorted = [...members].sort((a, b) => a - b);
        expect(bitmap.nextSet(from)).toBe(sorted.find(index => index >= from) ?? BITS);
        let clear = from;
        while (clear < BITS && members.has(clear)) clear++;
        expect(bitmap.nextClear(from)).toBe(clear);

        const runs: [number, number][] = [];
        bitmap.forEachRun((start, length) => runs.push([start, length]));
        expect(runs).toEqual(runsOf(members));
        const part: [number, number][] = [];
        bitmap.forEachRun((start, length) => part.push([start, length]), from, from + count);
        expect(part).toEqual(runsOf(members, from, from + count));
      }),
    );
  });

  test('knows nothing behind its end', () => {
    const bitmap = new PageBitmap(33);
    bitmap.set(0, 33);
    expect(bitmap.nextClear(0)).toBe(33);
    expect(bitmap.nextSet(33)).toBe(33);
    expect(bitmap.nextSet(1000)).toBe(33);
    bitmap.clearAll();
    expect(bitmap.nextSet(0)).toBe(33);
    expect(bitmap.count()).toBe(0);
  });

  test('takes a range of nothing for nothing', () => {
    const bitmap = new PageBitmap(64);
    for (const start of [0, 5, 32, 64]) {
      expect(bitmap.set(start, 0)).toBe(0);
      expect(bitmap.clear(start, 0)).toBe(0);
    }
    expect(bitmap.count()).toBe(0);
  });

  test('works on words that others hold too', () => {
    const words = new Int32Array(new SharedArrayBuffer(8));
    const one = new PageBitmap(64, words);
    const other = new PageBitmap(64, words);
    one.set(30, 4);
    expect(other.countIn(0, 64)).toBe(4);
  });

  test('takes bits beyond the 2^31st', () => {
    // Words of zeros cost nothing until they are written.
    const bitmap = new PageBitmap(2 ** 32 - 32);
    expect(bitmap.set(2 ** 31 + 5, 70)).toBe(70);
    expect(bitmap.test(2 ** 31 + 74)).toBe(true);
    expect(bitmap.test(2 ** 31 + 75)).toBe(false);
    expect(bitmap.nextSet(2 ** 31)).toBe(2 ** 31 + 5);
    expect(bitmap.nextClear(2 ** 31 + 5)).toBe(2 ** 31 + 75);
    expect(bitmap.clear(2 ** 31, 2 ** 20)).toBe(70);
  });
});
