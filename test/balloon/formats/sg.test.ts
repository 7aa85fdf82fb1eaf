import { describe, expect, test } from 'vitest';
import { EXTENT_BYTES_MAX, extents, sg } from '../../../src/balloon/formats/sg.ts';
import { LIST_EXTENTS_MAX, PageList } from '../../../src/balloon/page-list.ts';
import { EncodeCursor } from '../../../src/balloon/page-list-format.ts';
import { PageRanges } from '../../../src/memory/page-ranges.ts';
import { extentsOf, faultOf, hex, listOf, runsOf } from '../lists.ts';

const GIB = 2 ** 30;

describe('runs of pages as in-bufs', () => {
  test('are the addresses and lengths of the buffers', () => {
    expect(runsOf(extents, extentsOf([0x1000, 0x3000], [5 * GIB, 0x200000]))).toEqual([
      [1, 3],
      [5 * 2 ** 18, 512],
    ]);
  });

  test('are one to a list, or as many as a chain may have', () => {
    const ranges = PageRanges.of([1, 3], [10, 1], [20, 2]);
    const cursor = new EncodeCursor();
    const list = new PageList();
    expect(extents.encode(ranges, cursor, list)).toBe(3);
    expect([list.extentCount, list.extentAddresses[0], list.extentLengths[0]]).toEqual([1, 0x1000, 0x3000]);
    expect(extents.encode(ranges, cursor, list, { bytesMax: 0, extentsMax: 32 })).toBe(3);
    expect(list.extentCount).toBe(2);
  });

  test('are cut at 4 GiB - 4 KiB, the longest that a descriptor can say', () => {
    const ranges = PageRanges.of([0, 2 ** 20]);
    const cursor = new EncodeCursor();
    const list = new PageList();
    expect(extents.encode(ranges, cursor, list)).toBe(2 ** 20 - 1);
    expect(list.extentLengths[0]).toBe(EXTENT_BYTES_MAX);
    expect(extents.encode(ranges, cursor, list)).toBe(1);
    expect(runsOf(extents, extentsOf([0, EXTENT_BYTES_MAX]))).toEqual([[0, 2 ** 20 - 1]]);
    expect(faultOf(extents, extentsOf([0, EXTENT_BYTES_MAX + 4096]))).toBe('range');
  });

  test.each([
    [0, 1],
    [0, 4095],
    [0, 4097],
    [1, 4096],
    [4095, 1],
    [0x1800, 0x1000],
  ])('are refused when they are not whole pages: %i + %i', (address, length) => {
    expect(faultOf(extents, extentsOf([0x5000, 0x1000], [address, length]))).toBe('alignment');
  });

  test('are refused when they have no bytes, or lie beyond every address', () => {
    expect(faultOf(extents, extentsOf([0x1000, 0]))).toBe('empty-run');
    expect(faultOf(extents, extentsOf([2 ** 53 - 4096, 8192]))).toBe('range');
    expect(faultOf(extents, extentsOf([2 ** 64, 4096]))).toBe('range');
  });

  test('are refused beside out-bufs', () => {
    const list = listOf(hex('05000000'));
    list.addExtent(0, 4096);
    expect(faultOf(extents, list)).toBe('direction');
    expect(faultOf(sg, list)).toBe('direction');
  });

  test('page frame numbers are still taken in their place, except for hints and reports', () => {
    expect(runsOf(sg, listOf(hex('05000000 06000000')))).toEqual([[5, 2]]);
    expect(runsOf(sg, extentsOf([0x1000, 0x1000]))).toEqual([[1, 1]]);
    expect(faultOf(sg, listOf(hex('050000')))).toBe('truncated');
    expect(faultOf(extents, listOf(hex('05000000')))).toBe('direction');
  });

  test('are no more than the largest virtqueue has descriptors', () => {
    const list = new PageList();
    for (let index = 0; index < LIST_EXTENTS_MAX; index++) list.addExtent(index * 8192, 4096);
    expect(() => list.addExtent(0, 4096)).toThrow('more than 32768 in-bufs');
    expect(runsOf(extents, list)).toHaveLength(LIST_EXTENTS_MAX);
  });
});
