/** Addresses of a guest, and what lies behind them. */
import fc from 'fast-check';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import { type Backing, HeapBacking, WINDOW_BYTES } from '../../src/memory/backing.ts';
import { FileBacking } from '../../src/memory/file-backing.ts';
import {
  GuestMemory,
  MemoryAccessError,
  MemoryRegion,
  REGION_BYTES_MAX,
} from '../../src/memory/guest-memory.ts';
import { gpaOf, PAGE_SIZE, pfnOf } from '../../src/memory/page.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';

const KIB = 1024;
const GIB = 2 ** 30;

afterAll(() => expect(openDescriptorCount()).toBe(0));

const region = (guestAddress: number, size: number, userAddress = guestAddress) =>
  new MemoryRegion({ guestAddress, size, userAddress }, new HeapBacking(size));

/** 64 KiB in two regions that touch, a hole of 16 KiB, and 16 KiB more. */
const memoryWithHole = (): GuestMemory =>
  new GuestMemory([
    region(96 * KIB, 16 * KIB, 0),
    region(16 * KIB, 32 * KIB, 10 * GIB),
    region(48 * KIB, 32 * KIB, 20 * GIB),
  ]);

const inMemory = (at: number): boolean =>
  (at >= 16 * KIB && at < 80 * KIB) || (at >= 96 * KIB && at < 112 * KIB);

describe('regions', () => {
  test('are kept in order of their addresses', () => {
    const memory = memoryWithHole();
    expect(memory.regions.map(({ guestAddress }) => guestAddress / KIB)).toEqual([16, 48, 96]);
    expect(memory.size).toBe(80 * KIB);
  });

  test('may touch and may not overlap, in guest addresses or in the front-end’s', () => {
    const memory = memoryWithHole();
    const refused = (guestAddress: number, size: number, userAddress = 99 * GIB) =>
      expect(() => memory.add(region(guestAddress, size, userAddress))).toThrow(
        expect.objectContaining({ code: 'AEROSTAT_REGION_OVERLAP' }),
      );
    refused(12 * KIB, 8 * KIB);
    refused(76 * KIB, 8 * KIB);
    refused(92 * KIB, 32 * KIB);
    refused(100 * KIB, 4 * KIB);
    refused(1024 * KIB, 4 * KIB, 10 * GIB + 28 * KIB);
    expect(memory.regions).toHaveLength(3);
    memory.add(region(80 * KIB, 16 * KIB, 99 * GIB));
    expect(memory.regions).toHaveLength(4);
  });

  test.each([
    ['a guest address in the middle of a page', { guestAddress: 100, size: 4096, userAddress: 0 }],
    ['a user address in the middle of a page', { guestAddress: 0, size: 4096, userAddress: 1 }],
    ['half a page', { guestAddress: 0, size: 2048, userAddress: 0 }],
    ['nothing', { guestAddress: 0, size: 0, userAddress: 0 }],
    ['less than nothing', { guestAddress: 0, size: -4096, userAddress: 0 }],
    ['more than its backing', { guestAddress: 0, size: 2 ** 17, userAddress: 0 }],
    ['addresses beyond 2^53', { guestAddress: 2 ** 53 - 4096, size: 8192, userAddress: 0 }],
    ['user addresses beyond 2^53', { guestAddress: 0, size: 8192, userAddress: 2 ** 53 }],
  ])('of %s are refused', (_, addresses) => {
    expect(() => new MemoryRegion(addresses, new HeapBacking(2 ** 16))).toThrow(
      expect.objectContaining({ code: 'AEROSTAT_REGION_ADDRESS' }),
    );
  });

  test('of more than 4 TiB, or of a part of a huge page, are refused', () => {
    const backing = (size: number, discardUnit: number) => ({ size, discardUnit }) as Backing;
    const refused = (size: number, of: Backing) =>
      expect(() => new MemoryRegion({ guestAddress: 0, size, userAddress: 0 }, of)).toThrow(
        expect.objectContaining({ code: 'AEROSTAT_REGION_ADDRESS' }),
      );
    refused(REGION_BYTES_MAX + PAGE_SIZE, backing(2 ** 50, PAGE_SIZE));
    refused(3 * 2 ** 20, backing(2 ** 22, 2 ** 21));
    const largest = { guestAddress: 0, size: REGION_BYTES_MAX, userAddress: 0 };
    expect(new MemoryRegion(largest, backing(2 ** 50, PAGE_SIZE)).pageCount).toBe(2 ** 30);
  });

  test('are found by any address in them', () => {
    const memory = memoryWithHole();
    fc.assert(
      fc.property(fc.nat(128 * KIB), at => {
        const found = memory.find(at);
        expect(found !== undefined).toBe(inMemory(at));
        if (found !== undefined) {
          expect(at).toBeGreaterThanOrEqual(found.guestAddress);
          expect(at).toBeLessThan(found.end);
        }
      }),
    );
  });

  test('are removed by exactly their addresses, and their memory is no more', () => {
    const memory = memoryWithHole();
    expect(memory.u16(16 * KIB)).toBe(0);
    const exact = { guestAddress: 16 * KIB, size: 32 * KIB, userAddress: 10 * GIB };
    expect(memory.remove({ ...exact, size: 16 * KIB })).toBeUndefined();
    expect(memory.remove({ ...exact, userAddress: 0 })).toBeUndefined();
    expect(memory.remove(exact)?.guestAddress).toBe(16 * KIB);
    expect(memory.find(16 * KIB)).toBeUndefined();
    expect(() => memory.u16(16 * KIB)).toThrow(MemoryAccessError);
    memory.close();
    expect(memory.size).toBe(0);
    expect(memory.find(48 * KIB)).toBeUndefined();
  });

  test('are found by a front-end’s addresses, where all bytes lie in one', () => {
    const memory = memoryWithHole();
    expect(memory.gpaOfUser(10 * GIB + 100, 50)).toBe(16 * KIB + 100);
    expect(memory.gpaOfUser(0, 16 * KIB)).toBe(96 * KIB);
    expect(memory.gpaOfUser(0, 16 * KIB + 1)).toBeUndefined();
    // The two neighbours in guest memory are none in the front-end's.
    expect(memory.gpaOfUser(10 * GIB + 31 * KIB, 2 * KIB)).toBeUndefined();
    expect(memory.gpaOfUser(5 * GIB, 1)).toBeUndefined();
  });
});

