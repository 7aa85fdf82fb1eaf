/**
 * A driver that does what a test says, buffer by buffer, over any transport: for looking at a device where a driver
 * that knows its business would not go.
 */
import type { QueueRole } from '../../../src/balloon/features.ts';
import { profile, queueRoles } from '../../../src/balloon/profiles.ts';
import type { GuestMemory } from '../../../src/memory/guest-memory.ts';
import { SegmentList } from '../../../src/virtio/chain.ts';
import { createDriverQueue } from '../../../src/virtio/create.ts';
import { VERSION_1 } from '../../../src/virtio/features.ts';
import type { DriverQueue, UsedBuffer } from '../../../src/virtio/queue.ts';
import { DEVICE_STATUS, type VirtioTransport } from '../../../src/virtio/transport.ts';
import { until } from './peer.ts';

const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DEVICE_STATUS;

/** Where rings and lists lie: above what PC firmware and video memory cover, below what a test gives away. */
const RINGS_AT = 0x10_0000;
const RING_BYTES = 0x1_0000;
const RING_PART_BYTES = 0x4000;
const RING_SIZE = 64;
const LISTS_AT = 0x18_0000;

export class HandDriver {
  readonly transport: VirtioTransport;
  readonly memory: GuestMemory;
  readonly #queues = new Map<QueueRole, { readonly index: number; readonly queue: DriverQueue }>();

  private constructor(transport: VirtioTransport, memory: GuestMemory) {
    this.transport = transport;
    this.memory = memory;
  }

  /** Resets the device and takes exactly `features` of it, with a queue for each that has one. */
  static async start(
    { transport, memory }: { transport: VirtioTransport; memory: GuestMemory },
    features: bigint,
  ): Promise<HandDriver> {
    const driver = new HandDriver(transport, memory);
    await transport.reset();
    await transport.writeStatus(ACKNOWLEDGE | DRIVER);
    const taken = features | VERSION_1;
    await transport.setFeatures(taken);
    await transport.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    for (const [index, role] of queueRoles(profile('virtio'), taken).entries()) {
      const at = RINGS_AT + index * RING_BYTES;
      const config = {
        size: Math.min(RING_SIZE, await transport.queueSizeMax(index)),
        descriptorArea: at,
        driverArea: at + RING_PART_BYTES,
        deviceArea: at + 2 * RING_PART_BYTES,
        features: taken,
      };
      const queue = createDriverQueue(config);
      queue.initialize(memory);
      await transport.enableQueue(index, config);
      driver.#queues.set(role, { index, queue });
    }
    await transport.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    return driver;
  }

  /** Sends words that the device may read, or memory that it may write; does not wait. */
  send(role: QueueRole, { words = [], extent }: HandBuffer): void {
    const { index, queue } = this.#queue(role);
    const segments = new SegmentList();
    words.forEach((word, at) => {
      this.memory.setU32(LISTS_AT + index * RING_BYTES + at * 4, word);
    });
    if (words.length > 0) segments.addReadable(LISTS_AT + index * RING_BYTES, words.length * 4);
    if (extent !== undefined) segments.addWritable(extent.address, extent.bytes);
    queue.addBuffer(this.memory, segments, 0);
    if (queue.publish(this.memory)) this.transport.kick(index);
  }

  /** The next buffer that comes back; gives what the device says that it wrote. */
  async returned(role: QueueRole): Promise<number> {
    const { queue } = this.#queue(role);
    const used: UsedBuffer = { token: 0, written: 0 };
    await until(() => queue.popUsed(this.memory, used));
    return used.written;
  }

  async exchange(role: QueueRole, buffer: HandBuffer): Promise<number> {
    this.send(role, buffer);
    return this.returned(role);
  }

  async configWord(offset: number): Promise<number> {
    const bytes = await this.transport.readConfig(offset, 4);
    return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  }

  async setConfigWord(offset: number, value: number): Promise<void> {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    await this.transport.writeConfig(offset, bytes);
  }

  #queue(role: QueueRole) {
    const found = this.#queues.get(role);
    if (found === undefined) throw new Error(`no queue for ${role} was negotiated`);
    return found;
  }
}

export interface HandBuffer {
  readonly words?: readonly number[];
  readonly extent?: { readonly address: number; readonly bytes: number };
}
