/** What workloads do to a guest on the buddy allocator; what holds on either allocator is in both-allocators.test.ts. */
import { describe, expect, it } from 'vitest';
import { Guest, type WorkloadSpec } from '../../src/guest/guest.ts';
import { gpaOf } from '../../src/memory/page.ts';
import { heapMemory, SEED } from './guest.ts';

const MIB = 256;

const boot = (sizeMiB: number, seed = SEED) => Guest.boot({ memory: heapMemory(sizeMiB), seed });

const everything: readonly WorkloadSpec[] = [
  { kind: 'build', jobs: 4 },
  { kind: 'churn', pages: 8 * MIB },
  { kind: 'read', pages: 20 * MIB },
];

describe(`workloads (AEROSTAT_SEED=${SEED})`, () => {
  it('survive compaction, dropped caches and shrunk slabs at any time', () => {
    const guest = boot(48);
    for (const spec of everything) guest.start(spec);
    for (let i = 0; i < 10; i++) {
      guest.step(5000);
      guest.kernel.compact();
      guest.step(5000);
      guest.kernel.dropCaches();
      guest.step(5000);
      guest.kernel.shrinkAll();
      guest.kernel.checkInvariants();
    }
    expect(guest.kernel.vmstat().pagesMigrated).toBeGreaterThan(1000);
    guest.verify();
  });

  it('find a page that was changed behind their back', () => {
    const guest = boot(32);
    guest.start({ kind: 'churn', pages: 200 });
    guest.step(5000);
    const [churn] = guest.kernel.processes;
    for (let index = 0; index < 200; index++) {
      const pfn = churn.frameOf(index);
      if (pfn >= 0) guest.kernel.memory.write(gpaOf(pfn) + 17, Uint8Array.of(0x99));
    }
    expect(() => guest.step(5000)).toThrow(expect.objectContaining({ code: 'AEROSTAT_GUEST_CONTENT' }));
  });

  it('of the touching kind write to all free memory once and free it again', () => {
    const guest = boot(32);
    const touched = new Set<number>();
    guest.kernel.access.writeLog = { add: pfn => void touched.add(pfn) };
    const before = guest.kernel.meminfo().freeBytes;
    const touch = guest.start({ kind: 'touch' });
    for (let i = 0; i < 100 && !touch.done; i++) expect(guest.step(500)).toBeGreaterThan(0);
    expect(touch.done).toBe(true);
    expect(touched.size).toBeGreaterThan(0.9 * guest.kernel.allocator.managedPages);
    expect(guest.kernel.meminfo().freeBytes).toBe(before);
    expect(guest.kernel.cache.pages).toBe(0);
    expect(guest.kernel.vmstat().allocStalls).toBe(0);
  });

  it('of the reading kind fill the page cache and leave it full', () => {
    const guest = boot(32);
    const read = guest.start({ kind: 'read', pages: 10 * MIB });
    guest.step(20 * MIB);
    expect(read.done).toBe(true);
    expect(guest.kernel.meminfo().cacheBytes).toBe(10 * 2 ** 20);
  });

  it('wait while there is no memory, and go on when there is', () => {
    const guest = boot(16);
    guest.kernel.addOomNotifier({ name: 'promises', release: () => 1 });
    const held: number[] = [];
    for (let pfn = 0; pfn >= 0; held.push(pfn)) pfn = guest.kernel.allocate(0, 0x18);
    held.pop();
    guest.start({ kind: 'read', pages: 1000 });
    guest.start({ kind: 'churn', pages: 1000 });
    for (let i = 0; i < 5; i++) expect(guest.step(1000)).toBeLessThan(1000);
    expect(guest.kernel.vmstat().oomKills).toBe(0);
    for (const pfn of held) guest.kernel.free(pfn, 0);
    expect(guest.step(1000)).toBe(1000);
  });
});
