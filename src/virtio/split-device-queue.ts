/**
 * The device's side of a split virtqueue (VIRTIO 1.4, section 2.7): takes chains from the available ring and puts
 * them into the used ring. Every number that the driver writes is read once and bounded before it is used.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { DescriptorChain, PoppedBuffer } from './chain.ts';
import { IndirectTable } from './indirect.ts';
import {
  AVAIL_ELEMENT,
  AVAIL_NO_INTERRUPT,
  DESCRIPTOR,
  DESCRIPTOR_FLAG,
  USED_ELEMENT,
  USED_NO_NOTIFY,
} from './layout.ts';
import {
  checkMemory,
  checkWritten,
  type DeviceQueue,
  initialState,
  lengthField,
  passedEvent,
  type QueueConfig,
  type QueueState,
  queueTraits,
  VirtqueueError,
  VirtqueueUsageError,
} from './queue.ts';
import { splitRing } from './split-ring.ts';

const { NEXT, WRITE, INDIRECT } = DESCRIPTOR_FLAG;
const { address: ADDRESS, length: LENGTH, flags: FLAGS_AND_NEXT } = DESCRIPTOR.offset;
const { id: USED_ID, length: USED_LENGTH } = USED_ELEMENT.offset;

/** No entry of the used ring can take another buffer in. */
const NO_BATCH = -1;

export class SplitDeviceQueue implements DeviceQueue {
  readonly size: number;
  readonly #config: QueueConfig;
  readonly #mask: number;
  readonly #eventIndex: boolean;
  readonly #indirectAllowed: boolean;
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
  readonly #table = new IndirectTable();

  #nextAvail: number;
  /** `avail.idx` as it was last read: what lies before it may be popped without reading it again. */
  #availIndex: number;
  /** Position of the buffer that must be returned next (IN_ORDER). */
  #nextReturn: number;
  #nextUsed: number;
  /** `used.idx` as the driver sees it. */
  #publishedUsed: number;
  /** Buffers popped and not published as used; the driver cannot have added others in their place. */
  #unreturned = 0;
  /** Whether the driver was told of what is before {@link #publishedUsed} is not known: tell it. */
  #interruptOwed: boolean;
  /** Address of the used element into which the next buffer may be folded (IN_ORDER). */
  #batch = NO_BATCH;

  /**
   * Goes on from `state` when given one; then the first publish asks for an interrupt unless the driver wants none,
   * because it is not known whether the last one arrived.
   * @throws VirtqueueError when size or alignment are wrong
   */
  constructor(config: QueueConfig, state?: QueueState) {
    const { size, eventIndex, indirect, inOrder } = queueTraits(config, 'split');
    this.#config = config;
    this.size = size;
    this.#mask = size - 1;
    this.#eventIndex = eventIndex;
    this.#indirectAllowed = indirect;
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

    const { nextAvail, nextUsed } = state ?? initialState(config.features);
    this.#nextAvail = nextAvail;
    this.#availIndex = nextAvail;
    this.#nextReturn = nextAvail;
    this.#nextUsed = nextUsed;
    this.#publishedUsed = nextUsed;
    this.#interruptOwed = state !== undefined;
  }

  get nextAvail(): number {
    return this.#nextAvail;
  }

