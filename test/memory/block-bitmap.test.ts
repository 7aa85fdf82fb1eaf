/** A bitmap by blocks is a bitmap, whatever its blocks are, and costs what it is asked to change. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BLOCK_PAGES, BlockBitmap } from '../../src/memory/block-bitmap.ts';
import { popcount } from '../../src/memory/page-bitmap.ts';

/** Two blocks and a bit. */
const PAGES = 2 * BLOCK_PAGES + 1000;
/** Where runs begin and end: around the edges of words and blocks, and anywhere. */
const page = fc.oneof(
  fc.constantFrom(
    0,
    1,
    31,
    32,
    BLOCK_PAGES - 1,
    BLOCK_PAGES,
    BLOCK_PAGES + 1,
    2 * BLOCK_PAGES,
    PAGES - 1,
    PAGES,
  ),
  fc.nat(PAGES),
);
const step = fc.record({ set: fc.boolean(), from: page, to: page, exposes: fc.nat(9).map(n => n === 0) });

function runsOf(model: Uint8Array): [number, number][] {
  const runs: [number, number][] = [];
  for (let at = 0; at < model.length; ) {
    if (model[at] === 0) at++;
    else {
      const start = at;
      while (at < model.length && model[at] === 1) at++;
      runs.push([start, at - start]);
    }
  }
  return runs;
}

test('pages are set, cleared, counted and visited as in a bitmap without blocks, by every reader', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), page, page, (steps, a, b) => {
      const bitmap = new BlockBitmap(PAGES);
      const other = new BlockBitmap(PAGES, bitmap);
      const model = new Uint8Array(PAGES);
      let exposed: Int32Array | undefined;
      for (const { set, from, to, exposes } of steps) {
        if (exposes) exposed = bitmap.expose();
        const [start, end] = [Math.min(from, to), Math.max(from, to)];
        if (start === end) continue;
        const before = model.subarray(start, end).reduce((total, bit) => total + bit, 0);
        model.fill(set ? 1 : 0, start, end);
        const changed = bitmap[set ? 'set' : 'clear'](start, end - start);
        expect(changed).toBe(set ? end - start - before : before);
      }
      const runs: [number, number][] = [];
      bitmap.forEachRun((start, count) => runs.push([start, count]));
      expect(runs).toEqual(runsOf(model));
      const total = model.reduce((sum, bit) => sum + bit, 0);
      expect(bitmap.total).toBe(total);
      const [start, end] = [Math.min(a, b), Math.max(a, b)];
      const within = model.subarray(start, end).reduce((sum, bit) => sum + bit, 0);
      for (const reader of [bitmap, other]) {
        expect(reader.countIn(start, end - start)).toBe(within);
        expect(reader.countIn(0, PAGES)).toBe(total);
        for (const at of [start, Math.min(end, PAGES - 1)]) expect(reader.test(at)).toBe(model[at] === 1);
        let words = 0;
        for (let word = 0; word * 32 < PAGES; word++) words += popcount(reader.wordAt(word));
        expect(words).toBe(total);
      }
      if (exposed !== undefined) expect(exposed.reduce((sum, word) => sum + popcount(word), 0)).toBe(total);
      bitmap.clearAll();
      expect(bitmap.countIn(0, PAGES)).toBe(0);
      expect(other.countIn(0, PAGES)).toBe(0);
      if (exposed !== undefined) expect(exposed.every(word => word === 0)).toBe(true);
      expect(bitmap.set(3, 1)).toBe(1);
      expect(bitmap.countIn(0, PAGES)).toBe(1);
    }),
    { numRuns: 60 },
  );
});

test('a run over terabytes is a step for each of its blocks, and touches no word', () => {
  const pages = 2 ** 30;
  const bitmap = new BlockBitmap(pages);
  const residentBefore = process.memoryUsage.rss();
  expect(bitmap.set(0, pages)).toBe(pages);
  expect(bitmap.clear(0, pages)).toBe(pages);
  expect(bitmap.work).toBe((2 * pages) / BLOCK_PAGES);
  // The words are 128 MiB.
  expect(process.memoryUsage.rss() - residentBefore).toBeLessThan(32 * 2 ** 20);
});
