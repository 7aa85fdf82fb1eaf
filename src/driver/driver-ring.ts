/**
 * One virtqueue of the driver while it runs: the ring, the way to the device, and the reusable objects with which
 * buffers go out and come back. What the buffers mean is the business of the ring's user.
 */
import type { QueueRole } from '../balloon/features.ts';
import type { PageList } from '../balloon/page-list.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { SegmentList } from '../virtio/chain.ts';
import { hasFeature, RING_INDIRECT_DESC } from '../virtio/features.ts';
import type { DriverQueue, QueueConfig, UsedBuffer } from '../virtio/queue.ts';
import type { VirtioTransport } from '../virtio/transport.ts';
import { stateToVringBase } from '../virtio/vring-base.ts';
import type { DriverCounters } from './counters.ts';
import type { DriverMemory, Stretch } from './driver-memory.ts';
import type { Scheduler } from './scheduler.ts';

/** Size of an entry of an indirect table, in both kinds of ring (VIRTIO 1.4, 2.7.5.3, 2.8.7). */
const TABLE_ENTRY_BYTES = 16;

/** What all rings of a driver have in common. */
export interface RingWorld {
  readonly memory: GuestMemory;
  readonly transport: VirtioTransport;
  readonly scheduler: Scheduler;
  readonly counters: DriverCounters;
  /** What was negotiated. */
  readonly features: bigint;
}

export class DriverRing {
  readonly index: number;
  readonly role: QueueRole;
  readonly queue: DriverQueue;
  readonly config: QueueConfig;
  readonly world: RingWorld;
  /** The buffer that {@link add} adds. */
  readonly segments = new SegmentList();
  /** The buffer that {@link takeUsed} took. */
  readonly used: UsedBuffer = { token: 0, written: 0 };
  #inTurn = false;

  constructor(index: number, role: QueueRole, queue: DriverQueue, config: QueueConfig, world: RingWorld) {
    this.index = index;
    this.role = role;
    this.queue = queue;
    this.config = config;
    this.world = world;
  }

  get memory(): GuestMemory {
    return this.world.memory;
  }

  /** Makes a buffer of an encoded page list: its bytes, which are copied to `at`, and its runs of pages. */
  place(encoded: PageList, at: Stretch | undefined): void {
    const { segments, memory } = this;
    segments.clear();
    if (at !== undefined && encoded.length > 0) {
      memory.write(at.address, encoded.bytes, 0, encoded.length);
      // The bytes lie together, so where the ring is too short for a list's parts they are one segment.
      const parts = encoded.cutCount < this.queue.size ? encoded.cutCount : 0;
      let start = 0;
      for (let cut = 0; cut <= parts; cut++) {
        const end = cut < parts ? encoded.cuts[cut] : encoded.length;
        if (end > start) segments.addReadable(at.address + start, end - start);
        start = end;
      }
    }
    for (let index = 0; index < encoded.extentCount; index++) {
      segments.addWritable(encoded.extentAddresses[index], encoded.extentLengths[index]);
    }
  }

  /** Whether there is room for that many descriptors. */
  hasRoom(descriptors: number): boolean {
    return this.queue.freeCount >= descriptors;
  }

  /**
   * Adds {@link segments}; the device sees them after {@link flush}. A list of several goes into `table`, which the
   * caller does not use until the buffer is back. False, changing nothing, when the ring is full.
   */
  add(token: number, table?: Stretch): boolean {
    const address = this.#inTable(this.segments.count, table) ? table?.address : undefined;
    return this.queue.addBuffer(this.memory, this.segments, token, address);
  }

  /** Shows the device what was added, and kicks it if it wants that. A device in this very thread works meanwhile. */
  flush(): void {
    if (!this.queue.publish(this.memory)) return;
    const { counters, scheduler, transport } = this.world;
    counters.kicks++;
    const started = scheduler.now();
    transport.kick(this.index);
    counters.waitingMs += scheduler.now() - started;
  }

  /**
   * Takes the next returned buffer into {@link used}; false when there is none.
   * @throws VirtqueueError when the device returns what it does not have
   */
  takeUsed(): boolean {
    return this.queue.popUsed(this.memory, this.used);
  }

  /**
   * Where a device that never saw this ring takes it up, as vhost-user writes it: at the oldest buffer that is not back,
   * if they came back in order.
   */
  get base(): number {
    const { nextUsed } = this.queue.save();
    return stateToVringBase(this.world.features, { nextAvail: nextUsed, nextUsed });
  }

  /** Asks the device for no interrupts. */
  suppressInterrupts(): void {
    this.queue.suppressInterrupts(this.memory);
  }

  /**
   * Asks for an interrupt when more buffers are returned, `after` that many more if the device can count. True when
   * some are there already, for which none may come.
   */
  enableInterrupts(after = 0): boolean {
    return this.queue.requestInterrupts(this.memory, after);
  }

  /**
   * Hands on every buffer that came back, then works, until there is neither. False from `work`: it wants no interrupt any
   * more. A turn that begins within this one, as where a device in this very thread interrupts while it is kicked, does
   * nothing: this one looks again.
   */
  turn(returned: (used: UsedBuffer) => void, work: () => boolean): void {
    if (this.#inTurn) return;
    this.#inTurn = true;
    try {
      do {
        this.suppressInterrupts();
        while (this.takeUsed()) returned(this.used);
        if (!work()) return;
      } while (this.enableInterrupts());
    } finally {
      this.#inTurn = false;
    }
  }

  #inTable(segmentCount: number, table: Stretch | undefined): boolean {
    return table !== undefined && segmentCount > 1 && segmentCount * TABLE_ENTRY_BYTES <= table.size;
  }
}

/** Parts that a list of bytes may have: a header and 32 bitmaps, which is what the longest of all formats has. */
const LIST_PARTS_MAX = 33;

/**
 * An indirect table for a page list of up to `bytesMax` bytes and `extentsMax` runs, where that saves descriptors and
 * was negotiated. Undefined too when there is no memory for it: then the list goes into the ring.
 */
export function tableFor(
  ring: DriverRing,
  memory: DriverMemory,
  bytesMax: number,
  extentsMax: number,
): Stretch | undefined {
  const segments = (bytesMax > 0 ? LIST_PARTS_MAX : 0) + extentsMax;
  const indirect = hasFeature(ring.world.features, RING_INDIRECT_DESC);
  return indirect && segments > 1 ? memory.allocate(segments * TABLE_ENTRY_BYTES) : undefined;
}
