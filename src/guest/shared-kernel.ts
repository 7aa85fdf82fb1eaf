/**
 * The guest kernel on the allocator that a host may share (two-level-allocator.ts), and the part by which a driver lends that
 * allocator's state. It has page cache, slab, processes, reclaim and workloads as every guest kernel (kernel-core.ts). Its
 * pages are not moved, it reports no free blocks (the host sees them), and it is not saved.
 */
import type { FrameTable } from '../balloon/shared-frames.ts';
import type { SharedFrames } from '../memory/kernel-memory.ts';
import { KernelCore } from './kernel-core.ts';
import type { SharedKernelOptions } from './kernel-options.ts';
import type { TwoLevelFrames } from './two-level.ts';
import { TwoLevelAllocator } from './two-level-allocator.ts';
import { checkTwoLevel, type SharedCensus } from './two-level-invariants.ts';

export class SharedKernel extends KernelCore<TwoLevelAllocator> implements SharedFrames {
  readonly shared: SharedFrames = this;
  readonly frames: TwoLevelFrames;

  constructor(options: SharedKernelOptions) {
    super(options, new TwoLevelAllocator(options.memory, options.pages));
    this.frames = this.allocator.frames;
  }

  checkInvariants(): SharedCensus {
    return checkTwoLevel(this.allocator);
  }

  // What the driver lends to the host.

  get table(): FrameTable {
    return this.frames.table;
  }

  get busyPages(): number {
    return this.frames.busyPages;
  }

  hostGone(): void {
    this.frames.hostGone();
  }
}
