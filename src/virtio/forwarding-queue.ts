/**
 * A device queue in front of another, for those who see or note single steps of it by overriding them: tests, simulations,
 * and front-ends that keep what is in flight.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { DescriptorChain, PoppedBuffer } from './chain.ts';
import type { DeviceQueue, QueueState } from './queue.ts';

/** Does what the queue does that it was made of. */
export class ForwardingQueue implements DeviceQueue {
  readonly #queue: DeviceQueue;

  constructor(queue: DeviceQueue) {
    this.#queue = queue;
  }
  get size(): number {
    return this.#queue.size;
  }
  get nextAvail(): number {
    return this.#queue.nextAvail;
  }
  validate(memory: GuestMemory): void {
    this.#queue.validate(memory);
  }
  pop(memory: GuestMemory, chain: DescriptorChain): boolean {
    return this.#queue.pop(memory, chain);
  }
  undoPop(buffer: PoppedBuffer): void {
    this.#queue.undoPop(buffer);
  }
  pushUsed(memory: GuestMemory, buffer: PoppedBuffer, written: number): void {
    this.#queue.pushUsed(memory, buffer, written);
  }
  publish(memory: GuestMemory): boolean {
    return this.#queue.publish(memory);
  }
  suppressKicks(memory: GuestMemory): void {
    this.#queue.suppressKicks(memory);
  }
  requestKicks(memory: GuestMemory): boolean {
    return this.#queue.requestKicks(memory);
  }
  save(): QueueState {
    return this.#queue.save();
  }
}
