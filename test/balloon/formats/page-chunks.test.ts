import { describe, expect, test } from 'vitest';
import { pageChunks } from '../../../src/balloon/formats/page-chunks.ts';
import { PFN_LIMIT } from '../../../src/memory/page.ts';
import { faultOf, hex, listOf, listsOf, runsOf, words64 } from '../lists.ts';

describe('a list of page chunks', () => {
  test('is a count and base and size of each chunk', () => {
    const bytes = hex(`0200000000000000
      0030120000000000 0020000000000000
      0000000001000000 0000200000000000`);
    const runs = [
      [0x123, 2],
      [0x100000, 512],
    ] as const;
    expect(runsOf(pageChunks, listOf(bytes))).toEqual(runs);
    expect(listsOf(pageChunks, runs)).toEqual([bytes]);
  });

  test('ignores the reserved low 12 bits of both', () => {
    expect(runsOf(pageChunks, listOf(words64(1n, 0x5fffn, 0x2abcn)))).toEqual([[5, 2]]);
  });

  test('takes 2047 chunks, and the rest in the next', () => {
    const runs = Array.from({ length: 2048 }, (_, i) => [i * 2, 1] as const);
    expect(listsOf(pageChunks, runs).map(bytes => bytes.length)).toEqual([8 + 2047 * 16, 24]);
  });

  test('is refused with a chunk of less than a page', () => {
    expect(faultOf(pageChunks, listOf(words64(1n, 0x5000n, 0n)))).toBe('empty-run');
    expect(faultOf(pageChunks, listOf(words64(1n, 0x5000n, 0xfffn)))).toBe('empty-run');
  });

  test('is refused with pages beyond every address', () => {
    const last = BigInt(PFN_LIMIT - 1) << 12n;
    expect(runsOf(pageChunks, listOf(words64(1n, last, 0x1000n)))).toEqual([[PFN_LIMIT - 1, 1]]);
    expect(faultOf(pageChunks, listOf(words64(1n, last, 0x2000n)))).toBe('range');
    expect(faultOf(pageChunks, listOf(words64(1n, 0n, 2n ** 64n - 1n)))).toBe('range');
    expect(faultOf(pageChunks, listOf(words64(1n, 2n ** 64n - 1n, 0x1000n)))).toBe('range');
  });

  test.each([2n, 2n ** 32n, 2n ** 60n, 2n ** 64n - 1n])(
    'is refused when it announces %i chunks and has one',
    count => {
      expect(faultOf(pageChunks, listOf(words64(count, 0x5000n, 0x1000n)))).toBe('truncated');
    },
  );

  test('is refused when it has more chunks than it announces', () => {
    expect(faultOf(pageChunks, listOf(words64(0n, 0x5000n, 0x1000n)))).toBe('surplus');
  });

  test('is refused wherever it is cut off', () => {
    const [bytes] = listsOf(pageChunks, [
      [1, 1],
      [10, 5000],
    ]);
    for (let length = 0; length < bytes.length; length++) {
      expect(faultOf(pageChunks, listOf(bytes.subarray(0, length)))).toBe('truncated');
    }
  });

  test('changes nothing when only its last chunk is bad', () => {
    expect(faultOf(pageChunks, listOf(words64(2n, 0x5000n, 0x1000n, 0x6000n, 0n)))).toBe('empty-run');
  });

  test('is refused when in-bufs come with it', () => {
    const list = listOf(words64(0n));
    list.addExtent(0, 4096);
    expect(faultOf(pageChunks, list)).toBe('direction');
  });
});
