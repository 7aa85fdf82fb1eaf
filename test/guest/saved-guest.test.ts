import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GFP_BALLOON } from '../../src/guest/gfp.ts';
import { Guest } from '../../src/guest/guest.ts';
import { checkAllocator } from '../../src/guest/invariants.ts';
import { Random } from '../../src/guest/random.ts';
import { StateReader, StateWriter } from '../../src/guest/saved-state.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { LinkedPages } from '../../src/memory/linked-pages.ts';
import { NIL } from '../../src/memory/page-blocks.ts';
import { AerostatError } from '../../src/sys/error.ts';
import { heapMemory, MIB_BYTES, SEED } from './guest.ts';

const MIB = 256;

/** A guest in the middle of everything. */
function busyGuest(sizeMiB = 32, poison?: number): Guest {
  const guest = Guest.boot({
    memory: heapMemory(sizeMiB),
    seed: SEED,
    dma32End: 4096,
    ...(poison === undefined ? {} : { poison }),
  });
  guest.age({ degree: 0.3, pinnedShare: 0.2 });
  guest.start({ kind: 'build', jobs: 3 });
  guest.start({ kind: 'churn', pages: 4 * MIB });
  guest.start({ kind: 'read', pages: 9 * MIB });
  guest.step(30_000);
  guest.start({ kind: 'touch', pages: 3000 });
  guest.step(1000);
  return guest;
}

function copyOf(memory: GuestMemory): GuestMemory {
  const copy = heapMemory(memory.size / MIB_BYTES);
  const page = new Uint8Array(MIB_BYTES);
  for (let at = 0; at < memory.size; at += MIB_BYTES) {
    memory.read(at, page, 0, MIB_BYTES);
    copy.write(at, page);
  }
  return copy;
}

const digest = ({ kernel }: Guest) => ({
  meminfo: kernel.meminfo(),
  vmstat: kernel.vmstat(),
  lists: [...kernel.cache.active, ...kernel.cache.inactive],
  processes: [...kernel.processes].map(process => [process.name, process.residentPages, process.frameOf(0)]),
});

