/**
 * The driver's side of a packed virtqueue (VIRTIO 1.4, section 2.8): writes lists into the descriptor ring and takes
 * them back where the device wrote used descriptors. The device may be hostile: what the driver needs to know is kept
 * in its own memory, and nothing that it wrote is read back.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { SegmentList } from './chain.ts';
import { DESCRIPTOR_FLAG, PACKED_DESCRIPTOR } from './layout.ts';
import { OutstandingBuffers } from './outstanding.ts';
import {
  advance,
  availableFlags,
  descriptorAt,
  isUsed,
  requestEvents,
  suppressEvents,
  wantsEvent,
} from './packed-ring.ts';
import {
  clearParts,
  type DriverQueue,
  type DriverQueueState,
  initialState,
  type QueueConfig,
  queueTraits,
  requireIndirect,
  requireListable,
  type UsedBuffer,
  VirtqueueUsageError,
  WRAP,
} from './queue.ts';

const { NEXT, WRITE, INDIRECT } = DESCRIPTOR_FLAG;
const { address: ADDRESS, length: LENGTH, id: ID, flags: FLAGS } = PACKED_DESCRIPTOR.offset;

/** No used descriptor stands for several buffers at the moment. */
const NO_BATCH = -1;

export class PackedDriverQueue implements DriverQueue {
  readonly size: number;
  readonly #config: QueueConfig;
  readonly #eventIndex: boolean;
  readonly #inOrder: boolean;
  readonly #ring: number;
  readonly #driverArea: number;
  readonly #deviceArea: number;

  readonly #outstanding: OutstandingBuffers;
  /** The free list of buffer ids. With IN_ORDER, an id is the offset of the list's first descriptor instead. */
  readonly #links: Uint16Array;
  #firstFree = 0;
  #freeCount: number;
  #nextAvail: number;
  /** Where the device looks for the next list: until its flags are written, it sees none after it. */
  #publishedAvail: number;
  /** The flags that are still to be written there. */
  #firstFlags = 0;
  /** Descriptors that were added and not published. */
  #unpublished = 0;
  #nextUsed: number;
  #kickOwed = false;
  /** The last buffer of the batch that is being taken (IN_ORDER), and what was written into that one. */
  #batchEnd = NO_BATCH;
  #batchWritten = 0;

  /**
   * Goes on from `state` when given one; the first publish then asks for a kick unless the device wants none.
   * @throws VirtqueueError when size or alignment are wrong
   */
  constructor(config: QueueConfig, state?: DriverQueueState) {
    const { size, eventIndex, inOrder } = queueTraits(config, 'packed');
    this.#config = config;
    this.size = size;
    this.#eventIndex = eventIndex;
    this.#inOrder = inOrder;
    this.#ring = config.descriptorArea;
    this.#driverArea = config.driverArea;
    this.#deviceArea = config.deviceArea;
    this.#outstanding = new OutstandingBuffers(size);
    this.#links = Uint16Array.from({ length: size }, (_, id) => id + 1);
    this.#freeCount = size;
    const { nextAvail, nextUsed } = state ?? initialState(config.features);
    this.#nextAvail = nextAvail;
    this.#publishedAvail = nextAvail;
    this.#nextUsed = nextUsed;
    if (state !== undefined) this.#restore(state);
  }

  get freeCount(): number {
    return this.#freeCount;
  }

  get outstandingCount(): number {
    return this.#outstanding.count;
  }