/** Regions, 4 KiB each and without gaps, that count how often their place is looked up. */
function countedRegions(count: number) {
  let looks = 0;
  const regions = Array.from({ length: count }, (_, index) => {
    const guestAddress = index * PAGE_SIZE;
    const region = new MemoryRegion(
      { guestAddress, size: PAGE_SIZE, userAddress: guestAddress },
      new HeapBacking(PAGE_SIZE),
    );
    return new Proxy(region, {
      get: (target, name) => {
        if (name === 'guestAddress') looks++;
        return Reflect.get(target, name, target);
      },
    });
  });
  const memory = new GuestMemory(regions);
  const looksFor = (use: () => void): number => {
    const before = looks;
    use();
    return looks - before;
  };
  return { memory, looksFor };
}

describe('hundreds of regions cost no more than a few look-ups', () => {
  const REGIONS = 500;
  /** A binary search and a glance at what it found. */
  const FEW = 2 * Math.ceil(Math.log2(REGIONS)) + 4;

  test('a range that spans all of them is guest memory', () => {
    const { memory, looksFor } = countedRegions(REGIONS);
    const looks = looksFor(() => expect(memory.contains(0, REGIONS * PAGE_SIZE)).toBe(true));
    expect(looks).toBeLessThanOrEqual(FEW);
    expect(memory.contains(0, REGIONS * PAGE_SIZE + 1)).toBe(false);
    memory.remove({ guestAddress: PAGE_SIZE, size: PAGE_SIZE, userAddress: PAGE_SIZE });
    expect(memory.contains(0, PAGE_SIZE)).toBe(true);
    expect(memory.contains(0, PAGE_SIZE + 1)).toBe(false);
    expect(memory.contains(2 * PAGE_SIZE, (REGIONS - 2) * PAGE_SIZE)).toBe(true);
  });

  test('an address in another region than the last is found', () => {
    const { memory, looksFor } = countedRegions(REGIONS);
    for (const index of [0, REGIONS - 1, 7, REGIONS / 2]) {
      const looks = looksFor(() => expect(memory.find(index * PAGE_SIZE + 5)?.firstPfn).toBe(index));
      expect(looks).toBeLessThanOrEqual(FEW);
    }
    expect(
      looksFor(() => expect(memory.gpaOfUser((REGIONS - 1) * PAGE_SIZE, 8)).toBeDefined()),
    ).toBeLessThanOrEqual(FEW);
  });
});

