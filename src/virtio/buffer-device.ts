/**
 * A device that answers buffers, and no more: what a program writes that wants a device and not its rings' bookkeeping.
 * A subclass says what an answer is. What else a device can do (a configuration space that changes, buffers that are kept)
 * has its methods in `device.ts`.
 */
import { type GuestMemory, MemoryAccessError } from '../memory/guest-memory.ts';
import { DescriptorChain } from './chain.ts';
import type { Doorbell, VirtioDevice } from './device.ts';
import { RING_FEATURES, VERSION_1 } from './features.ts';
import { type DeviceQueue, VirtqueueError } from './queue.ts';

/** Buffers that one turn answers; a driver that makes more available shares the loop with its neighbours. */
const TURN_BUFFERS = 256;

interface Ring {
  readonly queue: DeviceQueue;
  readonly memory: GuestMemory;
  readonly doorbell: Doorbell;
  suspended: boolean;
}

/** What turns are taken in: a `Reactor`. */
export interface Turns {
  schedule(delayMs: number, run: () => void): unknown;
}

export abstract class BufferDevice implements VirtioDevice {
  readonly features: bigint = VERSION_1 | RING_FEATURES;
  readonly queueCount: number = 1;
  readonly #turns: Turns;
  readonly #rings = new Map<number, Ring>();
  readonly #chain = new DescriptorChain();

  constructor(turns: Turns) {
    this.#turns = turns;
  }

  /**
   * Answers a buffer of ring `index`; returns how many bytes it wrote. A buffer that is nonsense never gets here: it goes
   * back with length 0.
   */
  abstract answer(buffer: DescriptorChain, memory: GuestMemory, index: number): number;

  startQueue(index: number, queue: DeviceQueue, memory: GuestMemory, doorbell: Doorbell): void {
    this.#rings.set(index, { queue, memory, doorbell, suspended: false });
  }

  suspendQueue(index: number): void {
    const ring = this.#rings.get(index);
    if (ring !== undefined) ring.suspended = true;
  }

  resumeQueue(index: number): void {
    const ring = this.#rings.get(index);
    if (ring !== undefined) ring.suspended = false;
  }

  stopQueue(index: number): void {
    this.#rings.delete(index);
  }

  /** What a ring says is the driver's word: one whose indices are invalid is given up. */
  serveQueue(index: number): void {
    const ring = this.#rings.get(index);
    if (ring === undefined || ring.suspended) return;
    try {
      if (this.#serve(index, ring)) return;
      this.#turns.schedule(0, () => {
        // Unless the ring has stopped meanwhile, or another one runs in its place.
        if (this.#rings.get(index) === ring) this.serveQueue(index);
      });
    } catch (error) {
      if (!(error instanceof VirtqueueError || error instanceof MemoryAccessError)) throw error;
      ring.doorbell.fail(error);
    }
  }

  /** One turn; true when nothing is left. */
  #serve(index: number, { queue, memory, doorbell }: Ring): boolean {
    let left = TURN_BUFFERS;
    let isDone: boolean;
    do {
      while (left > 0 && queue.pop(memory, this.#chain)) {
        const { fault } = this.#chain;
        queue.pushUsed(
          memory,
          this.#chain,
          fault === undefined ? this.answer(this.#chain, memory, index) : 0,
        );
        left--;
      }
      if (queue.publish(memory)) doorbell.interrupt();
      isDone = !queue.requestKicks(memory);
    } while (!isDone && left > 0);
    return isDone;
  }

  setFeatures(_features: bigint): void {}

  /** No configuration space: all of it is 0. */
  readConfig(_offset: number, into: Uint8Array): void {
    into.fill(0);
  }

  writeConfig(_offset: number, _bytes: Uint8Array): void {}
  regionAdded(): void {}

  regionRemoved(_region: unknown, released: () => void): void {
    released();
  }

  reset(): void {}
}
