/**
 * The driver in two kernels, of which one has a byte a page and knows nothing of the other's buddies, zones and page
 * cache. What a driver does must hold in both, by nothing but the interface between them (memory/kernel-memory.ts).
 */
import { describe, expect, it } from 'vitest';
import { PROFILE_NAMES, type ProfileName, profile, queueRoles } from '../../src/balloon/profiles.ts';
import { DROP_CACHE, GET_UNUSED_PAGES, SHRINK } from '../../src/balloon/request-messages.ts';
import { BalloonDriver } from '../../src/driver/balloon-driver.ts';
import { ManualScheduler } from '../../src/driver/scheduler.ts';
import { GuestKernel } from '../../src/guest/kernel.ts';
import { Random } from '../../src/guest/random.ts';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { FIXED_PAGES, type KernelMemory } from '../../src/memory/kernel-memory.ts';
import { gpaOf, PFN_LIMIT } from '../../src/memory/page.ts';
import { NIL } from '../../src/memory/page-blocks.ts';
import { PageSet } from '../../src/memory/page-set.ts';
import { BitmapKernel } from '../support/bitmap-kernel.ts';
import { type LoopbackMode, LoopbackTransport } from '../support/loopback-transport.ts';
import { promisesSettled } from '../support/promises.ts';
import { MIB_PAGES, PACKED, SEED, SPLIT } from './world.ts';

const SIZE_MIB = 32;
const PAGES = SIZE_MIB * MIB_PAGES;

/** A kernel, and what is not a driver's business in it. */
interface Kernel {
  readonly memory: KernelMemory;
  free(): number;
  outOfMemory(): number;
  compact(): void;
}

const EMBEDDED = 'the embedded kernel';
const KERNELS: Readonly<Record<string, (memory: GuestMemory, scheduler: ManualScheduler) => Kernel>> = {
  [EMBEDDED]: (memory, scheduler) => {
    const kernel = new GuestKernel({ memory, clock: scheduler });
    return {
      memory: kernel,
      free: () => kernel.allocator.freePages + kernel.allocator.perCpuPages,
      outOfMemory: () => kernel.oom.run().released,
      compact: () => kernel.compact(),
    };
  },
  'a kernel with a byte for each page': memory => {
    const kernel = new BitmapKernel(memory);
    return {
      memory: kernel,
      free: () => kernel.freePages,
      outOfMemory: () => kernel.outOfMemory(),
      compact: () => kernel.compact(),
    };
  },
};

interface BedOptions {
  readonly kernel: string;
  readonly name?: ProfileName;
  readonly mode?: LoopbackMode;
  readonly ringFeatures?: bigint;
  readonly features?: bigint;
  /** Parts of the kernel's interface that it shall not have. */
  readonly lacks?: readonly ('reports' | 'unused')[];
}

/** The kernel and its driver, the device, and pages that are in use. */
class Bed {
  readonly scheduler = new ManualScheduler();
  readonly kernel: Kernel;
  readonly transport: LoopbackTransport;
  readonly driver: BalloonDriver;
  readonly bootPages: number;
  readonly #used: number[] = [];
  #owner = 0;

  constructor({ kernel, name = 'virtio', mode = 'deferred', ringFeatures, features, lacks }: BedOptions) {
    const size = SIZE_MIB * 2 ** 20;
    const region = new MemoryRegion({ guestAddress: 0, size, userAddress: 0 }, new HeapBacking(size));
    const memory = new GuestMemory([region]);
    this.kernel = KERNELS[kernel](memory, this.scheduler);
    for (const part of lacks ?? []) Object.assign(this.kernel.memory, { [part]: undefined });
    this.bootPages = this.kernel.free();
    this.transport = new LoopbackTransport({
      profile: profile(name),
      memory,
      mode,
      ...(features === undefined ? {} : { features }),
    });
    this.driver = new BalloonDriver({
      kernel: this.kernel.memory,
      transport: this.transport,
      scheduler: this.scheduler,
      profile: profile(name),
      ...(ringFeatures === undefined ? {} : { ringFeatures }),
    });
    this.#owner = this.kernel.memory.addOwner({ name: 'user', contents: 'kept' });
  }

  get device() {
    return this.transport.device;
  }

  static async started(options: BedOptions): Promise<Bed> {
    const bed = new Bed(options);
    await bed.driver.probe();
    await bed.rest();
    return bed;
  }

