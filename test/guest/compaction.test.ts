import { describe, expect, it } from 'vitest';
import { GFP_BALLOON, GFP_MOVABLE, GFP_NORETRY, GFP_NOWARN } from '../../src/guest/gfp.ts';
import type { GuestKernel } from '../../src/guest/kernel.ts';
import type { Process } from '../../src/guest/process.ts';
import { LinkedPages } from '../../src/memory/linked-pages.ts';
import { NIL } from '../../src/memory/page-blocks.ts';
import { bootGuest } from './guest.ts';

/** A guest whose memory is a comb: every eighth page of a process is left. */
function comb(): { kernel: GuestKernel; process: Process } {
  const kernel = bootGuest(32, { coverage: 'whole' });
  const process = kernel.spawn('comb');
  for (let index = 0; index < 7000; index++) process.write(index);
  for (let index = 0; index < 7000; index++) if (index % 8 !== 0) process.unmap(index);
  kernel.allocator.drainPerCpu();
  return { kernel, process };
}

describe('compaction', () => {
  it('makes large blocks out of small ones and keeps every byte', () => {
    const { kernel, process } = comb();
    const before = kernel.allocator.freeBlocks(9) + kernel.allocator.freeBlocks(10);
    kernel.compact();
    const after = kernel.allocator.freeBlocks(9) + kernel.allocator.freeBlocks(10);
    expect(after).toBeGreaterThan(before + 5);
    expect(kernel.vmstat().pagesMigrated).toBeGreaterThan(400);
    expect(process.verifyAll()).toBe(875 + 14);
    kernel.checkInvariants();
  });

  it('serves a large allocation that finds no block, but not one that asked for no effort', () => {
    const { kernel, process } = comb();
    while (kernel.allocate(9, GFP_MOVABLE | GFP_NORETRY | GFP_NOWARN) !== NIL);
    expect(kernel.vmstat().compactions).toBe(0);
    expect(kernel.allocate(9, GFP_MOVABLE)).not.toBe(NIL);
    expect(kernel.vmstat().compactions).toBeGreaterThan(0);
    process.verifyAll();
    kernel.checkInvariants();
  });

  it('moves page cache pages in their place on the lists', () => {
    const kernel = bootGuest(32);
    const file = kernel.cache.create(4000);
    for (let page = 0; page < 4000; page++) kernel.cache.read(file, page);
    for (let page = 0; page < 4000; page += 3) kernel.cache.write(file, page);
    kernel.reclaim.reclaim(2000, 'direct');
    const order = () => [...kernel.cache.inactive].map(pfn => kernel.pages.index[pfn]);
    const before = order();
    kernel.compact();
    expect(kernel.vmstat().pagesMigrated).toBeGreaterThan(0);
    expect(order()).toEqual(before);
    kernel.cache.verify();
    kernel.checkInvariants();
  });

  it('moves ballooned pages without touching their bytes, and lets the balloon free the old ones later', () => {
    const kernel = bootGuest(16);
    const balloon = new LinkedPages(kernel.pages);
    const awaitingDeflate: number[] = [];
    const owner = kernel.addOwner({
      name: 'balloon',
      contents: 'none',
      migrate(from, to) {
        balloon.replace(from, to);
        awaitingDeflate.push(from);
        return true;
      },
    });
    const all = Array.from({ length: 3000 }, () => kernel.allocate(0, GFP_BALLOON));
    for (const [i, pfn] of all.entries()) {
      if (i % 4 !== 0) continue;
      kernel.own(pfn, owner);
      balloon.pushTail(pfn);
      all[i] = NIL;
    }
    for (const pfn of all) if (pfn !== NIL) kernel.free(pfn, 0);
    const writes: number[] = [];
    kernel.access.writeLog = { add: pfn => writes.push(pfn) };
    kernel.compact();
    expect(awaitingDeflate.length).toBeGreaterThan(100);
    expect(writes).toEqual([]);
    expect(balloon.length).toBe(750);
    for (const pfn of balloon) expect(kernel.allocator.isMovable(pfn)).toBe(true);
    for (const pfn of awaitingDeflate) kernel.free(pfn, 0);
    for (const pfn of [...balloon]) kernel.free(pfn, 0);
    kernel.allocator.drainPerCpu();
    expect(kernel.checkInvariants().allocated).toBe(0);
  });

  it('leaves pages alone whose owner refuses, and goes on with the others', () => {
    const { kernel, process } = comb();
    const stubborn = kernel.spawn('stubborn');
    for (let index = 0; index < 500; index++) stubborn.write(index);
    stubborn.migrate = () => false;
    const frames = Array.from({ length: 500 }, (_, index) => stubborn.frameOf(index));
    kernel.compact();
    expect(Array.from({ length: 500 }, (_, index) => stubborn.frameOf(index))).toEqual(frames);
    expect(kernel.vmstat().migrationsRefused).toBeGreaterThan(0);
    stubborn.verifyAll();
    process.verifyAll();
    kernel.checkInvariants();
  });
});
