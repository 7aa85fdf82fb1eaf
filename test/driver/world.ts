/** A guest, its driver and the device behind it, in one process, for the tests of this room. */

import { expect } from 'vitest';
import { type ProfileName, profile } from '../../src/balloon/profiles.ts';
import { BalloonDriver } from '../../src/driver/balloon-driver.ts';
import type { BalloonDriverOptions } from '../../src/driver/balloon-options.ts';
import { ManualScheduler } from '../../src/driver/scheduler.ts';
import { GFP_MEMALLOC, GFP_NORECLAIM, GFP_NOWARN, GFP_UNMOVABLE } from '../../src/guest/gfp.ts';
import { GuestKernel } from '../../src/guest/kernel.ts';
import type { GuestKernelOptions } from '../../src/guest/kernel-options.ts';
import { KIND_ALLOCATED, KIND_MASK } from '../../src/guest/page-state.ts';
import type { Process } from '../../src/guest/process.ts';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { NIL } from '../../src/memory/page-blocks.ts';
import { RING_EVENT_IDX, RING_INDIRECT_DESC, RING_PACKED } from '../../src/virtio/features.ts';
import { type LoopbackOptions, LoopbackTransport } from '../support/loopback-transport.ts';
import { promisesSettled } from '../support/promises.ts';

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

/** A process waits so often for memory that is on its way before it gives up. */
const WAITS_MAX = 100;

export class World {
  readonly memory: GuestMemory;
  readonly kernel: GuestKernel;
  readonly scheduler = new ManualScheduler();
  readonly transport: LoopbackTransport;
  readonly driver: BalloonDriver;
  /** Free pages before the first was allocated. */
  readonly bootPages: number;
  readonly #processes: Process[] = [];

  constructor({ profile: name = 'virtio', sizeMiB = 64, kernel, device, driver }: WorldOptions = {}) {
    const size = sizeMiB * 2 ** 20;
    const region = new MemoryRegion({ guestAddress: 0, size, userAddress: 0 }, new HeapBacking(size));
    this.memory = new GuestMemory([region]);
    this.kernel = new GuestKernel({ memory: this.memory, clock: this.scheduler, ...kernel });
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

  /** Starts the driver and lets everything come to rest. */
  async start(): Promise<void> {
    await this.driver.probe();
    await this.rest();
  }

  /** Lets promises settle, and nothing else happen. */
  promises(): Promise<void> {
    return promisesSettled();
  }

  /** Lets promises, a deferred device and calls that are due come to rest. */
  async rest(): Promise<void> {
    for (;;) {
      await this.promises();
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

  /** The host changes its target, and all that follows happens. */
  async aim(pages: number): Promise<void> {
    this.device.targetPages = pages;
    await this.rest();
  }

  /** Lets the driver hear of what changed and begin; a deferred device answers so many times, and then leaves it waiting. */
  async beginning(answers = 1): Promise<void> {
    for (let answer = 0; answer <= answers; answer++) {
      this.transport.deliver();
      await this.promises();
      if (answer < answers) this.transport.serve();
    }
  }

  /** Starts a process that writes so many pages; returns how many there was memory for. */
  async occupy(command: string, pages: number): Promise<number> {
    const process = this.kernel.spawn(command);
    this.#processes.push(process);
    let waits = 0;
    for (let index = 0; index < pages && process.state === 'running'; ) {
      if (process.write(index)) index++;
      else if (waits++ === WAITS_MAX) return index;
      else await this.rest();
    }
    return process.residentPages - Math.ceil(pages / 512);
  }

  /** Like {@link occupy}, and then lets go of every other page: what is free is in pieces. */
  async scatter(command: string, pages: number): Promise<void> {
    await this.occupy(command, pages);
    const process = this.#processes[this.#processes.length - 1];
    for (let index = 0; index < pages; index += 2) process.unmap(index);
  }

  /** Takes every other page of all that is free, for good: no two neighbours are left. */
  fragment(): void {
    const { kernel } = this;
    const taken: number[] = [];
    for (let pfn = 0; pfn !== NIL; ) {
      pfn = kernel.allocate(0, GFP_UNMOVABLE | GFP_NORECLAIM | GFP_MEMALLOC | GFP_NOWARN);
      if (pfn !== NIL) taken.push(pfn);
    }
    for (const pfn of taken) if (pfn % 2 === 0) kernel.free(pfn, 0);
  }

  /** Ends all processes. */
  exit(): void {
    for (const process of this.#processes.splice(0)) process.exit();
    this.kernel.dropCaches();
    this.kernel.allocator.drainPerCpu();
  }

  /** Pages that processes use. */
  *livePages(): Generator<number> {
    for (const process of this.#processes) {
      for (let index = 0; index < process.extent; index++) {
        const pfn = process.frameOf(index);
        if (pfn !== NIL) yield pfn;
      }
    }
  }

  /** Every page is accounted for once, on both sides, and everything that the guest wrote is there. */
  check(): void {
    const { driver, device, kernel } = this;
    this.checkSafety();
    let pages = 0;
    driver.forEachBlock((_, order) => {
      pages += 1 << order;
    });
    expect(pages).toBe(driver.actualPages);
    expect(device.accounts.balloonedPages).toBe(driver.actualPages);
    expect(device.actualPages).toBe(driver.actualPages);
    expect(driver.heldPages).toBe(driver.actualPages);
    const census = kernel.checkInvariants();
    expect(census.free + census.perCpu + census.allocated + census.isolated).toBe(
      kernel.allocator.managedPages,
    );
  }

  /** What holds at any moment: the guest's bytes are there, and the host has no page that is not the balloon's. */
  checkSafety(): void {
    const { kernel, device } = this;
    kernel.checkInvariants();
    kernel.verify();
    expect(kernel.events.poisonFaults).toBe(0);
    expect(this.transport.complaints).toEqual([]);
    // A deflation that the last device did not live to see names pages that this one never had.
    if (this.transport.replacements === 0) expect(device.counters.badPages).toBe(0);
    const { ballooned } = device.accounts.all[0];
    const { state } = kernel.pages;
    ballooned.forEachRun((start, count) => {
      for (let pfn = start; pfn < start + count; ) {
        if (
          (state[pfn] & KIND_MASK) !== KIND_ALLOCATED ||
          kernel.allocator.ownerOf(pfn)?.name !== 'balloon'
        ) {
          throw new Error(`page ${pfn} is in the host's account and not the balloon's`);
        }
        pfn += 1 << kernel.allocator.orderOf(pfn);
      }
    });
  }
}