describe('a range of bytes', () => {
  test('is guest memory when every byte of it is', () => {
    const memory = memoryWithHole();
    fc.assert(
      fc.property(fc.nat(128 * KIB), fc.nat(70 * KIB), (at, length) => {
        const pages = Array.from({ length: Math.ceil(length / KIB) + 1 }, (_, index) =>
          Math.min(at + index * KIB, at + length - 1),
        );
        expect(memory.contains(at, length)).toBe(length === 0 || pages.every(inMemory));
      }),
    );
  });

  test.each([2 ** 53, 2 ** 53 - 100, 2 ** 63, 2 ** 64, Number.POSITIVE_INFINITY, Number.NaN])(
    'at %d is none',
    at => {
      const memory = memoryWithHole();
      expect(memory.contains(at, 4096)).toBe(false);
      expect(() => memory.read(at, new Uint8Array(8), 0, 8)).toThrow(MemoryAccessError);
      expect(() => memory.u64(at)).toThrow(MemoryAccessError);
    },
  );

  test('is copied in and out as if guest memory were one array', () => {
    const memory = memoryWithHole();
    const model = new Uint8Array(128 * KIB);
    const step = fc.record({
      at: fc.nat(120 * KIB),
      length: fc.oneof(fc.nat(64), fc.nat(40 * KIB)),
      value: fc.integer({ min: 1, max: 255 }),
      fill: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 10 }), steps => {
        for (const { at, length, value, fill } of steps) {
          const bytes = Uint8Array.from({ length }, (_, index) => (fill ? value : (value + index) & 0xff));
          const act = () => (fill ? memory.fill(at, value, length) : memory.write(at, bytes));
          const back = new Uint8Array(length + 3).fill(0xee);
          if (memory.contains(at, length)) {
            act();
            model.set(bytes, at);
            memory.read(at, back, 2, length);
            expect(back.subarray(2, 2 + length)).toEqual(model.subarray(at, at + length));
            expect([back[0], back[1], back[length + 2]]).toEqual([0xee, 0xee, 0xee]);
          } else {
            expect(act).toThrow(MemoryAccessError);
            expect(() => memory.read(at, back, 0, length)).toThrow(MemoryAccessError);
          }
        }
        for (const { guestAddress, size } of memory.regions) {
          const bytes = new Uint8Array(size);
          memory.read(guestAddress, bytes, 0, size);
          expect(Buffer.compare(bytes, model.subarray(guestAddress, guestAddress + size))).toBe(0);
        }
      }),
      { numRuns: 50 },
    );
  });

  test('may be written from the middle of an array', () => {
    const memory = memoryWithHole();
    memory.write(20 * KIB, Uint8Array.of(1, 2, 3, 4), 1, 2);
    const back = new Uint8Array(3);
    memory.read(20 * KIB, back, 0, 3);
    expect([...back]).toEqual([2, 3, 0]);
  });
});

