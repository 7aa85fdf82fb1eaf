/** A device for tests: it returns every buffer as it comes, or keeps it, and writes down what was asked of it. */
import { type GuestMemory, MemoryAccessError, type MemoryRegion } from '../../src/memory/guest-memory.ts';
import { DescriptorChain } from '../../src/virtio/chain.ts';
import type { Doorbell, StopReason, VirtioDevice } from '../../src/virtio/device.ts';
import { RING_FEATURES, VERSION_1 } from '../../src/virtio/features.ts';
import { type DeviceQueue, VirtqueueError } from '../../src/virtio/queue.ts';

export const CONFIG_BYTES = 16;

interface Running {
  readonly queue: DeviceQueue;
  readonly memory: GuestMemory;
  readonly doorbell: Doorbell;
}

export class RingDevice implements VirtioDevice {
  readonly features: bigint;
  readonly queueCount: number;
  readonly config = new Uint8Array(CONFIG_BYTES);
  /** What was called, in order: `start 0`, `stop 0 paused`, `reset`, `features 0x…`, `region+ 0x…`. */
  readonly calls: string[] = [];
  readonly running = new Map<number, Running>();
  /** Buffers returned, by ring. */
  readonly served: number[];
  /** Bytes that the driver gave, all rings together, as the last served buffer had them. */
  lastRead = new Uint8Array(0);
  driverFeatures = 0n;
  /** Rings whose buffers it keeps, as a balloon does with statistics that it may ask for anew. */
  readonly keeps = new Set<number>();
  /** Called before ring `index` starts. */
  onStart: (index: number) => void = () => {};
  readonly #chain = new DescriptorChain();

  constructor({ features = RING_FEATURES | VERSION_1, queueCount = 3 } = {}) {
    this.features = features;
    this.queueCount = queueCount;
    this.served = Array.from({ length: queueCount }, () => 0);
  }

  /** Takes what was written down since the last call. */
  takeCalls(): string[] {
    return this.calls.splice(0);
  }

  setFeatures(features: bigint): void {
    this.calls.push(`features 0x${features.toString(16)}`);
    this.driverFeatures = features;
  }

  readConfig(offset: number, into: Uint8Array): void {
    into.fill(0);
    into.set(this.config.subarray(offset, offset + into.length));
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    this.config.set(bytes.subarray(0, Math.max(0, CONFIG_BYTES - offset)), Math.min(offset, CONFIG_BYTES));
  }

  regionAdded(region: MemoryRegion): void {
    this.calls.push(`region+ 0x${region.guestAddress.toString(16)}`);
  }

  regionRemoved(region: MemoryRegion, released: () => void): void {
    this.calls.push(`region- 0x${region.guestAddress.toString(16)}`);
    released();
  }

  startQueue(index: number, queue: DeviceQueue, memory: GuestMemory, doorbell: Doorbell): void {
    this.onStart(index);
    this.calls.push(`start ${index}`);
    this.running.set(index, { queue, memory, doorbell });
  }

  suspendQueue(index: number): void {
    this.calls.push(`suspend ${index}`);
  }

  resumeQueue(index: number): void {
    this.calls.push(`resume ${index}`);
  }

  stopQueue(index: number, reason: StopReason): void {
    this.calls.push(`stop ${index} ${reason}`);
    this.running.delete(index);
  }

  serveQueue(index: number): void {
    const running = this.running.get(index);
    if (running === undefined) return;
    const { queue, memory, doorbell } = running;
    try {
      do {
        while (queue.pop(memory, this.#chain)) {
          const { readableBytes } = this.#chain;
          this.lastRead = new Uint8Array(readableBytes);
          this.#chain.read(memory, 0, this.lastRead, 0, readableBytes);
          if (!this.keeps.has(index)) queue.pushUsed(memory, this.#chain, 0);
          this.served[index]++;
        }
        if (queue.publish(memory)) doorbell.interrupt();
      } while (queue.requestKicks(memory));
    } catch (error) {
      if (!(error instanceof VirtqueueError || error instanceof MemoryAccessError)) throw error;
      doorbell.fail(error);
    }
  }

  reset(): void {
    this.calls.push('reset');
    this.driverFeatures = 0n;
  }
}
