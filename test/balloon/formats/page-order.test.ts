import { describe, expect, test } from 'vitest';
import { pageHeads, pageOrder } from '../../../src/balloon/formats/page-order.ts';
import { concat, faultOf, hex, listOf, listsOf, runsOf, words64 } from '../lists.ts';

const response = (...entries: readonly bigint[]) =>
  listOf(concat(words64(BigInt(entries.length * 8) << 32n), words64(...entries)));

const head = (pfn: bigint, shift: bigint, bitmapBytes = 0n) => pfn | (shift << 52n) | (bitmapBytes << 58n);

describe('a list of page orders', () => {
  test('is a header of 8 bytes and a 64-bit head a block', () => {
    // Two blocks: 2 MiB at page frame 0x200 (shift 21), and one page at 0x123456789 (shift 12).
    const bytes = hex('00 00 0000 10000000   0002000000005001   896745230100c000');
    expect(runsOf(pageOrder, listOf(bytes))).toEqual([
      [0x200, 512],
      [0x123456789, 1],
    ]);
    expect(
      listsOf(pageOrder, [
        [0x200, 512],
        [0x123456789, 1],
      ]),
    ).toEqual([bytes]);
  });

  test('splits a run into the aligned blocks of an allocator', () => {
    const [bytes] = listsOf(pageOrder, [[3, 141]]);
    expect(runsOf(pageOrder, listOf(bytes))).toEqual([
      [3, 1],
      [4, 4],
      [8, 8],
      [16, 16],
      [32, 32],
      [64, 64],
      [128, 16],
    ]);
  });

  test('has a bitmap of 64 pages behind a head that announces 8 bytes', () => {
    const bytes = hex('00 00 0000 10000000   000100000000c020   0500000000000080');
    expect(runsOf(pageOrder, listOf(bytes))).toEqual([
      [0x100, 1],
      [0x102, 1],
      [0x13f, 1],
    ]);
    expect(
      listsOf(pageOrder, [
        [0x100, 1],
        [0x102, 1],
        [0x13f, 1],
      ]),
    ).toEqual([bytes]);
  });

  test('reads bitmaps of larger pages', () => {
    expect(runsOf(pageOrder, response(head(512n, 21n, 8n), 0x8000_0001n))).toEqual([
      [512, 512],
      [512 + 31 * 512, 512],
    ]);
    expect(runsOf(pageOrder, response(head(0n, 12n, 8n), 2n ** 64n - 1n))).toEqual([[0, 64]]);
  });

  test('uses a bitmap only where heads would be longer', () => {
    const lengths = [1, 2, 3, 64].map(
      runs =>
        listsOf(
          pageOrder,
          Array.from({ length: runs }, (_, i) => [i * 2, 1] as const),
        )[0].length,
    );
    // One head, two heads, a head with its bitmap, and 64 pages in steps of two: two bitmaps.
    expect(lengths).toEqual([16, 24, 24, 40]);
  });

  test('a bitmap of no pages names none', () => {
    expect(runsOf(pageOrder, response(head(5n, 12n, 8n), 0n))).toEqual([]);
  });

  test.each([0n, 11n, 53n, 63n])('is refused with a page shift of %i', shift => {
    expect(faultOf(pageOrder, response(head(0n, shift)))).toBe('page-shift');
  });

  test.each([1n, 7n, 9n, 63n])('is refused with a bitmap of %i bytes', bytes => {
    expect(faultOf(pageOrder, response(head(0n, 12n, bytes), 1n))).toBe('bitmap-length');
  });

  test('is refused when pages are beyond every address', () => {
    expect(faultOf(pageOrder, response(head(2n ** 52n - 1n, 12n)))).toBe('range');
    expect(faultOf(pageOrder, response(head(1n, 52n), head(0n, 52n)))).toBeUndefined();
    expect(faultOf(pageOrder, response(head(2n ** 40n + 1n, 52n)))).toBe('range');
    expect(faultOf(pageOrder, response(head(0n, 52n, 8n), 1n << 63n))).toBe('range');
  });

  test('changes nothing when only its last head is bad', () => {
    expect(faultOf(pageOrder, response(head(0n, 12n), head(1n, 12n), head(2n, 11n)))).toBe('page-shift');
  });

  test('is refused when the bitmap of its last head is missing', () => {
    expect(faultOf(pageOrder, response(head(0n, 12n, 8n)))).toBe('truncated');
  });

  test('is refused wherever it is cut off', () => {
    const [bytes] = listsOf(pageOrder, [
      [0x100, 1],
      [0x102, 1],
      [0x13f, 1],
    ]);
    for (let length = 0; length < bytes.length; length++) {
      expect(faultOf(pageOrder, listOf(bytes.subarray(0, length)))).toBe('truncated');
    }
  });

  test('is refused when more follows than its header says', () => {
    expect(faultOf(pageOrder, listOf(words64(0n, head(0n, 12n))))).toBe('surplus');
  });

  test('is refused when in-bufs come with it', () => {
    const list = response(head(0n, 12n));
    list.addExtent(0, 4096);
    expect(faultOf(pageOrder, list)).toBe('direction');
  });
});

describe('an answer in page orders', () => {
  test('has no bitmaps, however close its pages lie', () => {
    const [bytes] = listsOf(pageHeads, [
      [0x100, 1],
      [0x102, 1],
      [0x13f, 1],
    ]);
    expect(bytes.length).toBe(8 + 3 * 8);
    expect(faultOf(pageHeads, listOf(bytes))).toBeUndefined();
  });

  test("is refused where a head announces a bitmap: v5's driver leaves those bits as they were, and its next head would be one", () => {
    // An inflation's list lay in the buffer: its first head had a bitmap of 8 bytes.
    const spoilt = response(head(0x400n, 22n, 8n), head(0x800n, 22n));
    // What was taken for unused before this was refused: the next head's bits, as blocks of 4 MiB.
    expect(runsOf(pageOrder, response(head(0x400n, 22n, 8n), head(0x800n, 22n))).length).toBeGreaterThan(1);
    expect(faultOf(pageHeads, spoilt)).toBe('bitmap-length');
    expect(() => runsOf(pageHeads, spoilt)).toThrow(/the posted driver \(v5, 11\/2016\) is known/);
  });
});
