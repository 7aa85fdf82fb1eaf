import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../src/guest/clock.ts';
import {
  GFP_BALLOON,
  GFP_HINT,
  GFP_MOVABLE,
  GFP_NORECLAIM,
  GFP_NOWARN,
  GFP_UNMOVABLE,
  GFP_ZERO,
} from '../../src/guest/gfp.ts';
import type { GuestKernel } from '../../src/guest/kernel.ts';
import { LinkedPages } from '../../src/memory/linked-pages.ts';
import { gpaOf } from '../../src/memory/page.ts';
import { PageBitmap } from '../../src/memory/page-bitmap.ts';
import { NIL } from '../../src/memory/page-blocks.ts';
import { bootGuest, heapMemory } from './guest.ts';

const fillCache = (kernel: GuestKernel, pages: number) => {
  const file = kernel.cache.create(pages);
  for (let page = 0; page < pages; page++) if (!kernel.cache.read(file, page)) break;
  return file;
};

/** Takes all that is free, quietly. */
const takeAll = (kernel: GuestKernel) => {
  const taken: number[] = [];
  for (;;) {
    const pfn = kernel.allocate(0, GFP_UNMOVABLE | GFP_NORECLAIM | GFP_NOWARN);
    if (pfn === NIL) return taken;
    taken.push(pfn);
  }
};

describe('a booted guest', () => {
  it('counts its memory and reserves some for itself', () => {
    const kernel = bootGuest(64);
    const { totalBytes, freeBytes, availableBytes } = kernel.meminfo();
    expect(totalBytes).toBe(63 * 2 ** 20);
    expect(freeBytes).toBe(totalBytes);
    expect(availableBytes).toBeLessThan(freeBytes);
    expect(availableBytes).toBeGreaterThan(totalBytes * 0.9);
    kernel.checkInvariants();
  });

  it('spans regions with holes between them', () => {
    const kernel = bootGuest({ memory: heapMemory(16, 8, 32), dma32End: 100 * 256 });
    expect(kernel.allocator.spans.length).toBe(3);
    expect(kernel.allocator.zones.map(zone => zone.name)).toEqual(['DMA32', 'Normal']);
    const process = kernel.spawn('everywhere');
    for (let index = 0; index < 10_000; index++) expect(process.write(index)).toBe(true);
    process.verifyAll();
    kernel.checkInvariants();
  });

  it('adjusts its total for a balloon', () => {
    const kernel = bootGuest(16);
    const { totalBytes } = kernel.meminfo();
    kernel.adjustManaged(-256);
    expect(kernel.meminfo().totalBytes).toBe(totalBytes - 2 ** 20);
  });

  it('logs every page that it writes', () => {
    const written = new PageBitmap(64 * 256);
    const kernel = bootGuest(64, { writeLog: { add: (pfn, count) => void written.set(pfn, count) } });
    expect(written.count()).toBe(0);
    const process = kernel.spawn('writer');
    process.write(3);
    expect(written.test(process.frameOf(3))).toBe(true);
    expect(written.count()).toBe(2);
    kernel.allocate(2, GFP_MOVABLE | GFP_ZERO);
    expect(written.count()).toBe(6);
  });
});

describe('page contents', () => {
  it('survive being written, read again and freed in any order', () => {
    const kernel = bootGuest(32, { coverage: 'whole' });
    const process = kernel.spawn('p');
    for (let index = 0; index < 2000; index += 2) process.write(index);
    for (let index = 0; index < 2000; index += 6) process.write(index);
    expect(process.verifyAll()).toBe(1000 + 4);
    for (let index = 0; index < 2000; index += 4) process.unmap(index);
    expect(process.verifyAll()).toBe(500 + 4);
    process.exit();
    kernel.allocator.drainPerCpu();
    expect(kernel.checkInvariants().allocated).toBe(0);
  });

  it.each([
    ['whole', 2000],
    ['edges', 20],
    ['edges', 4095],
    ['whole', 0],
  ] as const)('with %s coverage, one wrong byte at %i is found', (coverage, offset) => {
    const kernel = bootGuest(16, { coverage });
    const process = kernel.spawn('p');
    process.write(9);
    process.verify(9);
    const address = gpaOf(process.frameOf(9)) + offset;
    const byte = new Uint8Array(1);
    kernel.memory.read(address, byte, 0, 1);
    kernel.memory.write(address, Uint8Array.of(byte[0] ^ 0x10));
    expect(() => process.verify(9)).toThrow(/frame \d+/);
    expect(() => kernel.verify()).toThrow(expect.objectContaining({ code: 'AEROSTAT_GUEST_CONTENT' }));
    kernel.memory.write(address, byte);
    expect(kernel.verify()).toBe(2);
  });

  it('that are stale, lost or another page’s are told apart', () => {
    const kernel = bootGuest(16);
    const process = kernel.spawn('p');
    process.write(1);
    process.write(2);
    const old = new Uint8Array(4096);
    kernel.memory.read(gpaOf(process.frameOf(1)), old, 0, 4096);
    process.write(1);
    kernel.memory.write(gpaOf(process.frameOf(1)), old);
    expect(() => process.verify(1)).toThrow('version 2; it holds page 1 of 1, version 1');
    kernel.access.copy(process.frameOf(2), process.frameOf(1));
    expect(() => process.verify(1)).toThrow('it holds page 2 of 1');
    kernel.access.fill(process.frameOf(2), 1, 0);
    expect(() => process.verify(2)).toThrow('all zeros');
  });
});

