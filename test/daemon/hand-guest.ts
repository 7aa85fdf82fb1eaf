/**
 * A guest made by hand on a daemon in another process: guest memory in a memfd, our vhost-user front-end, and the
 * driver's side of every queue, to be moved buffer by buffer. No driver logic: a test decides what the guest sends,
 * sense or nonsense, and may write into the rings behind the driver's back.
 */
import { CONFIG } from '../../src/balloon/config-space.ts';
import type { QueueRole } from '../../src/balloon/features.ts';
import { profile, queueRoles } from '../../src/balloon/profiles.ts';
import type { FileBacking } from '../../src/memory/file-backing.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { defined } from '../../src/sys/defined.ts';
import type { UnixSocket } from '../../src/sys/socket.ts';
import { VhostUserFrontend } from '../../src/vhost-user/frontend-session.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';
import { SegmentList } from '../../src/virtio/chain.ts';
import { createDriverQueue } from '../../src/virtio/create.ts';
import { VERSION_1 } from '../../src/virtio/features.ts';
import { AVAIL_ELEMENT, DESCRIPTOR, RING_HEADER, USED_ELEMENT } from '../../src/virtio/layout.ts';
import type { DriverQueue, QueueConfig } from '../../src/virtio/queue.ts';
import { DEVICE_STATUS } from '../../src/virtio/transport.ts';
import type { TestLoop } from '../support/loop.ts';

const MIB = 2 ** 20;

/** Rings and lists lie below this page; a test has all pages from here on to give away. */
export const FIRST_PAGE = 512;
/** Rings: 64 KiB for each queue. */
const RING_BYTES = 0x1_0000;
/** Lists that the guest sends lie between here and the first page. */
const LISTS = 0x8_0000;
const LISTS_END = FIRST_PAGE * PAGE_SIZE;
/** As many as Linux sends in one buffer. */
export const PFNS_PER_BUFFER = 256;

const ABI = profile('virtio');

type Extent = readonly [address: number, length: number];

/** A buffer as a guest makes it: bytes that are put somewhere into its memory, or addresses of the test's choice. */
export interface HandBuffer {
  readonly out?: Uint8Array;
  readonly outAt?: readonly Extent[];
  readonly in?: readonly Extent[];
}

/** Where a region of guest memory lies, and its bytes. */
export interface RegionPlace {
  readonly guestAddress: number;
  readonly size: number;
}

export interface HandGuestOptions {
  readonly loop: TestLoop;
  readonly memoryBytes?: number;
  /** In place of one region of `memoryBytes`; rings and lists lie in the first. */
  readonly regions?: readonly RegionPlace[];
  /** Balloon features that the driver does not take. */
  readonly without?: bigint;
  readonly ringFeatures?: bigint;
  readonly queueSize?: number;
  /** How long its front-end waits for an answer. */
  readonly answerMsMax?: number;
  /** Its front-end keeps what is in flight, for a daemon that it connects to again. */
  readonly keepsInflight?: boolean;
}

/** Page frame numbers as the driver sends them. */
export function pfnList(first: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count * 4);
  const view = new DataView(bytes.buffer);
  for (let index = 0; index < count; index++) view.setUint32(index * 4, first + index, true);
  return bytes;
}

/** What a queue needs of the guest that it is a part of. */
export interface QueueOwner {
  readonly loop: TestLoop;
  readonly memory: GuestMemory;
  /** Puts bytes somewhere into guest memory; returns where. */
  place(bytes: Uint8Array): number;
  kick(index: number): void;
}

/** Where queue `index` of a guest lies that a test moves. */
export function queuePlace(index: number, size: number, features: bigint, at = 0): QueueConfig {
  const base = at + index * RING_BYTES;
  return {
    size,
    descriptorArea: base,
    driverArea: base + 0x8000,
    deviceArea: base + 0xc000,
    features,
  };
}

/** Room in guest memory for the lists that a guest sends; what lay there long ago is overwritten. */
export class ListRoom {
  readonly #memory: GuestMemory;
  #placed = LISTS;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  place(bytes: Uint8Array): number {
    if (this.#placed + bytes.length > LISTS_END) this.#placed = LISTS;
    const address = this.#placed;
    this.#memory.write(address, bytes);
    this.#placed += Math.ceil(bytes.length / 16) * 16;
    return address;
  }
}

