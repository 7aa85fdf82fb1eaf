/** A guest that lends its allocator's state: what driver and device do to it together, in one process. */
import { describe, expect, it } from 'vitest';
import { profile } from '../../src/balloon/profiles.ts';
import {
  FRAME_BYTES,
  FRAME_EVICTED,
  FRAME_FREE,
  FRAME_HELD,
  FRAME_PAGES,
} from '../../src/balloon/shared-frames.ts';
import { BalloonDriver } from '../../src/driver/balloon-driver.ts';
import { ManualScheduler } from '../../src/driver/scheduler.ts';
import { SharedKernel } from '../../src/guest/shared-kernel.ts';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { FIXED_PAGES, FREE_BLOCK, SPARE_PAGES } from '../../src/memory/kernel-memory.ts';
import { gpaOf } from '../../src/memory/page.ts';
import { NIL } from '../../src/memory/page-blocks.ts';
import { RING_PACKED } from '../../src/virtio/features.ts';
import { LoopbackTransport } from '../support/loopback-transport.ts';
import { promisesSettled } from '../support/promises.ts';

const FRAMES = 32;
/** Single pages that lie in the frame of the state: the driver's own among them. */
const FIRST = 1;

class Bed {
  readonly scheduler = new ManualScheduler();
  readonly memory: GuestMemory;
  readonly kernel: SharedKernel;
  readonly transport: LoopbackTransport;
  readonly driver: BalloonDriver;

  constructor(ringFeatures = 0n) {
    const size = FRAMES * FRAME_BYTES;
    this.memory = new GuestMemory([
      new MemoryRegion({ guestAddress: 0, size, userAddress: 0 }, new HeapBacking(size)),
    ]);
    this.kernel = new SharedKernel({ memory: this.memory });
    this.transport = new LoopbackTransport({
      profile: profile('shared'),
      memory: this.memory,
      mode: 'deferred',
    });
    this.driver = new BalloonDriver({
      kernel: this.kernel,
      transport: this.transport,
      scheduler: this.scheduler,
      profile: profile('shared'),
      ringFeatures,
    });
  }

  static async started(ringFeatures?: bigint): Promise<Bed> {
    const bed = new Bed(ringFeatures);
    await bed.driver.probe();
    await bed.rest();
    expect(bed.device.shared.lent).toBe(true);
    return bed;
  }

  get device() {
    return this.transport.device;
  }

  /** What the guest was told, in interrupts and changes of the configuration. */
  get woken(): readonly number[] {
    const { interrupts, configReads } = this.driver.counters;
    return [interrupts, configReads];
  }

  async rest(): Promise<void> {
    do await promisesSettled();
    while (this.transport.run() > 0);
  }

  words(): number[] {
    return Array.from({ length: FRAMES }, (_, frame) => this.kernel.frames.wordOf(frame));
  }

  /** Takes huge frames until there are none. */
  takeAll(): number[] {
    const got: number[] = [];
    for (let pfn = 0; pfn !== NIL; ) {
      pfn = this.kernel.allocateFor(FREE_BLOCK, 9);
      if (pfn !== NIL) got.push(pfn);
    }
    return got;
  }
}

const count = (words: readonly number[], word: number): number => words.filter(one => one === word).length;

describe.each([
  ['split', 0n],
  ['packed', RING_PACKED],
])('on %s rings', (_, ringFeatures) => {
  it('the host takes the memory of all free frames, and the guest hears nothing', async () => {
    const bed = await Bed.started(ringFeatures);
    const used = bed.kernel.allocateFor(SPARE_PAGES, 9);
    for (let page = FRAME_PAGES; page < FRAMES * FRAME_PAGES; page++) bed.memory.setU32(gpaOf(page), page);
    const before = bed.woken;
    bed.device.shared.evict();
    await bed.rest();
    expect(bed.woken).toEqual(before);
    expect(bed.device.counters.evictedFrames).toBe(FRAMES - 2);
    expect(count(bed.words(), FRAME_EVICTED)).toBe(FRAMES - 2);
    expect(bed.memory.u32(gpaOf(used))).toBe(used);
    // What is not free stays; what went reads as zeros, and may be used at once.
    const got = bed.takeAll();
    expect(got).toHaveLength(FRAMES - 2);
    for (const pfn of got) expect(bed.memory.u32(gpaOf(pfn))).toBe(0);
    // In runs: below and above the frame in use.
    expect(bed.device.reporting.totals.punches).toBeLessThanOrEqual(2);
    expect(bed.woken).toEqual(before);
    expect(bed.transport.complaints).toEqual([]);
  });

  it('a target is held in frames that are free, and the guest hears nothing of it, up or down', async () => {
    const bed = await Bed.started(ringFeatures);
    const before = bed.woken;
    bed.device.targetPages = 20 * FRAME_PAGES;
    await bed.rest();
    expect(bed.device.actualPages).toBe(20 * FRAME_PAGES);
    expect(bed.device.accounts.balloonedPages).toBe(20 * FRAME_PAGES);
    expect(count(bed.words(), FRAME_HELD)).toBe(20);
    expect(bed.takeAll()).toHaveLength(FRAMES - 20 - FIRST);
    bed.device.targetPages = 5 * FRAME_PAGES;
    await bed.rest();
    expect(bed.device.actualPages).toBe(5 * FRAME_PAGES);
    expect(bed.takeAll()).toHaveLength(15);
    expect(bed.woken).toEqual(before);
    expect(bed.driver.targetPages).toBe(0);
    bed.device.targetPages = 0;
    await bed.rest();
    expect(bed.device.accounts.balloonedPages).toBe(0);
    expect(count(bed.words(), FRAME_HELD)).toBe(0);
  });

  it('what is left of a target is the driver’s to give, page by page', async () => {
    const bed = await Bed.started(ringFeatures);
    // A page of every frame but ten is in use.
    const whole = bed.takeAll();
    for (const pfn of whole.splice(10)) {
      bed.kernel.split(pfn, 9);
      for (let page = pfn + 1; page < pfn + FRAME_PAGES; page++) bed.kernel.free(page, 0);
    }
    for (const pfn of whole) bed.kernel.free(pfn, 9);
    const target = 15 * FRAME_PAGES + 7;
    bed.device.targetPages = target;
    await bed.rest();
    await bed.driver.settled();
    expect(count(bed.words(), FRAME_HELD)).toBe(10);
    expect(bed.driver.actualPages).toBe(target - 10 * FRAME_PAGES);
    expect(bed.device.actualPages).toBe(target);
    expect(bed.device.accounts.balloonedPages).toBe(target);
    expect(bed.device.shownTargetPages).toBe(target);
    bed.device.targetPages = 0;
    await bed.rest();
    await bed.driver.settled();
    expect(bed.device.accounts.balloonedPages).toBe(0);
    expect(bed.driver.actualPages).toBe(0);
  });
});

