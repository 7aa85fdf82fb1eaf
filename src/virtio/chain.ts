/**
 * Buffers as lists of segments of guest memory: what a driver makes available, and what a device gets when it pops
 * one. Both kinds of queue fill the same classes, which are filled again for every buffer so that nothing is
 * allocated per buffer. How a list is found in a ring is the queues' business.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';

/** Grown on demand up to the longest list seen; most buffers have one or two segments. */
const CAPACITY_START = 16;

/** A driver must not add more in one buffer (2.7.5.2); it also keeps every sum of lengths an exact number. */
export const BUFFER_BYTES_MAX = 2 ** 32;

/**
 * Why a buffer is nonsense:
 * - `head-range`, `next-range`: an index outside its descriptor table;
 * - `loop`: more descriptors linked than the table has; `too-long`: more segments than the queue has entries;
 * - `order`: a device-readable segment after a device-writable one;
 * - `address`: a segment or an indirect table that is not all guest memory;
 * - `total-bytes`: more than {@link BUFFER_BYTES_MAX};
 * - `indirect-refused`: an indirect table although the feature was not negotiated;
 * - `indirect-nested`: a table inside a table; `indirect-linked`: a table's descriptor that also has NEXT;
 * - `indirect-length`: a table of no entries, of a fraction of one, or of more than the queue has.
 */
export type ChainFault =
  | 'head-range'
  | 'next-range'
  | 'loop'
  | 'too-long'
  | 'order'
  | 'address'
  | 'total-bytes'
  | 'indirect-refused'
  | 'indirect-nested'
  | 'indirect-linked'
  | 'indirect-length';

/** Runs of guest memory: first those that the device reads, then those that it writes (2.7.4.2). */
export class SegmentList {
  #addresses = new Float64Array(CAPACITY_START);
  #lengths = new Float64Array(CAPACITY_START);
  #count = 0;
  #readableCount = 0;
  #readableBytes = 0;
  #writableBytes = 0;

  /** Number of segments. */
  get count(): number {
    return this.#count;
  }

  /** How many of them, from the first, the device reads; it writes the rest. */
  get readableCount(): number {
    return this.#readableCount;
  }

  get readableBytes(): number {
    return this.#readableBytes;
  }

  get writableBytes(): number {
    return this.#writableBytes;
  }

  /** Guest physical address of segment `index`. */
  address(index: number): number {
    return this.#addresses[index];
  }

  /** Bytes in segment `index`. */
  length(index: number): number {
    return this.#lengths[index];
  }

  isWritable(index: number): boolean {
    return index >= this.#readableCount;
  }

  clear(): this {
    this.#count = 0;
    this.#readableCount = 0;
    this.#readableBytes = 0;
    this.#writableBytes = 0;
    return this;
  }

  /** Adds a segment that the device reads; returns false, adding nothing, when one that it writes is there already. */
  addReadable(address: number, length: number): boolean {
    if (this.#readableCount !== this.#count) return false;
    this.#push(address, length);
    this.#readableCount++;
    this.#readableBytes += length;
    return true;
  }

  addWritable(address: number, length: number): void {
    this.#push(address, length);
    this.#writableBytes += length;
  }

  /**
   * Copies up to `length` device-readable bytes, from byte `offset` of the buffer on, into `into` from index `at`,
   * however they are cut into segments. Returns how many there were.
   */
  read(memory: GuestMemory, offset: number, into: Uint8Array, at: number, length: number): number {
    let done = 0;
    for (let index = 0; index < this.#readableCount && done < length; index++) {
      const available = this.#lengths[index];
      if (offset >= available) {
        offset -= available;
        continue;
      }
      const part = Math.min(available - offset, length - done);
      memory.read(this.#addresses[index] + offset, into, at + done, part);
      done += part;
      offset = 0;
    }
    return done;
  }

  /**
   * Copies up to `length` bytes of `from`, from index `at`, into the device-writable segments, from byte `offset` of
   * those on. Returns how many had room.
   */
  write(memory: GuestMemory, offset: number, from: Uint8Array, at = 0, length = from.length - at): number {
    let done = 0;
    for (let index = this.#readableCount; index < this.#count && done < length; index++) {
      const available = this.#lengths[index];
      if (offset >= available) {
        offset -= available;
        continue;
      }
      const part = Math.min(available - offset, length - done);
      memory.write(this.#addresses[index] + offset, from, at + done, part);
      done += part;
      offset = 0;
    }
    return done;
  }

  #push(address: number, length: number): void {
    if (this.#count === this.#addresses.length) this.#grow();
    this.#addresses[this.#count] = address;
    this.#lengths[this.#count] = length;
    this.#count++;
  }

  #grow(): void {
    const addresses = new Float64Array(this.#addresses.length * 2);
    const lengths = new Float64Array(addresses.length);
    addresses.set(this.#addresses);
    lengths.set(this.#lengths);
    this.#addresses = addresses;
    this.#lengths = lengths;
  }
}

/** What a device must remember of a buffer to return it: all of {@link DescriptorChain} but its segments. */
export interface PoppedBuffer {
  /** The head's index (split) or the buffer id (packed): the driver's name for the buffer. */
  readonly id: number;
  /** Where in the sequence of available buffers it was found; see `QueueState.nextAvail` for the encoding. */
  readonly position: number;
  /** Descriptors that it occupies in the ring itself. */
  readonly descriptorCount: number;
  readonly writableBytes: number;
  /** Set when the buffer is nonsense: it has no segments then and is to be returned with length 0. */
  readonly fault: ChainFault | undefined;
}

/** One buffer taken from a ring. Create one per queue and let every pop fill it again. */
export class DescriptorChain extends SegmentList implements PoppedBuffer {
  id = 0;
  position = 0;
  descriptorCount = 0;
  /** Entries of the indirect tables that were copied for it, whether it made sense or not: what it cost beside. */
  tableEntries = 0;
  fault: ChainFault | undefined = undefined;
  #countMax = 0;

  /** For the queues: starts a new buffer of at most `countMax` segments. */
  begin(id: number, position: number, countMax: number): void {
    this.clear();
    this.id = id;
    this.position = position;
    this.descriptorCount = 1;
    this.tableEntries = 0;
    this.fault = undefined;
    this.#countMax = countMax;
  }

  /** For the queues: checks and adds a segment. Returns false when that made the buffer nonsense. */
  append(memory: GuestMemory, address: number, length: number, writable: boolean): boolean {
    if (this.count === this.#countMax) return this.fail('too-long');
    if (!memory.contains(address, length)) return this.fail('address');
    if (this.readableBytes + this.writableBytes + length > BUFFER_BYTES_MAX) return this.fail('total-bytes');
    if (writable) {
      this.addWritable(address, length);
      return true;
    }
    return this.addReadable(address, length) || this.fail('order');
  }

  /** For the queues: marks the buffer as nonsense, without segments, so that no device acts on half of a list. */
  fail(fault: ChainFault): false {
    this.clear();
    this.fault = fault;
    return false;
  }

  /** A copy of what is needed to return the buffer after this object was filled again. */
  hold(): PoppedBuffer {
    const { id, position, descriptorCount, writableBytes, fault } = this;
    return { id, position, descriptorCount, writableBytes, fault };
  }
}