/** Sends the numbers of `count` pages from `first` on, in as many buffers as it takes. */
export async function sendPages(queue: HandQueue, first: number, count: number): Promise<void> {
  for (let sent = 0; sent < count; ) {
    let buffers = 0;
    while (sent < count) {
      const part = Math.min(PFNS_PER_BUFFER, count - sent);
      if (!queue.add({ out: pfnList(first + sent, part) })) break;
      sent += part;
      buffers++;
    }
    queue.kick();
    await queue.returned(buffers);
  }
}

export class HandQueue {
  readonly index: number;
  readonly config: QueueConfig;
  readonly driver: DriverQueue;
  readonly #guest: QueueOwner;
  readonly #segments = new SegmentList();
  readonly #used = { token: 0, written: 0 };
  #token = 0;

  constructor(guest: QueueOwner, index: number, config: QueueConfig) {
    this.#guest = guest;
    this.index = index;
    this.config = config;
    this.driver = createDriverQueue(config);
    this.driver.initialize(guest.memory);
  }

  /** Makes a buffer available without telling the device. False when the ring is full. */
  add({ out, outAt = [], in: inAt = [] }: HandBuffer): boolean {
    const segments = this.#segments.clear();
    if (out !== undefined) segments.addReadable(this.#guest.place(out), out.length);
    for (const [address, length] of outAt) segments.addReadable(address, length);
    for (const [address, length] of inAt) segments.addWritable(address, length);
    return this.driver.addBuffer(this.#guest.memory, segments, this.#token++);
  }

  kick(): void {
    this.driver.publish(this.#guest.memory);
    this.#guest.kick(this.index);
  }

  /** Takes what the device returned; gives the written length of each. */
  collect(): number[] {
    const written: number[] = [];
    while (this.driver.popUsed(this.#guest.memory, this.#used)) written.push(this.#used.written);
    return written;
  }

  /** Sends one buffer and waits until it is back; gives the written length. */
  async exchange(buffer: HandBuffer): Promise<number> {
    if (!this.add(buffer)) throw new Error('the ring is full');
    this.kick();
    const [written] = await this.returned(1);
    return written;
  }

  /** Waits for `count` buffers. */
  async returned(count: number): Promise<number[]> {
    const written: number[] = [];
    await this.#guest.loop.turnUntil(() => {
      written.push(...this.collect());
      return written.length >= count;
    });
    return written;
  }

  // Behind the driver's back, on split rings -----------------------------------------------------------------

  forgeDescriptor(index: number, address: number, length: number, flags = 0, next = 0): this {
    const bytes = DESCRIPTOR.encode({ address, length, flags, next });
    this.#guest.memory.write(this.config.descriptorArea + index * DESCRIPTOR.size, bytes);
    return this;
  }

  /** Offers chains by their heads, and kicks. */
  forgeOffer(...heads: readonly number[]): this {
    const { memory } = this.#guest;
    let index = this.availIndex;
    for (const head of heads) {
      const slot = index % this.config.size;
      memory.setU16(this.config.driverArea + RING_HEADER.size + slot * AVAIL_ELEMENT.size, head);
      index = (index + 1) & 0xffff;
    }
    this.availIndex = index;
    this.#guest.kick(this.index);
    return this;
  }

  /** Waits for used element number `count` and gives all up to it, as the ring shows them. */
  async forgedReturns(count: number): Promise<[id: number, length: number][]> {
    const { memory, loop } = this.#guest;
    const { deviceArea, size } = this.config;
    await loop.turnUntil(() => memory.atomicLoadU16(deviceArea + RING_HEADER.offset.index) >= count);
    return Array.from({ length: count }, (_, at) => {
      const element = deviceArea + RING_HEADER.size + (at % size) * USED_ELEMENT.size;
      return [memory.u32(element), memory.u32(element + USED_ELEMENT.offset.length)];
    });
  }

  get availIndex(): number {
    return this.#guest.memory.u16(this.config.driverArea + RING_HEADER.offset.index);
  }

  set availIndex(index: number) {
    this.#guest.memory.atomicStoreU16(this.config.driverArea + RING_HEADER.offset.index, index);
  }
}

export class HandGuest implements QueueOwner {
  readonly loop: TestLoop;
  readonly memory: GuestMemory;
  readonly frontend: VhostUserFrontend;
  features = 0n;
  configChanges = 0;
  readonly brokenRings: number[] = [];
  #queues: { readonly role: QueueRole; readonly queue: HandQueue }[] = [];
  readonly #options: HandGuestOptions;
  readonly #lists: ListRoom;

  private constructor(frontend: VhostUserFrontend, options: HandGuestOptions) {
    this.#options = options;
    this.loop = options.loop;
    this.memory = frontend.memory;
    this.frontend = frontend;
    this.#lists = new ListRoom(frontend.memory);
    frontend.onConfigChange(() => this.configChanges++);
    frontend.onRingFailure(queue => this.brokenRings.push(queue));
  }

  /** Connects and brings the driver up. */
  static async connect(target: string | UnixSocket, options: HandGuestOptions): Promise<HandGuest> {
    const { loop, memoryBytes = 64 * MIB, regions = [{ guestAddress: 0, size: memoryBytes }] } = options;
    const { answerMsMax, keepsInflight } = options;
    const given = defined({ answerMsMax, keepsInflight });
    const memory = createSharedMemory({ regions });
    // The guest's own pages are resident from the start, so that what becomes resident later was touched by the test.
    memory.fill(0, 0, FIRST_PAGE * PAGE_SIZE);
    try {
      const { reactor } = loop;
      const guest = new HandGuest(
        await loop.until(VhostUserFrontend.connect(target, { reactor, memory, reconnects: true, ...given })),
        options,
      );
      await guest.start();
      return guest;
    } catch (error) {
      memory.close();
      throw error;
    }
  }

  /** The steps of 3.1.1 with all queues, from a device that was reset. */
  async start(): Promise<void> {
    const { frontend, loop } = this;
    const { without = 0n, ringFeatures = 0n, queueSize = 64 } = this.#options;
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DEVICE_STATUS;
    await loop.until(frontend.writeStatus(ACKNOWLEDGE | DRIVER));
    const wanted = (ABI.featureMask & ~without) | VERSION_1 | ringFeatures;
    this.features = (await loop.until(frontend.getFeatures())) & wanted;
    await loop.until(frontend.setFeatures(this.features));
    await loop.until(frontend.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK));
    this.#queues = queueRoles(ABI, this.features).map((role, index) => {
      const config = queuePlace(index, queueSize, this.features);
      return { role, queue: new HandQueue(this, index, config) };
    });
    for (const { queue } of this.#queues) {
      await loop.until(frontend.enableQueue(queue.index, queue.config));
    }
    await loop.until(frontend.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK));
  }

  queue(role: QueueRole): HandQueue {
    const found = this.#queues.find(entry => entry.role === role);
    if (found === undefined) throw new Error(`no ${role} queue was negotiated`);
    return found.queue;
  }

  /** What the host holds for this guest. */
  get residentBytes(): number {
    return this.memory.regions[0].backing.residentBytes();
  }

  /** The file behind its memory. */
  get file(): FileBacking {
    return this.memory.regions[0].backing as FileBacking;
  }

  /** Fills pages, which makes them resident. */
  touch(pfn: number, count: number, value = 0xa5): void {
    this.memory.fill(pfn * PAGE_SIZE, value, count * PAGE_SIZE);
  }

  inflate(first: number, count: number): Promise<void> {
    return sendPages(this.queue('inflate'), first, count);
  }

  deflate(first: number, count: number): Promise<void> {
    return sendPages(this.queue('deflate'), first, count);
  }

  /** Says how much its balloon holds. */
  async writeActual(pages: number): Promise<void> {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, pages, true);
    await this.loop.until(this.frontend.writeConfig(CONFIG.offset.actual, bytes));
  }

  async readConfig(): Promise<ReturnType<typeof CONFIG.read>> {
    const bytes = await this.loop.until(this.frontend.readConfig(0, CONFIG.size));
    return CONFIG.read(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
  }

  place(bytes: Uint8Array): number {
    return this.#lists.place(bytes);
  }

  kick(index: number): void {
    this.frontend.kick(index);
  }

  /** Leaves as a process does that dies. */
  close(): void {
    this.frontend.close();
    this.memory.close();
  }
}
