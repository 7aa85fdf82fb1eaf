/**
 * An indirect descriptor table, copied out of guest memory before it is looked at: the guest cannot change it while
 * it is walked, and it may lie at any address. Both kinds of queue walk the copy their own way.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { readU64 } from '../sys/struct.ts';
import type { ChainFault } from './chain.ts';
import { DESCRIPTOR, PACKED_DESCRIPTOR } from './layout.ts';

const ENTRY_BYTES = DESCRIPTOR.size;
const { address: ADDRESS, length: LENGTH, flags: FLAGS, next: NEXT } = DESCRIPTOR.offset;
const PACKED_FLAGS = PACKED_DESCRIPTOR.offset.flags;

/** Most tables are short; the copy grows on demand up to 16 bytes for every entry that the queue has. */
const CAPACITY_START = 32 * ENTRY_BYTES;

export class IndirectTable {
  #bytes = new Uint8Array(CAPACITY_START);
  #view = new DataView(this.#bytes.buffer);
  #count = 0;

  /** Entries of the table that was loaded last. */
  get count(): number {
    return this.#count;
  }

  /**
   * Copies the table. At most `countMax` entries, the queue's size: a buffer may have no more segments than that
   * (2.7.5.3.1, 2.8.17), so a longer table can only waste the device's time.
   */
  load(memory: GuestMemory, address: number, length: number, countMax: number): ChainFault | undefined {
    if (length === 0 || length % ENTRY_BYTES !== 0 || length > countMax * ENTRY_BYTES)
      return 'indirect-length';
    if (!memory.contains(address, length)) return 'address';
    if (length > this.#bytes.length) {
      this.#bytes = new Uint8Array(2 ** Math.ceil(Math.log2(length)));
      this.#view = new DataView(this.#bytes.buffer);
    }
    memory.read(address, this.#bytes, 0, length);
    this.#count = length / ENTRY_BYTES;
    return undefined;
  }

  address(index: number): number {
    return readU64(this.#view, index * ENTRY_BYTES + ADDRESS);
  }

  length(index: number): number {
    return this.#view.getUint32(index * ENTRY_BYTES + LENGTH, true);
  }

  flags(index: number): number {
    return this.#view.getUint16(index * ENTRY_BYTES + FLAGS, true);
  }

  next(index: number): number {
    return this.#view.getUint16(index * ENTRY_BYTES + NEXT, true);
  }

  packedFlags(index: number): number {
    return this.#view.getUint16(index * ENTRY_BYTES + PACKED_FLAGS, true);
  }
}