describe('words', () => {
  test('are little-endian, and read back as they were written', () => {
    const memory = memoryWithHole();
    const at = 16 * KIB;
    memory.setU16(at, 0x0201);
    memory.setU32(at + 4, 0x08070605);
    memory.setU64(at + 8, 2 ** 40 + 5);
    memory.atomicStoreU16(at + 16, 0xfffe);
    expect(memory.u16(at)).toBe(0x0201);
    expect(memory.u32(at + 4)).toBe(0x08070605);
    expect(memory.u64(at + 8)).toBe(2 ** 40 + 5);
    expect(memory.atomicLoadU16(at + 16)).toBe(0xfffe);
    const bytes = new Uint8Array(18);
    memory.read(at, bytes, 0, 18);
    expect([...bytes]).toEqual([1, 2, 0, 0, 5, 6, 7, 8, 5, 0, 0, 0, 0, 1, 0, 0, 0xfe, 0xff]);
  });

  test('of 64 bits lose no size: what is 2^53 and more stays so', () => {
    const memory = memoryWithHole();
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), value => {
        const bytes = new DataView(new ArrayBuffer(8));
        bytes.setBigUint64(0, value, true);
        memory.write(16 * KIB, new Uint8Array(bytes.buffer));
        const read = memory.u64(16 * KIB);
        if (value < 2n ** 53n) expect(BigInt(read)).toBe(value);
        else expect(read).toBeGreaterThanOrEqual(2 ** 53);
      }),
    );
  });

  test.each([
    ['u16', 2, 1],
    ['u32', 4, 2],
    ['u64', 8, 4],
    ['atomicLoadU16', 2, 1],
  ] as const)('are refused out of line: %s', (name, width, off) => {
    const memory = memoryWithHole();
    expect(() => memory[name](16 * KIB + off)).toThrow(MemoryAccessError);
    expect(() => memory[name](16 * KIB - width)).toThrow(MemoryAccessError);
    expect(() => memory[name](112 * KIB)).toThrow(MemoryAccessError);
    expect(memory[name](112 * KIB - width)).toBe(0);
  });

  test('an error says which address it was', () => {
    expect(() => memoryWithHole().setU32(0x1000, 1)).toThrow('0x1000 + 4 bytes is not guest memory');
    expect(() => memoryWithHole().setU16(0, 1)).toThrow(MemoryAccessError);
    expect(() => memoryWithHole().setU64(0, 1)).toThrow(MemoryAccessError);
    expect(() => memoryWithHole().atomicStoreU16(0, 1)).toThrow(MemoryAccessError);
  });
});

describe('a region of several windows', () => {
  const open = (): GuestMemory => {
    const size = 2 * WINDOW_BYTES + 2 ** 20;
    const backing = new FileBacking(createMemfd({ name: 'sparse', size }), 0, size);
    const memory = new GuestMemory([
      new MemoryRegion({ guestAddress: 4 * GIB, size, userAddress: 0 }, backing),
    ]);
    onTestFinished(() => memory.close());
    return memory;
  };

  test('is one memory across the boundaries of its windows', () => {
    const memory = open();
    const bytes = Uint8Array.from({ length: 5000 }, (_, index) => index & 0xff);
    for (const boundary of [4 * GIB + WINDOW_BYTES, 4 * GIB + 2 * WINDOW_BYTES]) {
      const at = boundary - 2400;
      memory.write(at, bytes);
      const back = new Uint8Array(5000);
      memory.read(at, back, 0, 5000);
      expect(back).toEqual(bytes);
      memory.setU64(boundary - 8, 0x1122334455);
      memory.setU64(boundary, 0x99);
      expect([memory.u64(boundary - 8), memory.u64(boundary), memory.u32(boundary - 8)]).toEqual([
        0x1122334455, 0x99, 0x22334455,
      ]);
      memory.fill(boundary - 1, 7, 2);
      expect([memory.u16(boundary - 2) >>> 8, memory.u16(boundary) & 0xff]).toEqual([7, 7]);
    }
  });

  test('holds nothing but what was written', () => {
    const memory = open();
    memory.setU16(4 * GIB + 2 * WINDOW_BYTES, 1);
    expect(memory.regions[0].backing.residentBytes()).toBe(PAGE_SIZE);
    expect(() => memory.u16(4 * GIB + 2 * WINDOW_BYTES + 2 ** 20)).toThrow(MemoryAccessError);
  });
});

test('pages and addresses are each other’s multiples', () => {
  expect(gpaOf(3)).toBe(0x3000);
  expect(pfnOf(0x3fff)).toBe(3);
});
