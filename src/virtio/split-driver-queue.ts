/**
 * The driver's side of a split virtqueue (VIRTIO 1.4, section 2.7): lists buffers in the descriptor table, offers
 * them in the available ring and takes them back from the used ring. The device may be hostile: what the driver needs
 * to know is kept in its own memory, and nothing that it wrote is read back.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { SegmentList } from './chain.ts';
import {
  AVAIL_ELEMENT,
  AVAIL_NO_INTERRUPT,
  DESCRIPTOR,
  DESCRIPTOR_FLAG,
  USED_ELEMENT,
  USED_NO_NOTIFY,
} from './layout.ts';
import { OutstandingBuffers } from './outstanding.ts';
import {
  clearParts,
  type DriverQueue,
  type DriverQueueState,
  passedEvent,
  type QueueConfig,
  queueTraits,
  requireIndirect,
  requireListable,
  type UsedBuffer,
  VirtqueueError,
  VirtqueueUsageError,
} from './queue.ts';
import { splitRing } from './split-ring.ts';

const { NEXT, WRITE, INDIRECT } = DESCRIPTOR_FLAG;
const { address: ADDRESS, length: LENGTH, flags: FLAGS_AND_NEXT } = DESCRIPTOR.offset;
const { id: USED_ID, length: USED_LENGTH } = USED_ELEMENT.offset;

/** No used entry stands for several buffers at the moment. */
const NO_BATCH = -1;

/** Half the range of an index: an event so far ahead is passed neither by what is under way nor by what comes soon. */
const FAR_AHEAD = 0x8000;

export class SplitDriverQueue implements DriverQueue {
  readonly size: number;
  readonly #config: QueueConfig;
  readonly #mask: number;
  readonly #eventIndex: boolean;
  readonly #inOrder: boolean;
  readonly #descriptors: number;
  readonly #availFlags: number;
  readonly #availIndexAddress: number;
  readonly #availRing: number;
  readonly #usedEvent: number;
  readonly #usedFlags: number;
  readonly #usedIndexAddress: number;
  readonly #usedRing: number;
  readonly #availEvent: number;

  readonly #outstanding: OutstandingBuffers;
  /** The descriptor after each one, in its chain or in the free list. With IN_ORDER always the next in the table. */
  readonly #links: Uint16Array;
  #firstFree = 0;
  #freeCount: number;
  #nextAvail = 0;
  /** `avail.idx` as the device sees it. */
  #publishedAvail = 0;
  #nextUsed = 0;
  /** `used.idx` as it was last read. */
  #usedIndex = 0;
  #kickOwed = false;
  /** The last buffer of the batch that is being taken (IN_ORDER), and what was written into that one. */
  #batchEnd = NO_BATCH;
  #batchWritten = 0;