  async rest(): Promise<void> {
    for (;;) {
      await promisesSettled();
      const served = this.transport.run() > 0;
      const due = this.scheduler.nextDueMs;
      if (due !== undefined && due <= this.scheduler.now()) this.scheduler.runDue();
      else if (!served) return;
    }
  }

  async aim(pages: number): Promise<void> {
    this.device.targetPages = pages;
    await this.rest();
  }

  /** Uses up to `pages` pages, and waits for those that the balloon is asked for; returns how many there were. */
  async use(pages: number): Promise<number> {
    const { memory } = this.kernel;
    let got = 0;
    for (let failed = 0; got < pages && failed < 2; ) {
      const pfn = memory.allocateFor(FIXED_PAGES, 0);
      if (pfn === NIL) {
        failed++;
        await this.rest();
        continue;
      }
      failed = 0;
      memory.own(pfn, this.#owner);
      memory.memory.setU32(gpaOf(pfn), ~pfn >>> 0);
      this.#used.push(pfn);
      got++;
    }
    return got;
  }

  /** Frees what was used last. */
  unuse(pages: number): void {
    for (const pfn of this.#used.splice(-pages)) this.kernel.memory.free(pfn, 0);
  }

  /** The host has the balloon's pages and no others, and what is in use is what it was. */
  check(): void {
    const { driver, device } = this;
    const { memory } = this.kernel;
    const balloon = new PageSet(PFN_LIMIT);
    driver.forEachBlock((pfn, order) => balloon.add(pfn, 1 << order));
    const account = new PageSet(PFN_LIMIT);
    device.accounts.all[0].ballooned.forEachRun((start, count) => account.add(start, count));
    expect(runsOf(account)).toEqual(runsOf(balloon));
    expect(account.pages).toBe(driver.actualPages);
    expect(device.counters.badPages).toBe(0);
    expect(this.transport.complaints).toEqual([]);
    for (const pfn of this.#used) {
      if (memory.memory.u32(gpaOf(pfn)) !== ~pfn >>> 0) throw new Error(`page ${pfn} lost its contents`);
    }
  }

  /** Removes the driver: every page is where it was. */
  async finish(): Promise<void> {
    const removed = this.driver.remove();
    await this.rest();
    await removed;
    this.check();
    expect(this.device.accounts.balloonedPages).toBe(0);
    this.unuse(PAGES);
    expect(this.kernel.free()).toBe(this.bootPages);
    this.kernel.memory.removeOwner(this.#owner);
  }
}

const runsOf = (set: PageSet): [number, number][] => {
  const runs: [number, number][] = [];
  set.forEachRun((start, count) => runs.push([start, count]));
  return runs;
};

describe.each(Object.keys(KERNELS))('in %s', kernel => {
  // profiles.test.ts has all of them in the embedded kernel.
  const names = kernel === EMBEDDED ? (['virtio', 'page-range'] as const) : PROFILE_NAMES;
  describe.each(names)('profile %s', name => {
    it.each([
      ['split ring, device that answers later', SPLIT, 'deferred'],
      ['packed ring, device in the same thread', PACKED, 'immediate'],
    ] as const)(
      'reaches targets, gives back, and leaves nothing behind (%s)',
      async (_, ringFeatures, mode) => {
        const bed = await Bed.started({ kernel, name, mode, ringFeatures });
        for (const target of [16 * MIB_PAGES + 3, 777, 1000, 0, 20 * MIB_PAGES]) {
          await bed.aim(target);
          await bed.driver.settled();
          expect(bed.driver.actualPages).toBe(target);
          bed.check();
        }
        expect(await bed.use(2 * MIB_PAGES)).toBe(2 * MIB_PAGES);
        await bed.finish();
      },
    );

    it('gives pages back to a guest out of memory', async () => {
      const bed = await Bed.started({ kernel, name });
      await bed.aim(24 * MIB_PAGES);
      const before = bed.driver.actualPages;
      expect(before).toBe(24 * MIB_PAGES);
      expect(await bed.use(16 * MIB_PAGES)).toBe(16 * MIB_PAGES);
      expect(bed.driver.counters.oomReleases).toBeGreaterThan(0);
      expect(bed.driver.actualPages).toBeLessThan(before);
      bed.check();
      await bed.finish();
    });

    it('tells the host what is free, each in its way', async () => {
      const bed = await Bed.started({ kernel, name });
      const { device } = bed;
      await bed.use(4 * MIB_PAGES);
      const { freePages } = bed.driver.profile;
      const { kind } = freePages;
      if (kind === 'session') device.hints.begin();
      else if (kind === 'request') device.requests.send(GET_UNUSED_PAGES);
      await bed.rest();
      bed.scheduler.advance(2_000);
      await bed.rest();
      const told = kind === 'hinting' ? device.counters.reportedPages : bed.transport.unusedPages.pages;
      expect(told).toBeGreaterThanOrEqual(20 * MIB_PAGES);
      expect(told).toBeLessThanOrEqual(bed.bootPages - 4 * MIB_PAGES);
      if (kind === 'request') {
        for (const command of [DROP_CACHE, SHRINK]) device.requests.send(command);
      } else if (kind === 'session') {
        // Hinted blocks are kept until the host is done, where it says so, but not from a guest that wants them.
        if (freePages.hasDone) expect(bed.kernel.free()).toBeLessThan(8 * MIB_PAGES);
        expect(await bed.use(16 * MIB_PAGES)).toBe(16 * MIB_PAGES);
        device.hints.done();
      }
      await bed.rest();
      await bed.finish();
    });
  });

  it('reports free blocks once, and again what was used since', async () => {
    const bed = await Bed.started({ kernel });
    const pass = async () => {
      bed.scheduler.advance(2_000);
      await bed.rest();
      return bed.device.counters.reportedPages;
    };
    const first = await pass();
    expect(first).toBeGreaterThan(24 * MIB_PAGES);
    expect(await pass()).toBe(first);
    await bed.use(8 * MIB_PAGES);
    bed.unuse(8 * MIB_PAGES);
    const again = (await pass()) - first;
    expect(again).toBeGreaterThan(4 * MIB_PAGES);
    expect(again).toBeLessThan(16 * MIB_PAGES);
    await bed.finish();
  });

  it('tells the host of pages that compaction moved', async () => {
    const bed = await Bed.started({ kernel });
    await bed.use(8 * MIB_PAGES);
    await bed.aim(8 * MIB_PAGES);
    // Holes below the balloon, so that there is something to move from or to.
    bed.unuse(6 * MIB_PAGES);
    await bed.use(MIB_PAGES);
    bed.kernel.compact();
    await bed.rest();
    expect(bed.driver.counters.movedPages).toBeGreaterThan(0);
    expect(bed.driver.actualPages).toBe(8 * MIB_PAGES);
    bed.check();
    await bed.finish();
  });

  it.each([
    ['virtio', 'reporting', 'reports'],
    ['hinting', 'hinting', 'reports'],
    ['page-range', 'request', 'unused'],
  ] as const)('takes no feature that needs what the kernel cannot do (%s, %s)', async (name, role, part) => {
    const rolesOf = ({ driver }: Bed) => queueRoles(driver.profile, driver.features);
    expect(rolesOf(await Bed.started({ kernel, name }))).toContain(role);
    const bed = await Bed.started({ kernel, name, lacks: [part] });
    expect(rolesOf(bed)).not.toContain(role);
    await bed.aim(1000);
    expect(bed.driver.actualPages).toBe(1000);
    await bed.finish();
  });

  it(`keeps its promises in any order of things, seed ${SEED}`, async () => {
    const random = new Random(SEED);
    const bed = await Bed.started({ kernel });
    const deeds = [
      () => {
        bed.device.targetPages = random.below(28 * MIB_PAGES);
      },
      () => bed.transport.serve(),
      () => bed.transport.deliver(),
      () => promisesSettled(),
      () => bed.use(random.below(512)),
      () => bed.unuse(random.below(512)),
      () => bed.kernel.outOfMemory(),
      () => bed.kernel.compact(),
      () => bed.scheduler.advance(random.below(1_000)),
      () => bed.device.hints.begin(),
      () => bed.device.hints.done(),
    ];
    for (let step = 0; step < 300; step++) await deeds[random.below(deeds.length)]();
    bed.unuse(PAGES);
    await bed.rest();
    await bed.aim(10 * MIB_PAGES);
    bed.scheduler.advance(1_000);
    await bed.rest();
    await bed.driver.settled();
    expect(bed.driver.actualPages).toBe(10 * MIB_PAGES);
    bed.check();
    await bed.finish();
  });
});
