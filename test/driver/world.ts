/** A guest, its driver and the device behind it, in one process, for the tests of this room. */
import { expect } from 'vitest';
import { type ProfileName, profile } from '../../src/balloon/profiles.ts';
import { BalloonDriver, type BalloonDriverOptions } from '../../src/driver/balloon-driver.ts';
import { ManualScheduler } from '../../src/driver/scheduler.ts';
import { GuestKernel, type GuestKernelOptions } from '../../src/guest/kernel.ts';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { RING_EVENT_IDX, RING_INDIRECT_DESC, RING_PACKED } from '../../src/virtio/features.ts';
import { type LoopbackOptions, LoopbackTransport } from '../support/loopback-transport.ts';

export const MIB_PAGES = 256;

export const SPLIT = RING_EVENT_IDX | RING_INDIRECT_DESC;
export const PACKED = SPLIT | RING_PACKED;

/** The seed of random tests: printed in their names, taken from the environment to repeat one. */
export const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_701);

export interface WorldOptions {
  readonly profile?: ProfileName;
  readonly sizeMiB?: number;
  readonly kernel?: Partial<GuestKernelOptions>;
  readonly device?: Partial<Omit<LoopbackOptions, 'profile' | 'memory'>>;
  readonly driver?: Partial<Omit<BalloonDriverOptions, 'kernel' | 'transport' | 'scheduler' | 'profile'>>;
}

export class World {
  readonly memory: GuestMemory;
  readonly kernel: GuestKernel;
  readonly scheduler = new ManualScheduler();
  readonly transport: LoopbackTransport;
  readonly driver: BalloonDriver;
  readonly bootPages: number;

  constructor({ profile: name = 'virtio', sizeMiB = 64, kernel, device, driver }: WorldOptions = {}) {
    const size = sizeMiB * 2 ** 20;
    const region = new MemoryRegion({ guestAddress: 0, size, userAddress: 0 }, new HeapBacking(size));
    this.memory = new GuestMemory([region]);
    this.kernel = new GuestKernel({ memory: this.memory, clock: this.scheduler.clock, ...kernel });
    this.bootPages = this.freePages;
    this.transport = new LoopbackTransport({ profile: profile(name), memory: this.memory, ...device });
    this.driver = new BalloonDriver({
      kernel: this.kernel,
      transport: this.transport,
      scheduler: this.scheduler,
      profile: profile(name),
      ...driver,
    });
  }

  get device() {
    return this.transport.device;
  }

  /** Free pages, wherever the allocator keeps them. */
  get freePages(): number {
    return this.kernel.allocator.freePages + this.kernel.allocator.perCpuPages;
  }

  /** Lets promises, a deferred device and timers that are due come to rest. */
  async rest(): Promise<void> {
    for (;;) {
      for (let i = 0; i < 20; i++) await Promise.resolve();
      const served = this.transport.run() > 0;
      const due = this.scheduler.nextDueMs;
      if (due !== undefined && due <= this.scheduler.now()) this.scheduler.runDue();
      else if (!served) return;
    }
  }

  async pass(ms: number): Promise<void> {
    await this.rest();
    this.scheduler.advance(ms);
    await this.rest();
  }

  async aim(pages: number): Promise<void> {
    this.device.targetPages = pages;
    await this.rest();
  }

  /** Every page is accounted for once, on both sides, and everything that the guest wrote is there. */
  check(): void {
    const { driver, device, kernel } = this;
    kernel.checkInvariants();
    kernel.verify();
    expect(this.transport.complaints).toEqual([]);
    expect(device.counters.badPages).toBe(0);
    let pages = 0;
    driver.forEachBlock((pfn, order) => {
      pages += 1 << order;
      const { ballooned } = device.accounts.all[0];
      expect(ballooned.countIn(pfn, 1 << order)).toBe(1 << order);
    });
    expect(pages).toBe(driver.actualPages);
    expect(device.accounts.balloonedPages).toBe(driver.actualPages);
    expect(device.actualPages).toBe(driver.actualPages);
    expect(driver.heldPages).toBe(driver.actualPages);
  }
}
