import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeShares, encodeShares, MAP_CELLS_MAX, shareOf } from '../../src/control/memory-map.ts';

/** Shares as maps have them: runs of equal cells, some of them long. */
const shares = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 1, max: 700 })), { maxLength: 40 })
  .map(runs => Uint8Array.from(runs.flatMap(([share, length]) => new Array<number>(length).fill(share))));

describe('a layer of a map', () => {
  test('comes back as it was written', () => {
    fc.assert(
      fc.property(shares, cells => {
        expect(decodeShares(encodeShares(cells), cells.length)).toEqual(cells);
      }),
    );
  });

  test('is refused in any other number of cells', () => {
    fc.assert(
      fc.property(shares, fc.integer({ min: 0, max: 40_000 }), (cells, other) => {
        fc.pre(other !== cells.length);
        expect(() => decodeShares(encodeShares(cells), other)).toThrow(RangeError);
      }),
    );
  });

  test('is refused with words when it is nonsense, whatever it is', () => {
    const text = fc.oneof(
      fc.string(),
      fc.uint8Array({ maxLength: 64 }).map(bytes => btoa(String.fromCharCode(...bytes))),
    );
    fc.assert(
      fc.property(text, nonsense => {
        try {
          expect(decodeShares(nonsense, 16)).toHaveLength(16);
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
        }
      }),
    );
  });

  test('of the largest map is some kilobytes even where no two cells are equal', () => {
    const cells = Uint8Array.from({ length: MAP_CELLS_MAX }, (_, cell) => cell);
    expect(encodeShares(cells).length).toBeLessThan(12_000);
    expect(encodeShares(new Uint8Array(MAP_CELLS_MAX)).length).toBeLessThan(8);
  });
});

describe('the share of a cell', () => {
  test('is 0 for none and 255 for all of it, and for nothing else', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 30 }), fc.nat(), (of, seed) => {
        const pages = seed % (of + 1);
        const share = shareOf(pages, of);
        expect(share === 0).toBe(pages === 0);
        expect(share === 255).toBe(pages === of);
        expect(Math.abs(share / 255 - pages / of)).toBeLessThan(1 / 128);
      }),
    );
  });
});
