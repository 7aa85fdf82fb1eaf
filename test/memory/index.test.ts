import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import * as memory from '../../src/memory/index.ts';

test('the public face is enough to build guest memory, write to it, and give a part of it back', () => {
  const { createMemfd, FileBacking, GuestMemory, MemoryRegion, PAGE_SIZE, PageRanges, gpaOf } = memory;
  const size = 16 * PAGE_SIZE;
  const backing = new FileBacking(createMemfd({ name: 'aerostat-test', size }), 0, size);
  const guest = new GuestMemory([new MemoryRegion({ guestAddress: 0, size, userAddress: 0 }, backing)]);
  guest.fill(0, 1, size);
  PageRanges.of([4, 2]).forEach((pfn, count) => {
    backing.discard(gpaOf(pfn), count * PAGE_SIZE);
  });
  expect(backing.residentBytes()).toBe(14 * PAGE_SIZE);
  guest.close();
});

test('every public face that the package names is there', () => {
  const root = new URL('../../', import.meta.url);
  const { exports } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as {
    exports: Record<string, string>;
  };
  for (const target of Object.values(exports)) {
    const source = target.replace(/^\.\/dist\/(.*)\.js$/, 'src/$1.ts');
    expect([target, existsSync(new URL(source, root))]).toEqual([target, true]);
  }
});
