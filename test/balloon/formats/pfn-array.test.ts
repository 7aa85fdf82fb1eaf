import { describe, expect, test } from 'vitest';
import { pfnArray } from '../../../src/balloon/formats/pfn-array.ts';
import { faultOf, hex, listOf, listsOf, runsOf } from '../lists.ts';

describe('an array of page frame numbers', () => {
  test('is four little-endian bytes a page', () => {
    expect(runsOf(pfnArray, listOf(hex('00010000 78563412 ffffffff')))).toEqual([
      [0x100, 1],
      [0x12345678, 1],
      [0xffffffff, 1],
    ]);
    expect(listsOf(pfnArray, [[0x100, 2]])).toEqual([hex('00010000 01010000')]);
  });

  test('joins neighbours that rise, fall, or do both', () => {
    const bytes = hex('05000000 06000000 04000000 03000000 07000000  20000000 1f000000');
    expect(runsOf(pfnArray, listOf(bytes))).toEqual([
      [3, 5],
      [0x1f, 2],
    ]);
  });

  test('names a page as often as the guest did', () => {
    expect(runsOf(pfnArray, listOf(hex('05000000 05000000')))).toEqual([
      [5, 1],
      [5, 1],
    ]);
  });

  test('does not join the last page of 16 TiB with the first', () => {
    expect(runsOf(pfnArray, listOf(hex('ffffffff 00000000')))).toEqual([
      [0xffffffff, 1],
      [0, 1],
    ]);
    expect(runsOf(pfnArray, listOf(hex('00000000 ffffffff')))).toEqual([
      [0, 1],
      [0xffffffff, 1],
    ]);
  });

  test('is cut after 256 pages unless another limit is given', () => {
    expect(listsOf(pfnArray, [[0, 600]]).map(bytes => bytes.length)).toEqual([1024, 1024, 352]);
    const limits = { bytesMax: 65_536 * 4, extentsMax: 0 };
    expect(listsOf(pfnArray, [[0, 65_537]], limits).map(bytes => bytes.length)).toEqual([262_144, 4]);
  });

  test.each([1, 2, 3, 5, 1023])('is refused when it is cut off after %i bytes', length => {
    expect(faultOf(pfnArray, listOf(new Uint8Array(length)))).toBe('truncated');
  });

  test('is refused when in-bufs come with it', () => {
    const list = listOf(hex('05000000'));
    list.addExtent(0, 4096);
    expect(faultOf(pfnArray, list)).toBe('direction');
  });

  test('cannot name a page above 16 TiB', () => {
    expect(() => listsOf(pfnArray, [[2 ** 32 - 1, 2]])).toThrow('4294967296 does not fit 32 bits');
    expect(listsOf(pfnArray, [[2 ** 32 - 1, 1]])).toEqual([hex('ffffffff')]);
  });
});