  validate(memory: GuestMemory): void {
    checkMemory(this.#config, memory);
  }

  pop(memory: GuestMemory, chain: DescriptorChain): boolean {
    const position = this.#nextAvail;
    if (position === this.#availIndex && !this.#moreAvailable(memory)) return false;
    const head = memory.u16(this.#availRing + (position & this.#mask) * AVAIL_ELEMENT.size);
    this.#nextAvail = (position + 1) & 0xffff;
    this.#unreturned++;
    chain.begin(head, position, this.size);
    if (head >= this.size) chain.fail('head-range');
    else this.#walk(memory, chain, head);
    return true;
  }

  undoPop(buffer: PoppedBuffer): void {
    if (((buffer.position + 1) & 0xffff) !== this.#nextAvail) {
      throw new VirtqueueUsageError('a buffer put back that was not the last');
    }
    this.#nextAvail = buffer.position;
    // Whether it is still available is looked at anew: a driver that has begun meanwhile did not offer it.
    this.#availIndex = buffer.position;
    this.#unreturned--;
  }

  pushUsed(memory: GuestMemory, buffer: PoppedBuffer, written: number): void {
    checkWritten(buffer, written);
    let element = this.#usedRing + (this.#nextUsed & this.#mask) * USED_ELEMENT.size;
    if (this.#inOrder) {
      if (buffer.position !== this.#nextReturn)
        throw new VirtqueueUsageError('a buffer returned out of order');
      this.#nextReturn = (this.#nextReturn + 1) & 0xffff;
      if (this.#batch !== NO_BATCH) element = this.#batch;
      // A driver takes the buffers that a batch skips for completely written (2.7.9); others need their own length.
      this.#batch = written === buffer.writableBytes && buffer.fault === undefined ? element : NO_BATCH;
    }
    memory.setU32(element + USED_ID, buffer.id);
    memory.setU32(element + USED_LENGTH, lengthField(written));
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
  }

  publish(memory: GuestMemory): boolean {
    const from = this.#publishedUsed;
    const to = this.#nextUsed;
    if (from === to) return false;
    // 2.7.8.2: the elements before the index; the store and the loads below are sequentially consistent, so
    // the driver either sees the index or has its wish for an interrupt seen here.
    memory.atomicStoreU16(this.#usedIndexAddress, to);
    this.#publishedUsed = to;
    this.#unreturned -= (to - from) & 0xffff;
    this.#batch = NO_BATCH;
    if (!this.#eventIndex) return (memory.atomicLoadU16(this.#availFlags) & AVAIL_NO_INTERRUPT) === 0;
    const owed = this.#interruptOwed;
    this.#interruptOwed = false;
    return passedEvent(memory.atomicLoadU16(this.#usedEvent), to, from) || owed;
  }

  suppressKicks(memory: GuestMemory): void {
    // With event indices, the driver kicks once at `avail_event`, which lies behind until it is moved on.
    if (!this.#eventIndex) memory.setU16(this.#usedFlags, USED_NO_NOTIFY);
  }

  requestKicks(memory: GuestMemory): boolean {
    if (this.#eventIndex) memory.atomicStoreU16(this.#availEvent, this.#nextAvail);
    else memory.atomicStoreU16(this.#usedFlags, 0);
    return this.#nextAvail !== this.#availIndex || this.#moreAvailable(memory);
  }

  save(): QueueState {
    if (this.#publishedUsed !== this.#nextUsed)
      throw new VirtqueueUsageError('a queue saved before its publish');
    return { nextAvail: this.#nextAvail, nextUsed: this.#nextUsed };
  }

  #moreAvailable(memory: GuestMemory): boolean {
    const index = memory.atomicLoadU16(this.#availIndexAddress);
    const count = (index - this.#nextAvail) & 0xffff;
    // 2.7.6.1: the index never goes back, and a queue of `size` entries holds no more buffers.
    if (count > this.size - this.#unreturned) {
      throw new VirtqueueError(
        `its available index went from ${this.#nextAvail} to ${index}, too far for ${this.size} entries of which ${this.#unreturned} are in use`,
      );
    }
    this.#availIndex = index;
    return count > 0;
  }

  #walk(memory: GuestMemory, chain: DescriptorChain, index: number): void {
    for (let walked = 1; ; walked++) {
      const descriptor = this.#descriptors + index * DESCRIPTOR.size;
      const address = memory.u64(descriptor + ADDRESS);
      const length = memory.u32(descriptor + LENGTH);
      const flagsAndNext = memory.u32(descriptor + FLAGS_AND_NEXT);
      chain.descriptorCount = walked;
      if ((flagsAndNext & INDIRECT) !== 0) {
        // 2.7.5.3.2: may come after direct descriptors, and its WRITE flag means nothing.
        if (!this.#indirectAllowed) chain.fail('indirect-refused');
        else if ((flagsAndNext & NEXT) !== 0) chain.fail('indirect-linked');
        else this.#walkTable(memory, chain, address, length);
        return;
      }
      if (!chain.append(memory, address, length, (flagsAndNext & WRITE) !== 0)) return;
      if ((flagsAndNext & NEXT) === 0) return;
      index = flagsAndNext >>> 16;
      if (index >= this.size) {
        chain.fail('next-range');
        return;
      }
      if (walked === this.size) {
        chain.fail('loop');
        return;
      }
    }
  }

  #walkTable(memory: GuestMemory, chain: DescriptorChain, tableAddress: number, tableLength: number): void {
    const table = this.#table;
    const fault = table.load(memory, tableAddress, tableLength, this.size);
    if (fault !== undefined) {
      chain.fail(fault);
      return;
    }
    chain.tableEntries = table.count;
    let index = 0;
    for (let walked = 1; ; walked++) {
      const flags = table.flags(index);
      if ((flags & INDIRECT) !== 0) {
        chain.fail('indirect-nested');
        return;
      }
      if (!chain.append(memory, table.address(index), table.length(index), (flags & WRITE) !== 0)) return;
      if ((flags & NEXT) === 0) return;
      index = table.next(index);
      if (index >= table.count) {
        chain.fail('next-range');
        return;
      }
      if (walked === table.count) {
        chain.fail('loop');
        return;
      }
    }
  }
}