  /**
   * Goes on from `state` when given one; the first publish then asks for a kick unless the device wants none.
   * @throws VirtqueueError when size or alignment are wrong
   */
  constructor(config: QueueConfig, state?: DriverQueueState) {
    const { size, eventIndex, inOrder } = queueTraits(config, 'split');
    this.#config = config;
    this.size = size;
    this.#mask = size - 1;
    this.#eventIndex = eventIndex;
    this.#inOrder = inOrder;

    ({
      descriptors: this.#descriptors,
      availFlags: this.#availFlags,
      availIndex: this.#availIndexAddress,
      availRing: this.#availRing,
      usedEvent: this.#usedEvent,
      usedFlags: this.#usedFlags,
      usedIndex: this.#usedIndexAddress,
      usedRing: this.#usedRing,
      availEvent: this.#availEvent,
    } = splitRing(config));

    this.#outstanding = new OutstandingBuffers(size);
    this.#links = Uint16Array.from({ length: size }, (_, index) => (index + 1) & this.#mask);
    this.#freeCount = size;
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
    const head = this.#firstFree;
    if (direct) this.#writeChain(memory, segments);
    else this.#writeTable(memory, segments, indirectTable);
    this.#freeCount -= needed;
    this.#outstanding.add(head, token, needed, segments.writableBytes);
    memory.setU16(this.#availRing + (this.#nextAvail & this.#mask) * AVAIL_ELEMENT.size, head);
    this.#nextAvail = (this.#nextAvail + 1) & 0xffff;
    return true;
  }

  publish(memory: GuestMemory): boolean {
    const from = this.#publishedAvail;
    const to = this.#nextAvail;
    if (from === to) return false;
    // 2.7.13.3.1, 2.7.13.4.1: descriptors before the index, the index before the device's wish is read.
    memory.atomicStoreU16(this.#availIndexAddress, to);
    this.#publishedAvail = to;
    if (!this.#eventIndex) return (memory.atomicLoadU16(this.#usedFlags) & USED_NO_NOTIFY) === 0;
    const owed = this.#kickOwed;
    this.#kickOwed = false;
    return passedEvent(memory.atomicLoadU16(this.#availEvent), to, from) || owed;
  }

  popUsed(memory: GuestMemory, used: UsedBuffer): boolean {
    if (this.#nextUsed === this.#usedIndex && this.#usedCount(memory) === 0) return false;
    let id: number;
    let written: number;
    if (this.#batchEnd === NO_BATCH) {
      const element = this.#usedRing + (this.#nextUsed & this.#mask) * USED_ELEMENT.size;
      id = memory.u32(element + USED_ID);
      written = memory.u32(element + USED_LENGTH);
      this.#outstanding.require(id);
    } else {
      id = this.#batchEnd;
      written = this.#batchWritten;
    }
    if (this.#inOrder) {
      // 2.7.9: one entry may stand for all buffers up to the one it names; those before it were used completely.
      const oldest = (this.#firstFree + this.#freeCount) & this.#mask;
      this.#batchEnd = oldest === id ? NO_BATCH : id;
      this.#batchWritten = written;
      if (oldest !== id) {
        id = oldest;
        written = Number.POSITIVE_INFINITY;
      }
    }
    const descriptorCount = this.#outstanding.remove(id, written, used);
    if (!this.#inOrder) this.#linkFree(id, descriptorCount);
    this.#freeCount += descriptorCount;
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    return true;
  }

  suppressInterrupts(memory: GuestMemory): void {
    if (this.#eventIndex) memory.setU16(this.#usedEvent, (this.#nextUsed + FAR_AHEAD) & 0xffff);
    else memory.setU16(this.#availFlags, AVAIL_NO_INTERRUPT);
  }

  requestInterrupts(memory: GuestMemory, after = 0): boolean {
    if (!this.#eventIndex) {
      memory.atomicStoreU16(this.#availFlags, 0);
      return this.#usedCount(memory) > 0;
    }
    // An event that lies beyond the last outstanding buffer would never come.
    const wait = Math.max(0, Math.min(after, this.#outstanding.count - 1));
    memory.atomicStoreU16(this.#usedEvent, (this.#nextUsed + wait) & 0xffff);
    return this.#usedCount(memory) > wait;
  }

  save(): DriverQueueState {
    if (this.#publishedAvail !== this.#nextAvail)
      throw new VirtqueueUsageError('saved with buffers not published');
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
    this.#links.forEach((_, index) => {
      this.#links[index] = (index + 1) & this.#mask;
    });
    this.#firstFree = 0;
    this.#freeCount = this.size;
    this.#nextAvail = 0;
    this.#publishedAvail = 0;
    this.#nextUsed = 0;
    this.#usedIndex = 0;
    this.#kickOwed = false;
    this.#batchEnd = NO_BATCH;
  }

  #restore(state: DriverQueueState): void {
    this.#links.set(state.links);
    this.#firstFree = state.firstFree;
    this.#freeCount -= this.#outstanding.restore(state.outstanding);
    this.#nextAvail = state.nextAvail;
    this.#publishedAvail = state.nextAvail;
    this.#nextUsed = state.nextUsed;
    this.#usedIndex = state.nextUsed;
    this.#kickOwed = true;
  }

  /** Reads `used.idx`; how many entries were not taken yet. */
  #usedCount(memory: GuestMemory): number {
    const index = memory.atomicLoadU16(this.#usedIndexAddress);
    const count = (index - this.#nextUsed) & 0xffff;
    const published = this.#outstanding.count - ((this.#nextAvail - this.#publishedAvail) & 0xffff);
    if (count > published) {
      throw new VirtqueueError(
        `its used index went from ${this.#nextUsed} to ${index}, but the device has ${published} buffers`,
      );
    }
    this.#usedIndex = index;
    return count;
  }

  /** Lists the segments in free descriptors, from the first free one on, in the order that the free list has. */
  #writeChain(memory: GuestMemory, segments: SegmentList): void {
    const last = segments.count - 1;
    let index = this.#firstFree;
    for (let segment = 0; segment <= last; segment++) {
      const next = this.#links[index];
      const flags = (segments.isWritable(segment) ? WRITE : 0) | (segment < last ? NEXT : 0);
      this.#writeDescriptor(
        memory,
        this.#descriptors + index * DESCRIPTOR.size,
        segments.address(segment),
        segments.length(segment),
        flags,
        segment < last ? next : 0,
      );
      index = next;
    }
    this.#firstFree = index;
  }

  #writeTable(memory: GuestMemory, segments: SegmentList, table: number): void {
    requireIndirect(this.#config);
    const last = segments.count - 1;
    for (let segment = 0; segment <= last; segment++) {
      const flags = (segments.isWritable(segment) ? WRITE : 0) | (segment < last ? NEXT : 0);
      this.#writeDescriptor(
        memory,
        table + segment * DESCRIPTOR.size,
        segments.address(segment),
        segments.length(segment),
        flags,
        segment < last ? segment + 1 : 0,
      );
    }
    const head = this.#firstFree;
    const length = segments.count * DESCRIPTOR.size;
    this.#writeDescriptor(memory, this.#descriptors + head * DESCRIPTOR.size, table, length, INDIRECT, 0);
    this.#firstFree = this.#links[head];
  }

  #writeDescriptor(
    memory: GuestMemory,
    at: number,
    address: number,
    length: number,
    flags: number,
    next: number,
  ): void {
    memory.setU64(at + ADDRESS, address);
    memory.setU32(at + LENGTH, length);
    memory.setU32(at + FLAGS_AND_NEXT, flags + next * 2 ** 16);
  }

  /** Puts the chain that begins at `head` in front of the free list. */
  #linkFree(head: number, descriptorCount: number): void {
    let last = head;
    for (let walked = 1; walked < descriptorCount; walked++) last = this.#links[last];
    this.#links[last] = this.#firstFree;
    this.#firstFree = head;
  }
}