describe('frames that are evicted', () => {
  it('need not be filled with zeros, which saves the guest the work', async () => {
    const bed = await Bed.started();
    bed.memory.fill(2 * FRAME_BYTES, 0xa5, FRAME_BYTES);
    bed.device.shared.evict();
    await bed.rest();
    let fills = 0;
    bed.kernel.access.writeLog = { add: () => void fills++ };
    const pfn = bed.kernel.allocateFor(FIXED_PAGES, 9);
    expect(pfn).not.toBe(NIL);
    expect(bed.memory.u32(gpaOf(pfn))).toBe(0);
    expect(fills).toBe(0);
    bed.kernel.free(pfn, 9);
    expect(bed.kernel.allocateFor(FIXED_PAGES, 9)).toBe(pfn);
    expect(fills).toBe(1);
  });

  it('are evicted again when they were used and freed, and only those', async () => {
    const bed = await Bed.started();
    bed.device.shared.evict();
    const first = bed.device.counters.evictedFrames;
    const got = [0, 1, 2].map(() => bed.kernel.allocateFor(SPARE_PAGES, 9));
    for (const pfn of got) bed.kernel.free(pfn, 9);
    bed.device.shared.evict();
    await bed.rest();
    expect(bed.device.counters.evictedFrames - first).toBe(3);
  });
});

describe('a driver that starts over', () => {
  it('finds all frames its own, and lends them anew', async () => {
    const bed = await Bed.started();
    const free = bed.kernel.frames.freePages;
    bed.device.targetPages = 10 * FRAME_PAGES;
    bed.device.shared.evict();
    await bed.rest();
    const removed = bed.driver.remove();
    await bed.rest();
    await removed;
    expect(bed.device.shared.lent).toBe(false);
    expect(bed.device.accounts.balloonedPages).toBe(0);
    expect(count(bed.words(), FRAME_FREE)).toBe(FRAMES - FIRST);
    await bed.driver.probe();
    await bed.rest();
    // The target is the host's, and is held again.
    expect(count(bed.words(), FRAME_HELD)).toBe(10);
    expect(bed.device.actualPages).toBe(10 * FRAME_PAGES);
    bed.device.targetPages = 0;
    await bed.rest();
    expect(bed.kernel.frames.freePages).toBe(free);
  });

  it('on a device that took the place of one that was lost, has no frame lost and none held twice', async () => {
    const bed = await Bed.started();
    const free = bed.kernel.frames.freePages;
    bed.device.targetPages = 12 * FRAME_PAGES;
    bed.device.shared.evict();
    await bed.rest();
    bed.transport.loseDevice();
    const bases = bed.driver.deviceLost();
    // Nothing that the old host may be at is touched yet.
    expect(count(bed.words(), FRAME_HELD)).toBe(12);
    bed.transport.replaceDevice(bases);
    bed.driver.deviceReplaced();
    await bed.rest();
    expect(bed.device.shared.lent).toBe(true);
    expect(count(bed.words(), FRAME_HELD)).toBe(12);
    expect(bed.device.accounts.balloonedPages).toBe(12 * FRAME_PAGES);
    bed.device.targetPages = 0;
    await bed.rest();
    expect(bed.kernel.frames.freePages).toBe(free);
    expect(bed.takeAll()).toHaveLength(FRAMES - FIRST);
  });

  it('pauses and goes on with the same state', async () => {
    const bed = await Bed.started();
    bed.device.targetPages = 6 * FRAME_PAGES;
    await bed.rest();
    const paused = bed.driver.pause();
    await bed.rest();
    await paused;
    bed.driver.resume();
    await bed.rest();
    bed.device.targetPages = 9 * FRAME_PAGES;
    await bed.rest();
    expect(count(bed.words(), FRAME_HELD)).toBe(9);
  });
});
