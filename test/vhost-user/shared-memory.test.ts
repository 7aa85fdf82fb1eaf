import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FileBacking } from '../../src/memory/file-backing.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { SystemError } from '../../src/sys/error.ts';
import { createSharedMemory, USER_ADDRESS_OFFSET } from '../../src/vhost-user/shared-memory.ts';
import { openDescriptors } from '../support/descriptors.ts';
import { HUGE_PAGE_SIZE, reserveHugePages } from '../support/huge-pages.ts';

const MIB = 2 ** 20;

const freeHugePages = (): number =>
  Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);

describe('shared memory', () => {
  let before: unknown;
  beforeEach(() => {
    before = openDescriptors();
  });
  afterEach(() => {
    expect(openDescriptors()).toEqual(before);
  });

  const backings = (memory: GuestMemory) => memory.regions.map(region => region.backing as FileBacking);

  it('is one file, in which each region has its place', () => {
    const memory = createSharedMemory({
      regions: [
        { guestAddress: 0, size: MIB },
        { guestAddress: 2 ** 32, size: 2 * MIB },
      ],
    });
    const [low, high] = backings(memory);
    expect(low.identity).toBe(high.identity);
    expect([low.fileOffset, high.fileOffset]).toEqual([0, MIB]);
    expect(memory.regions.map(region => region.userAddress)).toEqual([
      USER_ADDRESS_OFFSET,
      USER_ADDRESS_OFFSET + 2 ** 32,
    ]);
    memory.setU32(2 ** 32, 7);
    expect(high.residentBytes()).toBe(4096);
    expect(memory.u32(0)).toBe(0);
    memory.close();
  });

  it('cannot be shrunk under a process that maps it', () => {
    const memory = createSharedMemory({ regions: [{ guestAddress: 0, size: MIB }] });
    expect(backings(memory)[0].sealed).toBe(true);
    memory.close();
  });

  it('may ask for transparent huge pages', () => {
    const memory = createSharedMemory({
      regions: [{ guestAddress: 0, size: 8 * MIB }],
      adviseHugePages: true,
    });
    memory.setU32(0, 1);
    expect(memory.u32(0)).toBe(1);
    memory.close();
  });

  it('is refused when the host has too few huge pages for it', () => {
    const size = (freeHugePages() + 1) * HUGE_PAGE_SIZE;
    expect(() =>
      createSharedMemory({ regions: [{ guestAddress: 0, size }], hugePageSize: HUGE_PAGE_SIZE }),
    ).toThrow(SystemError);
  });

  it('is refused with regions that overlap, and leaves nothing open', () => {
    const regions = [
      { guestAddress: 0, size: MIB },
      { guestAddress: 4096, size: MIB },
    ];
    expect(() => createSharedMemory({ regions })).toThrow('overlaps');
    expect(() => createSharedMemory({ regions: [{ guestAddress: 1, size: MIB }] })).toThrow('refused');
  });
});

const pool = reserveHugePages(2);
afterAll(() => pool.release());

describe.skipIf(pool.missing !== undefined)('shared memory of huge pages', () => {
  it('has them set aside before they are touched', () => {
    const before = freeHugePages();
    const memory = createSharedMemory({
      regions: [{ guestAddress: 0, size: 2 * HUGE_PAGE_SIZE }],
      hugePageSize: HUGE_PAGE_SIZE,
    });
    const [{ backing }] = memory.regions;
    expect(backing.kind).toBe('hugetlb');
    expect(backing.discardUnit).toBe(HUGE_PAGE_SIZE);
    expect(() =>
      createSharedMemory({
        regions: [{ guestAddress: 0, size: before * HUGE_PAGE_SIZE }],
        hugePageSize: HUGE_PAGE_SIZE,
      }),
    ).toThrow(SystemError);
    memory.setU32(HUGE_PAGE_SIZE, 1);
    expect(backing.residentBytes()).toBe(HUGE_PAGE_SIZE);
    memory.close();
  });
});