describe('the page cache', () => {
  it('reads pages in once, finds them again, and gives cold ones up first', () => {
    const kernel = bootGuest(32);
    const file = fillCache(kernel, 1000);
    expect(kernel.vmstat().majorFaults).toBe(1000);
    for (let page = 0; page < 100; page++) {
      kernel.cache.read(file, page);
      kernel.cache.read(file, page);
    }
    expect(kernel.vmstat().majorFaults).toBe(1000);
    expect(kernel.cache.active.length).toBe(100);
    kernel.reclaim.reclaim(700, 'direct');
    for (let page = 0; page < 100; page++) expect(file.frames[page]).not.toBe(NIL);
    expect(kernel.cache.pages).toBeLessThanOrEqual(300);
    expect(kernel.cache.verify()).toBe(kernel.cache.pages);
    kernel.checkInvariants();
  });

  it('makes way for processes, so that memory is never short while it is large', () => {
    const kernel = bootGuest(32);
    fillCache(kernel, 7000);
    const process = kernel.spawn('p');
    for (let index = 0; index < 6000; index++) expect(process.write(index)).toBe(true);
    expect(kernel.vmstat().directReclaims).toBeGreaterThan(0);
    expect(kernel.vmstat().oomKills).toBe(0);
    kernel.verify();
    kernel.checkInvariants();
  });

  it('is reclaimed in the background once an allocation met the low watermark', () => {
    const kernel = bootGuest(32);
    fillCache(kernel, 8100);
    expect(kernel.runBackground()).toBeGreaterThan(0);
    expect(kernel.vmstat().asyncReclaims).toBeGreaterThan(0);
    const [zone] = kernel.allocator.zones;
    expect(zone.freePages).toBeGreaterThanOrEqual(zone.watermarks.high);
    expect(kernel.runBackground()).toBe(0);
  });

  it('is squeezed by a balloon only one look at a time, and not at all by hints', () => {
    const kernel = bootGuest(32);
    fillCache(kernel, 8100);
    takeAll(kernel);
    const cached = kernel.cache.pages;
    expect(kernel.allocate(9, GFP_HINT)).toBe(NIL);
    expect(kernel.allocate(0, GFP_HINT)).toBe(NIL);
    expect(kernel.cache.pages).toBe(cached);
    expect(kernel.allocate(0, GFP_BALLOON)).not.toBe(NIL);
    expect(kernel.cache.pages).toBeLessThan(cached);
    expect(kernel.cache.pages).toBeGreaterThan(cached - 200);
  });

  it('writes dirty pages out in time, and before it frees them', () => {
    const clock = new ManualClock();
    const kernel = bootGuest(32, { clock });
    const file = fillCache(kernel, 500);
    for (let page = 0; page < 300; page++) kernel.cache.write(file, page);
    expect(kernel.meminfo().dirtyBytes).toBe(300 * 4096);
    kernel.runBackground();
    expect(kernel.cache.dirtyPages).toBe(300);
    clock.advance(5000);
    kernel.runBackground();
    expect(kernel.cache.dirtyPages).toBe(0);
    kernel.cache.write(file, 7);
    expect(kernel.dropCaches()).toBe(500);
    expect(kernel.cache.pages).toBe(0);
    expect(kernel.vmstat().writebacks).toBe(301);
    kernel.cache.read(file, 7);
    kernel.cache.verify();
  });

  it('forgets a deleted file with its dirty pages', () => {
    const kernel = bootGuest(16);
    const file = fillCache(kernel, 100);
    kernel.cache.write(file, 1);
    kernel.cache.delete(file);
    expect(kernel.cache.pages).toBe(0);
    expect(kernel.cache.dirtyPages).toBe(0);
    kernel.allocator.drainPerCpu();
    expect(kernel.checkInvariants().allocated).toBe(0);
  });
});

