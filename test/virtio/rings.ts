/** What the tests of this room share: a small guest memory, places for the parts of a queue, and raw access to rings. */
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { type DescriptorChain, SegmentList } from '../../src/virtio/chain.ts';
import { RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import {
  AVAIL_ELEMENT,
  availEventOffset,
  DESCRIPTOR,
  EVENT_SUPPRESSION,
  PACKED_DESCRIPTOR,
  RING_HEADER,
  USED_ELEMENT,
  usedEventOffset,
} from '../../src/virtio/layout.ts';
import type { QueueConfig } from '../../src/virtio/queue.ts';

export const DESCRIPTORS = 0x1_0000;
export const DRIVER_AREA = 0x9_0000;
export const DEVICE_AREA = 0xb_0000;
/** Where buffers may lie: 64 KiB. */
export const BUFFERS = 0x10_0000;
const HIGH = 0x4000_0000;

export const heapRegion = (guestAddress: number, size: number): MemoryRegion =>
  new MemoryRegion({ guestAddress, size, userAddress: guestAddress }, new HeapBacking(size));

/** 2 MiB from 0 in two regions that touch at {@link BUFFERS} + 32 KiB, and 64 KiB at 1 GiB. */
export const testMemory = (): GuestMemory =>
  new GuestMemory([
    heapRegion(0, BUFFERS + 0x8000),
    heapRegion(BUFFERS + 0x8000, 0x20_0000 - BUFFERS - 0x8000),
    heapRegion(HIGH, 0x1_0000),
  ]);

export const MEMORY_END = HIGH + 0x1_0000;

export const configOf = (size: number, features = 0n): QueueConfig => ({
  size,
  descriptorArea: DESCRIPTORS,
  driverArea: DRIVER_AREA,
  deviceArea: DEVICE_AREA,
  features: features | VERSION_1,
});

export const packedConfigOf = (size: number, features = 0n): QueueConfig =>
  configOf(size, features | RING_PACKED);

/** Reads and writes a structure in guest memory, as the other side of a queue would. */
export function at<S>(memory: GuestMemory, layout: StructLike<S>, address: number) {
  return {
    read(): S {
      const bytes = new Uint8Array(layout.size);
      memory.read(address, bytes, 0, layout.size);
      return layout.read(new DataView(bytes.buffer));
    },
    write(value: S): void {
      memory.write(address, layout.encode(value));
    },
  };
}

type StructLike<S> = {
  readonly size: number;
  read(view: DataView, at?: number): S;
  encode(value: S): Uint8Array;
};

type Segment = readonly [address: number, length: number];

export function segments(readable: readonly Segment[], writable: readonly Segment[] = []): SegmentList {
  const list = new SegmentList();
  for (const [address, length] of readable) list.addReadable(address, length);
  for (const [address, length] of writable) list.addWritable(address, length);
  return list;
}

export const segmentsOf = (chain: DescriptorChain): [number, number, 'r' | 'w'][] =>
  Array.from({ length: chain.count }, (_, i) => [
    chain.address(i),
    chain.length(i),
    chain.isWritable(i) ? 'w' : 'r',
  ]);

/** A split ring written by hand. */
export class RawSplitRing {
  readonly memory: GuestMemory;
  readonly size: number;

  constructor(memory: GuestMemory, size: number) {
    this.memory = memory;
    this.size = size;
  }

  descriptor(index: number, address: number, length: number, flags = 0, next = 0): this {
    at(this.memory, DESCRIPTOR, DESCRIPTORS + index * DESCRIPTOR.size).write({
      address,
      length,
      flags,
      next,
    });
    return this;
  }

  /** Writes an indirect table at `address`. */
  table(address: number, entries: readonly (readonly [number, number, number, number])[]): this {
    entries.forEach(([entryAddress, length, flags, next], index) => {
      const entry = { address: entryAddress, length, flags, next };
      at(this.memory, DESCRIPTOR, address + index * DESCRIPTOR.size).write(entry);
    });
    return this;
  }

  /** Puts `heads` into the available ring and moves its index on. */
  offer(...heads: readonly number[]): this {
    let index = this.availIndex;
    for (const head of heads) {
      this.memory.setU16(DRIVER_AREA + RING_HEADER.size + (index % this.size) * AVAIL_ELEMENT.size, head);
      index = (index + 1) & 0xffff;
    }
    this.availIndex = index;
    return this;
  }

  /** Puts used elements into the used ring and moves its index on. */
  use(...elements: readonly (readonly [id: number, length: number])[]): this {
    let index = this.usedIndex;
    for (const [id, length] of elements) {
      at(this.memory, USED_ELEMENT, this.#usedAddress(index)).write({ id, length });
      index = (index + 1) & 0xffff;
    }
    this.usedIndex = index;
    return this;
  }

  used(index: number): [id: number, length: number] {
    const { id, length } = at(this.memory, USED_ELEMENT, this.#usedAddress(index)).read();
    return [id, length];
  }

  avail(index: number): number {
    return this.memory.u16(DRIVER_AREA + RING_HEADER.size + (index % this.size) * AVAIL_ELEMENT.size);
  }

  readDescriptor(index: number) {
    return at(this.memory, DESCRIPTOR, DESCRIPTORS + index * DESCRIPTOR.size).read();
  }

  get availIndex(): number {
    return this.memory.u16(DRIVER_AREA + RING_HEADER.offset.index);
  }
  set availIndex(value: number) {
    this.memory.setU16(DRIVER_AREA + RING_HEADER.offset.index, value);
  }

  get usedIndex(): number {
    return this.memory.u16(DEVICE_AREA + RING_HEADER.offset.index);
  }
  set usedIndex(value: number) {
    this.memory.setU16(DEVICE_AREA + RING_HEADER.offset.index, value);
  }

  get availFlags(): number {
    return this.memory.u16(DRIVER_AREA);
  }
  set availFlags(value: number) {
    this.memory.setU16(DRIVER_AREA, value);
  }

  get usedFlags(): number {
    return this.memory.u16(DEVICE_AREA);
  }
  set usedFlags(value: number) {
    this.memory.setU16(DEVICE_AREA, value);
  }

  get usedEvent(): number {
    return this.memory.u16(DRIVER_AREA + usedEventOffset(this.size));
  }
  set usedEvent(value: number) {
    this.memory.setU16(DRIVER_AREA + usedEventOffset(this.size), value);
  }

  get availEvent(): number {
    return this.memory.u16(DEVICE_AREA + availEventOffset(this.size));
  }
  set availEvent(value: number) {
    this.memory.setU16(DEVICE_AREA + availEventOffset(this.size), value);
  }

  #usedAddress(index: number): number {
    return DEVICE_AREA + RING_HEADER.size + (index % this.size) * USED_ELEMENT.size;
  }
}

/** A packed ring written by hand. */
export class RawPackedRing {
  readonly memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.memory = memory;
  }

  descriptor(offset: number, address: number, length: number, id: number, flags: number): this {
    this.#at(offset).write({ address, length, id, flags });
    return this;
  }

  readDescriptor(offset: number) {
    return this.#at(offset).read();
  }

  /** Writes an indirect table at `address`. */
  table(address: number, entries: readonly (readonly [number, number, number])[]): this {
    entries.forEach(([entryAddress, length, flags], index) => {
      // The id is reserved in a table: the device must not mind what is there.
      const entry = { address: entryAddress, length, id: 0xdead, flags };
      at(this.memory, PACKED_DESCRIPTOR, address + index * PACKED_DESCRIPTOR.size).write(entry);
    });
    return this;
  }

  get driverEvent() {
    return at(this.memory, EVENT_SUPPRESSION, DRIVER_AREA);
  }

  get deviceEvent() {
    return at(this.memory, EVENT_SUPPRESSION, DEVICE_AREA);
  }

  #at(offset: number) {
    return at(this.memory, PACKED_DESCRIPTOR, DESCRIPTORS + offset * PACKED_DESCRIPTOR.size);
  }
}
