/**
 * One queue of a device rig, both sides of it: the driver's, to be moved buffer by buffer or forged behind its back,
 * and the device's, with a view of the moment before it shows what it returned.
 */
import type { QueueRole } from '../../src/balloon/features.ts';
import type { BalloonDevice } from '../../src/device/balloon-device.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { type DescriptorChain, type PoppedBuffer, SegmentList } from '../../src/virtio/chain.ts';
import { createDeviceQueue, createDriverQueue } from '../../src/virtio/create.ts';
import { AVAIL_ELEMENT, DESCRIPTOR, RING_HEADER } from '../../src/virtio/layout.ts';
import type { DeviceQueue, DriverQueue, QueueConfig, QueueState } from '../../src/virtio/queue.ts';

/** A buffer as a guest makes it: bytes that the rig places, or addresses that the test chose. */
export interface GuestBuffer {
  readonly out?: readonly Uint8Array[];
  /** Readable segments at addresses of the test's choice, after {@link out}. */
  readonly outAt?: readonly (readonly [address: number, length: number])[];
  readonly in?: readonly (readonly [address: number, length: number])[];
}

export interface Returned {
  readonly token: number;
  readonly written: number;
}

/** What a queue needs of the rig that it is on. */
export interface QueueWorld {
  readonly device: BalloonDevice;
  readonly memory: GuestMemory;
  /** Hears which rings broke. */
  readonly host: { readonly brokenRings: { index: number; error: Error }[] };
  /** Puts bytes somewhere in guest memory; returns where. */
  place(bytes: Uint8Array): number;
  /** The room for lists is free again. */
  forgetLists(): void;
}

/** A device queue that lets a test look at the moment before used entries are shown to the driver. */
class ObservedQueue implements DeviceQueue {
  readonly #queue: DeviceQueue;
  beforePublish: () => void = () => {};

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
    this.beforePublish();
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

/** One queue of the rig: both sides of it. */
export class RigQueue {
  readonly index: number;
  readonly role: QueueRole;
  readonly config: QueueConfig;
  readonly driver: DriverQueue;
  readonly #rig: QueueWorld;
  readonly #observed: ObservedQueue;
  readonly #segments = new SegmentList();
  readonly #used = { token: 0, written: 0 };
  #token = 0;
  interrupts = 0;
  failures = 0;

  constructor(rig: QueueWorld, index: number, role: QueueRole, config: QueueConfig) {
    this.#rig = rig;
    this.index = index;
    this.role = role;
    this.config = config;
    this.driver = createDriverQueue(config);
    this.driver.initialize(rig.memory);
    this.#observed = new ObservedQueue(createDeviceQueue(config));
  }

  /** (Re)starts the device's side. */
  start(): this {
    this.#rig.device.startQueue(this.index, this.#observed, this.#rig.memory, {
      interrupt: () => this.interrupts++,
      fail: error => {
        this.failures++;
        this.#rig.host.brokenRings.push({ index: this.index, error });
        this.#rig.device.stopQueue(this.index, 'abandoned');
      },
    });
    return this;
  }

  set beforePublish(look: () => void) {
    this.#observed.beforePublish = look;
  }

  /** Makes a buffer available without telling the device. Returns its token. */
  add(buffer: GuestBuffer): number {
    const segments = this.#segments.clear();
    for (const bytes of buffer.out ?? []) segments.addReadable(this.#rig.place(bytes), bytes.length);
    for (const [address, length] of buffer.outAt ?? []) segments.addReadable(address, length);
    for (const [address, length] of buffer.in ?? []) segments.addWritable(address, length);
    const token = this.#token++;
    if (!this.driver.addBuffer(this.#rig.memory, segments, token)) throw new Error('the ring is full');
    return token;
  }

  /** Publishes what was added and lets the device serve the queue until it has nothing more to do. */
  kick(): void {
    this.driver.publish(this.#rig.memory);
    while (this.#rig.device.serveQueue(this.index));
  }

  /** Takes what the device returned. */
  collect(): Returned[] {
    const returned: Returned[] = [];
    while (this.driver.popUsed(this.#rig.memory, this.#used)) returned.push({ ...this.#used });
    return returned;
  }

  /** Sends one buffer; returns what came back. */
  exchange(buffer: GuestBuffer): Returned[] {
    this.#rig.forgetLists();
    this.add(buffer);
    this.kick();
    return this.collect();
  }

  /** Writes a descriptor behind the driver's back (split queues). */
  forgeDescriptor(index: number, address: number, length: number, flags = 0, next = 0): void {
    const bytes = DESCRIPTOR.encode({ address, length, flags, next });
    this.#rig.memory.write(this.config.descriptorArea + index * DESCRIPTOR.size, bytes);
  }

  /** Offers chains by their heads behind the driver's back (split queues), and kicks. */
  forgeOffer(...heads: readonly number[]): void {
    const { memory } = this.#rig;
    const indexAt = this.config.driverArea + RING_HEADER.offset.index;
    let index = memory.u16(indexAt);
    for (const head of heads) {
      const slot = index % this.config.size;
      memory.setU16(this.config.driverArea + RING_HEADER.size + slot * AVAIL_ELEMENT.size, head);
      index = (index + 1) & 0xffff;
    }
    memory.setU16(indexAt, index);
    while (this.#rig.device.serveQueue(this.index));
  }

  /** Used entries `[id, length]` as the ring shows them (split queues). */
  forgedReturns(): [id: number, length: number][] {
    const { memory } = this.#rig;
    const { deviceArea, size } = this.config;
    const count = memory.u16(deviceArea + RING_HEADER.offset.index);
    return Array.from({ length: count }, (_, at) => {
      const element = deviceArea + RING_HEADER.size + (at % size) * 8;
      return [memory.u32(element), memory.u32(element + 4)] as [number, number];
    });
  }
}