describe('shrinkers', () => {
  it('give pages when memory is short, and all they have when asked', () => {
    const kernel = bootGuest(32);
    for (let i = 0; i < 3000; i++) kernel.slab.grow();
    const process = kernel.spawn('p');
    for (let index = 0; index < 6500; index++) expect(process.write(index)).toBe(true);
    expect(kernel.slab.pages).toBeLessThan(2000);
    kernel.slab.verify();
    expect(kernel.shrinkAll()).toBeGreaterThan(0);
    expect(kernel.slab.pages).toBe(0);
    kernel.checkInvariants();
  });

  it('can be registered and taken out again', () => {
    const kernel = bootGuest(16);
    const scans: number[] = [];
    const remove = kernel.addShrinker({
      name: 'mine',
      count: () => 100,
      scan: count => scans.push(count) * 0,
    });
    kernel.reclaim.reclaim(10, 'direct');
    expect(scans.length).toBeGreaterThan(0);
    remove();
    const before = scans.length;
    kernel.reclaim.reclaim(10, 'direct');
    expect(scans.length).toBe(before);
  });
});

describe('out of memory', () => {
  it('asks the notifiers before it kills a process', () => {
    const kernel = bootGuest(16);
    const balloon = new LinkedPages(kernel.pages);
    for (let i = 0; i < 1000; i++) balloon.pushTail(kernel.allocate(0, GFP_BALLOON));
    let asked = 0;
    const remove = kernel.addOomNotifier({
      name: 'balloon',
      release() {
        asked++;
        let released = 0;
        for (; released < 256 && balloon.length > 0; released++) kernel.free(balloon.popTail(), 0);
        return released;
      },
    });
    const process = kernel.spawn('greedy');
    let index = 0;
    while (balloon.length > 0) expect(process.write(index++)).toBe(true);
    expect(asked).toBe(4);
    expect(kernel.vmstat().oomKills).toBe(0);
    remove();
    while (process.write(index)) index++;
    expect(process.state).toBe('killed');
    expect(kernel.vmstat().oomKills).toBe(1);
    kernel.checkInvariants();
  });

  it('stalls instead of killing while pages are promised', () => {
    const kernel = bootGuest(16);
    const taken = takeAll(kernel);
    kernel.addOomNotifier({ name: 'slow balloon', release: () => 256 });
    const process = kernel.spawn('patient');
    while (process.write(process.residentPages));
    expect(process.state).toBe('running');
    for (const pfn of taken.slice(0, 500)) kernel.free(pfn, 0);
    expect(process.write(process.residentPages)).toBe(true);
    expect(kernel.vmstat().allocStalls).toBeGreaterThan(0);
  });

  it('kills the largest process that may be killed, and the others go on', () => {
    const kernel = bootGuest(32);
    const [small, large, init] = ['small', 'large', 'init'].map(name =>
      kernel.spawn(name, { killable: name !== 'init' }),
    );
    for (let i = 0; i < 3000; i++) init.write(i);
    for (let i = 0; i < 2700; i++) large.write(i);
    for (let i = 0; i < 4000; i++) expect(small.write(i)).toBe(true);
    expect(large.state).toBe('killed');
    expect(large.residentPages).toBe(0);
    expect(init.state).toBe('running');
    expect(kernel.verify()).toBeGreaterThan(7000 - 20);
    kernel.checkInvariants();
  });

  it('lets a process that kills itself for memory end cleanly', () => {
    const kernel = bootGuest(16);
    const process = kernel.spawn('only');
    for (let index = 0; process.write(index); index++);
    expect(process.state).toBe('killed');
    kernel.allocator.drainPerCpu();
    expect(kernel.checkInvariants().allocated).toBe(0);
  });

  it('warns about a failure unless the caller expects it', () => {
    const warnings: string[] = [];
    const kernel = bootGuest(16, { warn: message => warnings.push(message) });
    takeAll(kernel);
    expect(warnings).toEqual([]);
    expect(kernel.allocate(0, GFP_MOVABLE)).toBe(NIL);
    expect(warnings).toEqual(['page allocation failure: order 0']);
    expect(kernel.vmstat().allocFailures).toBe(1);
  });
});

describe('poison', () => {
  it.each([0xaa, 0])('0x%s fills freed pages and is missed when one was written to', poison => {
    const warnings: string[] = [];
    const kernel = bootGuest(16, { poison, warn: message => warnings.push(message) });
    const process = kernel.spawn('p');
    for (let index = 0; index < 100; index++) process.write(index);
    const frame = process.frameOf(50);
    process.exit();
    expect(kernel.access.isFilledWith(frame, poison)).toBe(true);
    const again = Array.from({ length: 100 }, () => kernel.allocate(0, GFP_MOVABLE));
    expect(kernel.vmstat().poisonFaults).toBe(0);
    for (const pfn of again) kernel.free(pfn, 0);
    kernel.memory.write(gpaOf(again[5]) + 123, Uint8Array.of(1));
    for (let i = 0; i < 100; i++) kernel.allocate(0, GFP_MOVABLE);
    expect(kernel.vmstat().poisonFaults).toBe(1);
    expect(warnings).toEqual([expect.stringContaining(`${again[5]}`)]);
  });
});
