import { describe, expect, test } from 'vitest';
import { pageRange } from '../../../src/balloon/formats/page-range.ts';
import { PageList } from '../../../src/balloon/page-list.ts';
import { EncodeCursor } from '../../../src/balloon/page-list-format.ts';
import { PFN_LIMIT } from '../../../src/memory/page.ts';
import { PageRanges } from '../../../src/memory/page-ranges.ts';
import { concat, faultOf, hex, listOf, listsOf, runsOf, words64 } from '../lists.ts';

const response = (...entries: readonly bigint[]) =>
  listOf(concat(words64(BigInt(entries.length * 8) << 32n), words64(...entries)));

describe('a list of page ranges', () => {
  test('is a header of 8 bytes and 52 bits of page frame with 12 of length', () => {
    const bytes = hex('00 00 0000 10000000   0330120000000000   ff1f000000000000');
    const runs = [
      [0x123, 3],
      [1, 4095],
    ] as const;
    expect(runsOf(pageRange, listOf(bytes))).toEqual(runs);
    expect(listsOf(pageRange, runs)).toEqual([bytes]);
  });

  test('takes a second entry for a length from 4096 on', () => {
    const bytes = hex('00 00 0000 10000000   0010000000000000   0010000000000000');
    expect(runsOf(pageRange, listOf(bytes))).toEqual([[1, 4096]]);
    expect(listsOf(pageRange, [[1, 4096]])).toEqual([bytes]);
    expect(listsOf(pageRange, [[2, 2 ** 40]])[0]).toEqual(
      hex('00 00 0000 10000000   0020000000000000   0000000000010000'),
    );
  });

  test('does not begin a long entry that it cannot end', () => {
    const lists = listsOf(
      pageRange,
      [
        [0, 1],
        [10, 5000],
      ],
      { bytesMax: 24, extentsMax: 0 },
    );
    expect(lists.map(bytes => bytes.length)).toEqual([16, 24]);
  });

  test('is cut behind its header, and has no second buffer without entries', () => {
    const list = new PageList();
    pageRange.encode(PageRanges.of([1, 1]), new EncodeCursor(), list);
    expect([list.cutCount, list.cuts[0]]).toEqual([1, 8]);
    pageRange.encode(PageRanges.of(), new EncodeCursor(), list);
    expect([list.length, list.cutCount]).toEqual([8, 0]);
  });

  test('is refused with a range of no pages', () => {
    expect(faultOf(pageRange, response(0x5000n, 0n))).toBe('empty-run');
  });

  test.each([2n ** 52n, 2n ** 53n + 1n, 2n ** 64n - 1n, BigInt(PFN_LIMIT)])(
    'is refused with a range of %i pages',
    count => {
      expect(faultOf(pageRange, response(0x5000n, count))).toBe('range');
    },
  );

  test('is refused with a page frame beyond every address', () => {
    expect(runsOf(pageRange, response((BigInt(PFN_LIMIT - 1) << 12n) | 1n))).toEqual([[PFN_LIMIT - 1, 1]]);
    expect(faultOf(pageRange, response((BigInt(PFN_LIMIT - 1) << 12n) | 2n))).toBe('range');
    expect(faultOf(pageRange, response(2n ** 64n - 1n))).toBe('range');
  });

  test('is refused when the length of its last range is missing', () => {
    expect(faultOf(pageRange, response(0x5001n, 0x5000n))).toBe('truncated');
  });

  test('of the posted driver, which spoils ranges of exactly 4096 pages, is refused, and the message says so', () => {
    const messageOf = (...entries: readonly bigint[]) => {
      try {
        pageRange.check(response(...entries));
        return undefined;
      } catch (error) {
        return (error as Error).message;
      }
    };
    // As it writes 4096 pages at page frame 0x12000, before another range and as the last.
    const spoilt = (0x12000n << 12n) | 4096n;
    const other = (0x20000n << 12n) | 3n;
    expect(messageOf(spoilt, other)).toMatch(/536870915 pages at the odd page frame 73729.*v6.*exactly 4096/);
    expect(messageOf(other, spoilt)).toMatch(/length of the last range is missing.*v6.*exactly 4096/);
    // What a driver without the bug may say.
    expect(messageOf((0x12001n << 12n) | 0n, 0xffffffn, other)).toBeUndefined();
    expect(messageOf((0x12000n << 12n) | 0n, 0x1000000n)).toBeUndefined();
    // Our own writer never says what looks like it.
    const runs = [[1, 2 ** 30]] as const;
    const [bytes] = listsOf(pageRange, runs);
    expect(runsOf(pageRange, listOf(bytes))).toEqual([
      [1, 1],
      [2, 2 ** 30 - 1],
    ]);
  });

  test('is refused wherever it is cut off', () => {
    const [bytes] = listsOf(pageRange, [
      [1, 1],
      [10, 5000],
    ]);
    for (let length = 0; length < bytes.length; length++) {
      expect(faultOf(pageRange, listOf(bytes.subarray(0, length)))).toBe('truncated');
    }
  });

  test('is refused when its header announces what an entry does not divide', () => {
    expect(faultOf(pageRange, listOf(concat(words64(4n << 32n), hex('01100000'))))).toBe('truncated');
  });

  test('is refused when more follows than its header says', () => {
    expect(faultOf(pageRange, listOf(words64(8n << 32n, 0x5001n, 0x6001n)))).toBe('surplus');
  });
});
