/**
 * A device that is the test itself: it sees every buffer as a device would, and does nothing by itself. For what a
 * driver has to do and to leave undone at each moment.
 */

import { CONFIG } from '../../src/balloon/config-space.ts';
import type { QueueRole } from '../../src/balloon/features.ts';
import { type Profile, queueRoles } from '../../src/balloon/profiles.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { DescriptorChain, type PoppedBuffer } from '../../src/virtio/chain.ts';
import { createDeviceQueue } from '../../src/virtio/create.ts';
import { VERSION_1 } from '../../src/virtio/features.ts';
import type { DeviceQueue, QueueConfig } from '../../src/virtio/queue.ts';
import { DEVICE_STATUS, type InterruptedQueue, type VirtioTransport } from '../../src/virtio/transport.ts';

export interface SeenBuffer {
  readonly role: QueueRole;
  /** What the device may read. */
  readonly bytes: Uint8Array;
  /** What it may write: address and length. */
  readonly writable: readonly (readonly [address: number, length: number])[];
  readonly held: PoppedBuffer;
}

/** The 32-bit words of a buffer. */
export const wordsOf = ({ bytes }: SeenBuffer): number[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 4 }, (_, word) => view.getUint32(word * 4, true));
};

export class ScriptedDevice implements VirtioTransport {
  readonly description = 'a device that is a test';
  readonly ended: Promise<Error>;
  offered: bigint;
  /** What the driver took. */
  features = 0n;
  status = 0;
  queueSize = 64;
  /** Everything that happened, in order: `status`, `config`, `kick`. */
  readonly events: string[] = [];
  readonly config = new DataView(new ArrayBuffer(CONFIG.size));
  readonly #profile: Profile;
  readonly #memory: GuestMemory;
  readonly #queues = new Map<number, DeviceQueue>();
  readonly #interruptListeners = new Set<(queue: InterruptedQueue) => void>();
  readonly #configListeners = new Set<() => void>();
  readonly #chain = new DescriptorChain();
  end: (reason: Error) => void = () => {};

  constructor(profile: Profile, memory: GuestMemory, offered = profile.featureMask) {
    this.#profile = profile;
    this.#memory = memory;
    this.offered = offered | VERSION_1;
    this.ended = new Promise(resolve => {
      this.end = resolve;
    });
  }

  /** The number of a queue; -1 when the features have none. */
  indexOf(role: QueueRole): number {
    return queueRoles(this.#profile, this.features).indexOf(role);
  }

  /** Takes all that is available on a queue. */
  take(role: QueueRole): SeenBuffer[] {
    const queue = this.#queue(role);
    const seen: SeenBuffer[] = [];
    while (queue.pop(this.#memory, this.#chain)) {
      const chain = this.#chain;
      if (chain.fault !== undefined) throw new Error(`a buffer that is nonsense: ${chain.fault}`);
      const bytes = new Uint8Array(chain.readableBytes);
      chain.read(this.#memory, 0, bytes, 0, bytes.length);
      const writable: (readonly [number, number])[] = [];
      for (let index = chain.readableCount; index < chain.count; index++) {
        writable.push([chain.address(index), chain.length(index)]);
      }
      seen.push({ role, bytes, writable, held: chain.hold() });
    }
    return seen;
  }

  /** Returns buffers, and tells the driver. */
  giveBack(...buffers: readonly SeenBuffer[]): void {
    for (const { role, held } of buffers) this.#queue(role).pushUsed(this.#memory, held, 0);
    this.#publish(buffers);
  }

  /** Writes into the buffer's only in-buf and returns it. */
  answer(buffer: SeenBuffer, bytes: Uint8Array, written = bytes.length): void {
    this.#memory.write(buffer.writable[0][0], bytes);
    this.#queue(buffer.role).pushUsed(this.#memory, buffer.held, written);
    this.#publish([buffer]);
  }

  /** Returns the buffer's chain a second time, which no device may do. */
  cheat({ role, held }: SeenBuffer): void {
    const queue = this.#queue(role);
    queue.pushUsed(this.#memory, { ...held, id: held.id + 1 }, 0);
    queue.publish(this.#memory);
    this.interrupt(this.indexOf(role));
  }

  interrupt(queue: InterruptedQueue): void {
    for (const listener of this.#interruptListeners) listener(queue);
  }

  /** Sets the target, or another field, and tells the driver. */
  configure(fields: Partial<Record<'numPages' | 'freePageHintCommandId', number>>): void {
    for (const [name, value] of Object.entries(fields)) {
      this.config.setUint32(CONFIG.offset[name as keyof typeof CONFIG.offset], value, true);
    }
    for (const listener of this.#configListeners) listener();
  }

  get actual(): number {
    return this.config.getUint32(CONFIG.offset.actual, true);
  }

  get poisonValue(): number {
    return this.config.getUint32(CONFIG.offset.poisonValue, true);
  }

  async reset(): Promise<void> {
    this.events.push('reset');
    this.status = 0;
    this.features = 0n;
    this.#queues.clear();
  }

  async readStatus(): Promise<number> {
    return this.status;
  }

  async writeStatus(status: number): Promise<void> {
    this.status = status;
    if ((status & DEVICE_STATUS.DRIVER_OK) !== 0) this.events.push('DRIVER_OK');
  }

  async getFeatures(): Promise<bigint> {
    return this.offered;
  }

  async setFeatures(features: bigint): Promise<void> {
    this.features = features;
  }

  async queueSizeMax(): Promise<number> {
    return this.queueSize;
  }

  async enableQueue(index: number, config: QueueConfig): Promise<void> {
    const queue = createDeviceQueue(config);
    queue.validate(this.#memory);
    this.#queues.set(index, queue);
  }

  kick(index: number): void {
    this.events.push(`kick ${queueRoles(this.#profile, this.features)[index]}`);
  }

  async readConfig(offset: number, length: number): Promise<Uint8Array> {
    return new Uint8Array(this.config.buffer.slice(offset, offset + length));
  }

  async writeConfig(offset: number, bytes: Uint8Array): Promise<void> {
    this.events.push(`config ${offset}`);
    new Uint8Array(this.config.buffer).set(bytes, offset);
  }

  onInterrupt(listener: (queue: InterruptedQueue) => void): () => void {
    this.#interruptListeners.add(listener);
    return () => this.#interruptListeners.delete(listener);
  }

  onConfigChange(listener: () => void): () => void {
    this.#configListeners.add(listener);
    return () => this.#configListeners.delete(listener);
  }

  close(): void {}

  #publish(buffers: readonly SeenBuffer[]): void {
    for (const role of new Set(buffers.map(buffer => buffer.role))) {
      this.#queue(role).publish(this.#memory);
      this.interrupt(this.indexOf(role));
    }
  }

  #queue(role: QueueRole): DeviceQueue {
    const queue = this.#queues.get(this.indexOf(role));
    if (queue === undefined) throw new Error(`no ${role} queue runs`);
    return queue;
  }
}
