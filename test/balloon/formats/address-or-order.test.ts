import { describe, expect, test } from 'vitest';
import { addressOrOrder } from '../../../src/balloon/formats/address-or-order.ts';
import { faultOf, hex, listOf, listsOf, runsOf, words64 } from '../lists.ts';

describe('a list of addresses and orders', () => {
  test('is a 64-bit address a block, with the order in its low 8 bits', () => {
    const bytes = hex('0900120000000000 0040120000000000');
    expect(runsOf(addressOrOrder, listOf(bytes))).toEqual([
      [0x120, 512],
      [0x124, 1],
    ]);
  });

  test('splits runs into aligned blocks', () => {
    expect(listsOf(addressOrOrder, [[0x200, 513]])).toEqual([hex('0900200000000000 0000400000000000')]);
  });

  test('takes 32 blocks a buffer, and reads longer ones', () => {
    const runs = Array.from({ length: 40 }, (_, i) => [i * 2, 1] as const);
    expect(listsOf(addressOrOrder, runs).map(bytes => bytes.length)).toEqual([256, 64]);
    const [all] = listsOf(addressOrOrder, runs, { bytesMax: 4096, extentsMax: 0 });
    expect(runsOf(addressOrOrder, listOf(all))).toEqual(runs);
  });

  test('is refused with an order beyond every address', () => {
    expect(runsOf(addressOrOrder, listOf(words64(40n)))).toEqual([[0, 2 ** 40]]);
    expect(faultOf(addressOrOrder, listOf(words64(41n)))).toBe('page-shift');
    expect(faultOf(addressOrOrder, listOf(words64(255n)))).toBe('page-shift');
    expect(faultOf(addressOrOrder, listOf(words64(0x1000n, (1n << 52n) | (1n << 12n) | 40n)))).toBe('range');
  });

  test('is refused with an address inside a page', () => {
    expect(faultOf(addressOrOrder, listOf(words64(0x1000n, 0x1100n)))).toBe('alignment');
    expect(faultOf(addressOrOrder, listOf(words64(0x1fffn)))).toBe('alignment');
  });

  test.each([1, 7, 9, 255])('is refused when it is cut off after %i bytes', length => {
    expect(faultOf(addressOrOrder, listOf(new Uint8Array(length)))).toBe('truncated');
  });

  test('is refused when in-bufs come with it', () => {
    const list = listOf(words64(0n));
    list.addExtent(0, 4096);
    expect(faultOf(addressOrOrder, list)).toBe('direction');
  });
});
