import { describe, expect, test } from 'vitest';
import { LIST_BYTES_MAX, PageList, PageListError } from '../../src/balloon/page-list.ts';
import { EncodeCursor } from '../../src/balloon/page-list-format.ts';
import { PROFILE_NAMES, profile } from '../../src/balloon/profiles.ts';
import { PageRanges } from '../../src/memory/page-ranges.ts';

describe('a page list', () => {
  test('has room for the longest list of every format, behind a message', () => {
    for (const name of PROFILE_NAMES) {
      const { format, freePages } = profile(name);
      expect(8 + format.limits.bytesMax).toBeLessThanOrEqual(LIST_BYTES_MAX);
      expect(8 + freePages.format.limits.bytesMax).toBeLessThanOrEqual(LIST_BYTES_MAX);
    }
    expect(65_536 * 4).toBeLessThanOrEqual(LIST_BYTES_MAX);
  });

  test('grows once, keeps its bytes, and has three views of them', () => {
    const list = new PageList();
    const { bytes } = list;
    list.bytes.set([1, 2, 3, 4]);
    list.length = 4;
    list.reserve(1024);
    expect(list.bytes).toBe(bytes);
    list.reserve(bytes.length + 1);
    expect(list.bytes.length).toBe(LIST_BYTES_MAX);
    const grown = list.bytes;
    list.reserve(LIST_BYTES_MAX);
    expect(list.bytes).toBe(grown);
    expect(list.u32[0]).toBe(0x04030201);
    expect(list.view.getUint16(0, true)).toBe(0x0201);
  });

  test.each([LIST_BYTES_MAX + 1, 2 ** 32, Number.NaN])('refuses %d bytes', length => {
    expect(() => new PageList().reserve(length)).toThrow(PageListError);
  });

  test('begins where 64-bit entries line up', () => {
    const list = new PageList();
    list.beginAt(8);
    expect([list.start, list.length, list.listBytes]).toEqual([8, 8, 0]);
    expect(() => list.beginAt(4)).toThrow('a page list at offset 4');
  });

  test('is empty once it was cleared', () => {
    const list = new PageList();
    list.beginAt(8);
    list.addExtent(0, 4096);
    list.cutAt(8);
    list.clear();
    expect([list.start, list.length, list.extentCount, list.cutCount]).toEqual([0, 0, 0, 0]);
  });

  test('keeps its extents when it grows', () => {
    const list = new PageList();
    for (let index = 0; index < 65; index++) list.addExtent(index * 4096, 4096);
    expect([list.extentCount, list.extentAddresses[63], list.extentAddresses[64]]).toEqual([
      65,
      63 * 4096,
      64 * 4096,
    ]);
  });
});

describe('an encode cursor', () => {
  test('begins again after a reset', () => {
    const ranges = PageRanges.of([5, 2], [9, 1]);
    const cursor = new EncodeCursor();
    cursor.advance(ranges, 1);
    expect([cursor.pfn(ranges), cursor.left(ranges)]).toEqual([6, 1]);
    cursor.advance(ranges, 1);
    cursor.advance(ranges, 1);
    expect(cursor.done(ranges)).toBe(true);
    cursor.reset();
    expect([cursor.done(ranges), cursor.pfn(ranges)]).toEqual([false, 5]);
  });
});