describe('a saved guest', () => {
  it.each([undefined, 0xaa])('goes on elsewhere exactly as it would have here (poison %s)', poison => {
    const here = busyGuest(32, poison);
    const there = Guest.restore({ memory: copyOf(here.kernel.memory) }, here.save());
    expect(checkAllocator(there.kernel.allocator)).toEqual(checkAllocator(here.kernel.allocator));
    expect(there.verify()).toBe(here.verify());
    expect(digest(there)).toEqual(digest(here));
    for (let i = 0; i < 10; i++) {
      expect(there.step(3000)).toBe(here.step(3000));
      expect(digest(there)).toEqual(digest(here));
    }
    there.kernel.checkInvariants();
    expect(there.kernel.vmstat().poisonFaults).toBe(0);
    expect(there.save()).toEqual(here.save());
  });

  it('finds out when a page did not come along', () => {
    const here = busyGuest();
    const memory = copyOf(here.kernel.memory);
    const [process] = here.kernel.processes;
    memory.fill(process.frameOf(5) * 4096, 0, 4096);
    const there = Guest.restore({ memory }, here.save());
    expect(() => there.verify()).toThrow('all zeros');
  });

  it('forgets what it reported to the host it came from', () => {
    const here = Guest.boot({ memory: heapMemory(32), seed: SEED });
    const { allocator } = here.kernel;
    for (let pfn = allocator.isolateUnreported(10); pfn !== NIL; pfn = allocator.isolateUnreported(10)) {
      allocator.putBack(pfn, 10, true);
    }
    expect(here.kernel.checkInvariants().reported).toBeGreaterThan(0);
    const there = Guest.restore({ memory: heapMemory(32) }, here.save());
    expect(there.kernel.checkInvariants().reported).toBe(0);
    expect(there.kernel.allocator.isolateUnreported(10)).not.toBe(NIL);
  });

  it('gives a driver its pages back by its name, in the same order of addresses', () => {
    const here = Guest.boot({ memory: heapMemory(32), seed: SEED });
    const driver = { name: 'balloon', contents: 'none' } as const;
    const owner = here.kernel.addOwner(driver);
    const balloon = new LinkedPages(here.kernel.pages);
    for (let i = 0; i < 700; i++) {
      const pfn = here.kernel.allocate(i % 5 === 0 ? 4 : 0, GFP_BALLOON);
      here.kernel.own(pfn, owner, i);
      balloon.pushTail(pfn);
    }
    const isolated = here.kernel.allocator.isolateUnreported(10);
    const there = Guest.restore({ memory: heapMemory(32) }, here.save());
    const pages: [number, number, number][] = [];
    const again = there.kernel.addOwner({ ...driver, migrate: () => true });
    there.kernel.allocator.forEachOwned(again, (pfn, order) => {
      pages.push([there.kernel.pages.index[pfn], pfn, order]);
    });
    expect(again).toBe(owner);
    expect(pages.length).toBe(700);
    pages.sort(([a], [b]) => a - b);
    expect(pages.map(([, pfn]) => pfn)).toEqual([...balloon]);
    expect(pages.filter(([, , order]) => order === 4).length).toBe(140);
    there.kernel.allocator.putBack(isolated, 10, false);
    for (const [, pfn, order] of pages) there.kernel.free(pfn, order);
    there.kernel.checkInvariants();
  });

  it('is small when the guest is idle', () => {
    const memory = heapMemory(64);
    expect(Guest.boot({ memory, seed: SEED }).save().length).toBeLessThan(4096);
  });

  it('is read wherever its bytes lie: in a Buffer that shares its memory with others as well', () => {
    const saved = Guest.boot({ memory: heapMemory(64), seed: SEED }).save();
    const pooled = Buffer.concat([saved]);
    expect(pooled.buffer.byteLength).toBeGreaterThan(saved.length);
    expect(Guest.restore({ memory: heapMemory(64) }, pooled).save()).toEqual(saved);
  });

  it('is refused for a memory of another layout', () => {
    const bytes = busyGuest(32).save();
    expect(() => Guest.restore({ memory: heapMemory(33) }, bytes)).toThrow('another memory layout');
    expect(() => Guest.restore({ memory: heapMemory(16, 16) }, bytes)).toThrow('another memory layout');
  });

  it('is refused when it is cut short anywhere, or followed by something', () => {
    const bytes = busyGuest(24).save();
    const memory = heapMemory(24);
    const random = new Random(SEED);
    for (let i = 0; i < 200; i++) {
      const length = i < 60 ? i * 4 : random.below(bytes.length / 4) * 4;
      expect(() => Guest.restore({ memory }, bytes.subarray(0, length))).toThrow(AerostatError);
    }
    expect(() => Guest.restore({ memory }, bytes.subarray(0, 7))).toThrow('whole words');
    const longer = new Uint8Array(bytes.length + 4);
    longer.set(bytes);
    expect(() => Guest.restore({ memory }, longer)).toThrow('follow its end');
    expect(() => Guest.restore({ memory }, new Uint8Array(400))).toThrow('no saved guest');
  });

  it(`is refused, or sound, when words of it are changed (AEROSTAT_SEED=${SEED})`, () => {
    const bytes = busyGuest(24).save();
    const memory = heapMemory(24);
    const random = new Random(SEED);
    const nasty = [0, 1, 2, 511, 1023, 4096, 6143, 6144, 0x7fffffff, 0x80000000, 0xffffffff];
    let refused = 0;
    for (let run = 0; run < 400; run++) {
      const changed = bytes.slice();
      const words = new Uint32Array(changed.buffer);
      for (let i = random.between(1, 3); i > 0; i--) {
        // Every other change goes to the dense beginning, where the structure is.
        const at = random.below(random.chance(0.5) ? Math.min(600, words.length) : words.length);
        words[at] = random.chance(0.5)
          ? nasty[random.below(nasty.length)]
          : words[at] ^ (1 << random.below(32));
      }
      try {
        const guest = Guest.restore({ memory }, changed);
        const census = checkSound(guest);
        expect(census).toBe(guest.kernel.allocator.managedPages);
        runForged(guest);
      } catch (error) {
        expect(error).toBeInstanceOf(AerostatError);
        expect((error as AerostatError).code).toBe('AEROSTAT_SAVED_GUEST');
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(100);
  });
});

/** The allocator accounts for every page once; buddies that did not merge are allowed in a forged guest. */
function checkSound(guest: Guest): number {
  try {
    const { free, perCpu, allocated, isolated } = checkAllocator(guest.kernel.allocator);
    return free + perCpu + allocated + isolated;
  } catch (error) {
    if ((error as Error).message.includes('did not merge')) return guest.kernel.allocator.managedPages;
    throw error;
  }
}

/** A forged guest may stumble over what it claims, with an error of ours; it may not do anything else. */
function runForged(guest: Guest): void {
  try {
    guest.step(500);
  } catch (error) {
    expect(['AEROSTAT_GUEST_CONTENT', 'AEROSTAT_INVARIANT']).toContain((error as AerostatError).code);
  }
}

describe('the words of a saved state', () => {
  it('come back as they were written', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 2 ** 32 - 1 })),
        fc.maxSafeNat(),
        fc.boolean(),
        fc.string({ maxLength: 100 }),
        fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 2 ** 32 - 1 }))),
        (array, integer, flag, text, pairs) => {
          const runs = pairs.flatMap(([length, value]) => Array.from({ length }, () => value));
          const into = new StateWriter();
          into.array(array);
          into.integer(integer);
          into.flag(flag);
          into.text(text);
          into.runs(Uint32Array.from(runs));
          into.u32(NIL);
          const from = new StateReader(into.bytes());
          const values = new Uint32Array(runs.length);
          expect([...from.array('array', array.length)]).toEqual(array);
          expect(from.integer('integer')).toBe(integer);
          expect(from.flag('flag')).toBe(flag);
          expect(from.text('text')).toBe(text);
          from.runs('runs', values);
          expect([...values]).toEqual(runs);
          expect(from.signed('signed', 5)).toBe(NIL);
          from.end();
        },
      ),
    );
  });

  it('from any source give values within their bounds or a typed error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(100), (bytes, max) => {
        try {
          const from = new StateReader(bytes);
          expect(from.u32('word', max)).toBeLessThanOrEqual(max);
          expect(from.array('array', max).length).toBeLessThanOrEqual(max);
          from.runs('runs', new Uint32Array(8));
          from.text('text');
        } catch (error) {
          expect((error as AerostatError).code).toBe('AEROSTAT_SAVED_GUEST');
        }
      }),
    );
  });
});
