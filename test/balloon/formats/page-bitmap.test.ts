import { describe, expect, test } from 'vitest';
import { pageBitmap } from '../../../src/balloon/formats/page-bitmap.ts';
import { PageList } from '../../../src/balloon/page-list.ts';
import { EncodeCursor } from '../../../src/balloon/page-list-format.ts';
import { PFN_LIMIT } from '../../../src/memory/page.ts';
import { PageRanges } from '../../../src/memory/page-ranges.ts';
import { concat, faultOf, hex, listOf, listsOf, type Run, runsOf, words64 } from '../lists.ts';

interface Header {
  readonly shift?: number;
  readonly start?: bigint;
  readonly length?: bigint;
}

/** A list whose header says what `header` says, and the truth where that says nothing. */
function bitmap(bits: Uint8Array, { shift = 12, start = 0n, length = BigInt(bits.length) }: Header = {}) {
  return listOf(concat(words64(BigInt(shift) << 16n, 0n, start, length), bits));
}

describe('a page bitmap', () => {
  test('is a header of 32 bytes and one bit a page', () => {
    const bytes = hex(`0000 0c00 0000 0000  0000000000000000  0010000000000000  0800000000000000
                       8100000000000080`);
    const runs: Run[] = [
      [0x1000, 1],
      [0x1007, 1],
      [0x103f, 1],
    ];
    expect(runsOf(pageBitmap, listOf(bytes))).toEqual(runs);
    expect(listsOf(pageBitmap, runs)).toEqual([bytes]);
  });

  test('joins pages over the ends of words', () => {
    expect(runsOf(pageBitmap, bitmap(hex('00000080 ffffffff 01000000'), { start: 100n }))).toEqual([
      [131, 34],
    ]);
    expect(runsOf(pageBitmap, bitmap(hex('ffffffff ffffffff')))).toEqual([[0, 64]]);
    expect(runsOf(pageBitmap, bitmap(hex('55')))).toEqual([0, 2, 4, 6].map(pfn => [pfn, 1]));
  });

  test('may have any number of bytes, whatever an earlier list left behind it', () => {
    for (const length of [1, 2, 3, 5, 7]) {
      const bits = new Uint8Array(length);
      bits[length - 1] = 0x80;
      expect(runsOf(pageBitmap, bitmap(bits))).toEqual([[length * 8 - 1, 1]]);
    }
  });

  test('may be of larger pages', () => {
    expect(runsOf(pageBitmap, bitmap(hex('05'), { shift: 21, start: 512n }))).toEqual([
      [512, 512],
      [1536, 512],
    ]);
  });

  test('is cut into bitmaps of 32 KiB behind its header', () => {
    const list = new PageList();
    const ranges = PageRanges.of([0, 1], [24 * 2 ** 13, 3 * 2 ** 18]);
    expect(pageBitmap.encode(ranges, new EncodeCursor(), list)).toBe(1 + 3 * 2 ** 18);
    expect([...list.cuts.subarray(0, list.cutCount)]).toEqual([
      32,
      32 + 32_768,
      32 + 2 * 32_768,
      32 + 3 * 32_768,
    ]);
    expect(list.length).toBe(32 + 24 * 1024 + 3 * 32_768);
  });

  test('takes 32 GiB in one list, and the rest in the next', () => {
    const lists = listsOf(pageBitmap, [[7, 2 ** 23 + 1]]);
    expect(lists.map(bytes => bytes.length)).toEqual([32 + 2 ** 20, 40]);
    expect(runsOf(pageBitmap, listOf(lists[1]))).toEqual([[7 + 2 ** 23, 1]]);
  });

  test('takes runs in falling order', () => {
    expect(
      listsOf(
        pageBitmap,
        [5, 4, 3, 2, 1].map(pfn => [pfn * 10, 1] as const),
      ),
    ).toHaveLength(1);
  });

  test('does not span a gap that is longer than a buffer of zeros', () => {
    const lists = listsOf(pageBitmap, [
      [0, 1],
      [2 ** 18 + 2, 1],
    ]);
    expect(lists.map(bytes => bytes.length)).toEqual([40, 40]);
  });

  test.each([0, 11, 53, 63, 0xffff])('is refused with a page shift of %i', shift => {
    expect(faultOf(pageBitmap, bitmap(hex('01'), { shift }))).toBe('page-shift');
  });

  test('of the posted driver, whose header comes alone below 1 GiB, is refused, and the message says so', () => {
    const alone = listOf(hex('0000 0c00 0000 0000 0000000000000000 4000000000000000 0008000000000000'));
    expect(() => pageBitmap.check(alone)).toThrow(
      /0 bytes of bitmap where the header says 2048; .*\(v3, 10\/2016\)/,
    );
    expect(() => pageBitmap.check(bitmap(hex('01'), { length: 64n }))).not.toThrow('v3');
  });

  test('is refused when its last page is beyond every address', () => {
    const start = BigInt(PFN_LIMIT - 8);
    expect(runsOf(pageBitmap, bitmap(hex('80'), { start }))).toEqual([[PFN_LIMIT - 1, 1]]);
    expect(runsOf(pageBitmap, bitmap(hex('80 00'), { start }))).toHaveLength(1);
    expect(faultOf(pageBitmap, bitmap(hex('00 01'), { start }))).toBe('range');
    expect(faultOf(pageBitmap, bitmap(hex('01'), { start: 2n ** 64n - 1n }))).toBe('range');
    expect(faultOf(pageBitmap, bitmap(hex('07'), { shift: 52, start: 0n }))).toBe('range');
  });

  test('is refused when it is longer than its header says', () => {
    expect(faultOf(pageBitmap, bitmap(hex('01 01'), { length: 1n }))).toBe('surplus');
    expect(faultOf(pageBitmap, bitmap(hex('01'), { length: 0n }))).toBe('surplus');
  });

  test.each([2n, 2n ** 32n, 2n ** 64n - 1n])(
    'is refused when its header says %i bytes and one came',
    length => {
      expect(faultOf(pageBitmap, bitmap(hex('01'), { length }))).toBe('truncated');
    },
  );

  test('is refused without a whole header', () => {
    for (let length = 0; length < 32; length++) {
      expect(faultOf(pageBitmap, listOf(new Uint8Array(length)))).toBe('truncated');
    }
  });

  test('is refused when in-bufs come with it', () => {
    const list = bitmap(hex('01'));
    list.addExtent(0, 4096);
    expect(faultOf(pageBitmap, list)).toBe('direction');
  });
});
