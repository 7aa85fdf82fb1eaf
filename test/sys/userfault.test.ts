/** Pages that were written, as the kernel tells. */
import { afterEach, describe, expect, test } from 'vitest';
import { type OwnedFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd, punchHole } from '../../src/sys/file.ts';
import { Mapping } from '../../src/sys/mapping.ts';
import { WriteTracker } from '../../src/sys/userfault.ts';

const PAGE = 4096;

const missing = ((): string | undefined => {
  try {
    new WriteTracker().close();
    return undefined;
  } catch (error) {
    console.warn(`Skipped: tests of write tracking. ${(error as Error).message}`);
    return String(error);
  }
})();

const opened: { close(): void }[] = [];
const open = <T extends { close(): void }>(thing: T): T => {
  opened.push(thing);
  return thing;
};

afterEach(() => {
  for (const thing of opened.splice(0).reverse()) thing.close();
  expect(openDescriptorCount()).toBe(0);
});

describe.skipIf(missing !== undefined)('the pages of a mapping', () => {
  function watched(pages: number): {
    fd: OwnedFd;
    mapping: Mapping;
    bytes: Uint8Array;
    tracker: WriteTracker;
  } {
    const fd = open(createMemfd({ name: 'aerostat-test', size: pages * PAGE }));
    const mapping = open(Mapping.shared(fd.number, 0, pages * PAGE));
    const tracker = open(new WriteTracker());
    tracker.watch(mapping.address, mapping.length);
    return { fd, mapping, bytes: new Uint8Array(mapping.buffer, mapping.offset, mapping.length), tracker };
  }

  /** Pages that were written since they were asked for last. */
  function written(
    tracker: WriteTracker,
    mapping: Mapping,
    first = 0,
    count = mapping.length / PAGE,
  ): number[] {
    const pages: number[] = [];
    tracker.take(mapping.address + first * PAGE, count * PAGE, (address, length) => {
      for (let at = address; at < address + length; at += PAGE) pages.push((at - mapping.address) / PAGE);
    });
    return pages;
  }

  test('are told once for every time that they were written', () => {
    const { mapping, bytes, tracker } = watched(64);
    written(tracker, mapping);
    expect(written(tracker, mapping)).toEqual([]);
    bytes[5 * PAGE] = 1;
    bytes[6 * PAGE + 100] = 1;
    bytes[63 * PAGE] = 1;
    expect(written(tracker, mapping)).toEqual([5, 6, 63]);
    expect(written(tracker, mapping)).toEqual([]);
    bytes[6 * PAGE] = 2;
    expect(written(tracker, mapping)).toEqual([6]);
  });

  test('are told only where they were asked for, and kept for later elsewhere', () => {
    const { mapping, bytes, tracker } = watched(32);
    written(tracker, mapping);
    bytes[3 * PAGE] = 1;
    bytes[20 * PAGE] = 1;
    expect(written(tracker, mapping, 16, 16)).toEqual([20]);
    expect(written(tracker, mapping)).toEqual([3]);
  });

  test('are told though there are more runs of them than one scan returns', () => {
    const pages = 4096;
    const { mapping, bytes, tracker } = watched(pages);
    written(tracker, mapping);
    const odd = Array.from({ length: pages / 2 }, (_, index) => 2 * index + 1);
    for (const page of odd) bytes[page * PAGE] = 1;
    expect(written(tracker, mapping)).toEqual(odd);
  });

  test('are not told when they are only read', () => {
    const { mapping, bytes, tracker } = watched(8);
    bytes.fill(1);
    written(tracker, mapping);
    expect(bytes.reduce((sum, byte) => sum + byte, 0)).toBe(8 * PAGE);
    expect(written(tracker, mapping)).toEqual([]);
  });

  test('are told again when they were discarded and written anew', () => {
    const { fd, mapping, bytes, tracker } = watched(8);
    bytes.fill(1);
    written(tracker, mapping);
    punchHole(fd, 2 * PAGE, PAGE);
    bytes[2 * PAGE] = 3;
    expect(written(tracker, mapping)).toContain(2);
  });

  test('cannot be asked for when they are not followed', () => {
    const { fd, mapping, tracker } = watched(8);
    const unwatched = open(Mapping.shared(fd.number, 0, 8 * PAGE));
    expect(() => written(tracker, unwatched)).toThrow('PAGEMAP_SCAN');
    expect(() => tracker.watch(mapping.address + 1, PAGE)).toThrow('UFFDIO_REGISTER');
    tracker.close();
    tracker.close();
  });
});