  initialize(memory: GuestMemory): void {
    clearParts(this.#config, memory);
  }

  addBuffer(memory: GuestMemory, segments: SegmentList, token: number, indirectTable?: number): boolean {
    requireListable(segments, this.size);
    const direct = indirectTable === undefined;
    const needed = direct ? segments.count : 1;
    if (needed > this.#freeCount) return false;
    const id = this.#inOrder ? this.#nextAvail & (WRAP - 1) : this.#firstFree;
    if (direct) this.#writeList(memory, segments, id);
    else this.#writeTable(memory, segments, id, indirectTable);
    if (!this.#inOrder) this.#firstFree = this.#links[id];
    this.#freeCount -= needed;
    this.#unpublished += needed;
    this.#outstanding.add(id, token, needed, segments.writableBytes);
    return true;
  }

  publish(memory: GuestMemory): boolean {
    const from = this.#publishedAvail;
    const moved = this.#unpublished;
    if (moved === 0) return false;
    // 2.8.21.3: the first flags after all else; they and the loads of the device's wish are sequentially consistent.
    memory.atomicStoreU16(descriptorAt(this.#ring, from) + FLAGS, this.#firstFlags);
    this.#publishedAvail = this.#nextAvail;
    this.#unpublished = 0;
    const owed = this.#kickOwed;
    this.#kickOwed = false;
    return wantsEvent(memory, this.#deviceArea, this.#eventIndex, owed, from, moved, this.size);
  }

  popUsed(memory: GuestMemory, used: UsedBuffer): boolean {
    let id: number;
    let written: number;
    if (this.#batchEnd === NO_BATCH) {
      const descriptor = descriptorAt(this.#ring, this.#nextUsed);
      const flags = memory.atomicLoadU16(descriptor + FLAGS);
      if (!isUsed(flags, this.#nextUsed)) return false;
      id = memory.u16(descriptor + ID);
      // 2.8.4: without WRITE the length means nothing.
      written = (flags & WRITE) === 0 ? 0 : memory.u32(descriptor + LENGTH);
      this.#outstanding.require(id);
    } else {
      id = this.#batchEnd;
      written = this.#batchWritten;
    }
    if (this.#inOrder) {
      // 2.8.8: one descriptor may stand for all buffers up to the one it names; those before it were used completely.
      const oldest = this.#nextUsed & (WRAP - 1);
      this.#batchEnd = oldest === id ? NO_BATCH : id;
      this.#batchWritten = written;
      if (oldest !== id) {
        id = oldest;
        written = Number.POSITIVE_INFINITY;
      }
    }
    const descriptorCount = this.#outstanding.remove(id, written, used);
    if (!this.#inOrder) {
      this.#links[id] = this.#firstFree;
      this.#firstFree = id;
    }
    this.#freeCount += descriptorCount;
    this.#nextUsed = advance(this.#nextUsed, descriptorCount, this.size);
    return true;
  }

  suppressInterrupts(memory: GuestMemory): void {
    suppressEvents(memory, this.#driverArea);
  }

  requestInterrupts(memory: GuestMemory, after = 0): boolean {
    // Every buffer has a descriptor at least, so `after` descriptors on is at the latest where `after` buffers are.
    const wait = Math.max(0, Math.min(after, this.#outstanding.count - 1));
    requestEvents(memory, this.#driverArea, this.#eventIndex, advance(this.#nextUsed, wait, this.size));
    const flags = memory.atomicLoadU16(descriptorAt(this.#ring, this.#nextUsed) + FLAGS);
    return this.#batchEnd !== NO_BATCH || isUsed(flags, this.#nextUsed);
  }

  save(): DriverQueueState {
    if (this.#unpublished > 0) throw new VirtqueueUsageError('saved with buffers not published');
    if (this.#batchEnd !== NO_BATCH) throw new VirtqueueUsageError('saved within a batch of used buffers');
    return {
      nextAvail: this.#nextAvail,
      nextUsed: this.#nextUsed,
      outstanding: this.#outstanding.toArray(),
      links: Array.from(this.#links),
      firstFree: this.#firstFree,
    };
  }

  detachUnused(visit: (token: number) => void): void {
    this.#outstanding.clear(visit);
    this.#links.forEach((_, id) => {
      this.#links[id] = id + 1;
    });
    this.#firstFree = 0;
    this.#freeCount = this.size;
    this.#nextAvail = WRAP;
    this.#publishedAvail = WRAP;
    this.#unpublished = 0;
    this.#nextUsed = WRAP;
    this.#kickOwed = false;
    this.#batchEnd = NO_BATCH;
  }

  #restore(state: DriverQueueState): void {
    this.#links.set(state.links);
    this.#firstFree = state.firstFree;
    this.#freeCount -= this.#outstanding.restore(state.outstanding);
    this.#kickOwed = true;
  }

  #writeList(memory: GuestMemory, segments: SegmentList, id: number): void {
    const last = segments.count - 1;
    for (let segment = 0; segment <= last; segment++) {
      const flags = (segments.isWritable(segment) ? WRITE : 0) | (segment < last ? NEXT : 0);
      this.#writeDescriptor(memory, segments.address(segment), segments.length(segment), id, flags);
    }
  }

  #writeTable(memory: GuestMemory, segments: SegmentList, id: number, table: number): void {
    requireIndirect(this.#config);
    for (let segment = 0; segment < segments.count; segment++) {
      const at = table + segment * PACKED_DESCRIPTOR.size;
      memory.setU64(at + ADDRESS, segments.address(segment));
      memory.setU32(at + LENGTH, segments.length(segment));
      memory.setU16(at + ID, 0);
      memory.setU16(at + FLAGS, segments.isWritable(segment) ? WRITE : 0);
    }
    this.#writeDescriptor(memory, table, segments.count * PACKED_DESCRIPTOR.size, id, INDIRECT);
  }

  /** Writes the next descriptor of the ring: all but the very first flags since the last publish, which wait for it. */
  #writeDescriptor(memory: GuestMemory, address: number, length: number, id: number, flags: number): void {
    const position = this.#nextAvail;
    const descriptor = descriptorAt(this.#ring, position);
    memory.setU64(descriptor + ADDRESS, address);
    memory.setU32(descriptor + LENGTH, length);
    memory.setU16(descriptor + ID, id);
    const marked = flags | availableFlags(position);
    if (position === this.#publishedAvail) this.#firstFlags = marked;
    else memory.setU16(descriptor + FLAGS, marked);
    this.#nextAvail = advance(position, 1, this.size);
  }
}
