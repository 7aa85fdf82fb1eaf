/**
 * One queue of a device under test, both sides of it: the driver's, to be moved buffer by buffer or forged behind its
 * back, and the device's, with a look at the moment before it shows what it returned. No driver logic: a test decides
 * what a guest sends, sense or nonsense.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { InvariantError } from '../sys/error.ts';
import { SegmentList } from '../virtio/chain.ts';
import { createDeviceQueue, createDriverQueue } from '../virtio/create.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { ForwardingQueue } from '../virtio/forwarding-queue.ts';
import { AVAIL_ELEMENT, DESCRIPTOR, RING_HEADER, USED_ELEMENT } from '../virtio/layout.ts';
import type { DriverQueue, QueueConfig } from '../virtio/queue.ts';

/** A buffer as a guest makes it: bytes that the queue places, or addresses that the test chose. */
export interface GuestBuffer {
  /** Readable segments with these contents. */
  readonly out?: readonly Uint8Array[];
  /** Readable segments at addresses of the test's choice, after {@link out}. */
  readonly outAt?: readonly (readonly [address: number, length: number])[];
  /** Writable segments. */
  readonly in?: readonly (readonly [address: number, length: number])[];
}

/** A buffer that the device gave back: the number that {@link HandQueue.add} returned, and how much it wrote. */
export interface Returned {
  readonly token: number;
  readonly written: number;
}

/** A device as a queue drives it. One whose `serveQueue` returns true has more to do, and is called again. */
export type TestedDevice = Pick<VirtioDevice, 'startQueue' | 'stopQueue'> & {
  serveQueue(index: number): unknown;
};

export interface HandQueueOptions {
  readonly device: TestedDevice;
  readonly memory: GuestMemory;
  readonly index: number;
  readonly config: QueueConfig;
  /** Puts bytes somewhere in guest memory where the test needs nothing else; returns their address. */
  readonly place: (bytes: Uint8Array) => number;
  /** Called when the device breaks the ring; the queue has stopped it by then, as a back-end does. */
  readonly broken?: (error: Error) => void;
}

/** A device queue that lets a test look at the moment before used entries are shown to the driver. */
class ObservedQueue extends ForwardingQueue {
  beforePublish: () => void = () => {};

  override publish(memory: GuestMemory): boolean {
    this.beforePublish();
    return super.publish(memory);
  }
}

export class HandQueue {
  readonly index: number;
  readonly config: QueueConfig;
  readonly driver: DriverQueue;
  readonly #options: HandQueueOptions;
  readonly #observed: ObservedQueue;
  readonly #segments = new SegmentList();
  readonly #used = { token: 0, written: 0 };
  #token = 0;
  /** Interrupts that the device asked for. */
  interrupts = 0;
  /** Times that the device broke the ring. */
  failures = 0;

  constructor(options: HandQueueOptions) {
    this.#options = options;
    this.index = options.index;
    this.config = options.config;
    this.driver = createDriverQueue(options.config);
    this.driver.initialize(options.memory);
    this.#observed = new ObservedQueue(createDeviceQueue(options.config));
  }

  /** Starts the device's side, or starts it again. */
  start(): this {
    const { device, memory, broken } = this.#options;
    device.startQueue(this.index, this.#observed, memory, {
      interrupt: () => this.interrupts++,
      fail: error => {
        this.failures++;
        broken?.(error);
        device.stopQueue(this.index, 'abandoned');
      },
    });
    return this;
  }

  /** Called each time before the device shows the driver what it returned. */
  set beforePublish(look: () => void) {
    this.#observed.beforePublish = look;
  }

  /** Makes a buffer available without telling the device. Returns its token. @throws InvariantError when the ring is full */
  add(buffer: GuestBuffer): number {
    const { memory, place } = this.#options;
    const segments = this.#segments.clear();
    for (const bytes of buffer.out ?? []) segments.addReadable(place(bytes), bytes.length);
    for (const [address, length] of buffer.outAt ?? []) segments.addReadable(address, length);
    for (const [address, length] of buffer.in ?? []) segments.addWritable(address, length);
    const token = this.#token++;
    if (!this.driver.addBuffer(memory, segments, token)) throw new InvariantError('the ring is full');
    return token;
  }

  /** Publishes what was added and lets the device serve the queue until it has nothing more to do. */
  kick(): void {
    this.driver.publish(this.#options.memory);
    this.#serve();
  }

  /** Takes what the device returned. */
  collect(): Returned[] {
    const returned: Returned[] = [];
    while (this.driver.popUsed(this.#options.memory, this.#used)) returned.push({ ...this.#used });
    return returned;
  }

  /** Sends one buffer; returns what came back. */
  exchange(buffer: GuestBuffer): Returned[] {
    this.add(buffer);
    this.kick();
    return this.collect();
  }

  /** Writes a descriptor behind the driver's back (split queues). */
  forgeDescriptor(index: number, address: number, length: number, flags = 0, next = 0): void {
    const bytes = DESCRIPTOR.encode({ address, length, flags, next });
    this.#options.memory.write(this.config.descriptorArea + index * DESCRIPTOR.size, bytes);
  }

  /** Offers chains by their heads behind the driver's back (split queues), and kicks. */
  forgeOffer(...heads: readonly number[]): void {
    const { memory } = this.#options;
    const indexAt = this.config.driverArea + RING_HEADER.offset.index;
    let index = memory.u16(indexAt);
    for (const head of heads) {
      const slot = index % this.config.size;
      memory.setU16(this.config.driverArea + RING_HEADER.size + slot * AVAIL_ELEMENT.size, head);
      index = (index + 1) & 0xffff;
    }
    memory.setU16(indexAt, index);
    this.#serve();
  }

  /** Used entries as the ring shows them (split queues). */
  forgedReturns(): [id: number, length: number][] {
    const { memory } = this.#options;
    const { deviceArea, size } = this.config;
    const count = memory.u16(deviceArea + RING_HEADER.offset.index);
    return Array.from({ length: count }, (_, at) => {
      const element = deviceArea + RING_HEADER.size + (at % size) * USED_ELEMENT.size;
      return [memory.u32(element), memory.u32(element + 4)] as [number, number];
    });
  }

  #serve(): void {
    let more = true;
    while (more) more = this.#options.device.serveQueue(this.index) === true;
  }
}
