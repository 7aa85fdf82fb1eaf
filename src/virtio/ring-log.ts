/**
 * Where a packed queue stands, in memory that outlives the process that serves it. The ring does not say it, and used
 * descriptors are written over available ones: of the one that is about to be written it is noted here first where it is, what
 * comes after it, and what its writing destroys. So a process that ends at any moment has returned a buffer wholly or not at
 * all, and the next one goes on behind the last that was returned. That is right for queues that return buffers in the order
 * in which they took them.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { struct } from '../sys/struct.ts';
import { PACKED_DESCRIPTOR } from './layout.ts';
import { descriptorAt, isAvailable } from './packed-ring.ts';
import { type QueueConfig, VirtqueueError, WRAP } from './queue.ts';

const { length: LENGTH, id: ID, flags: FLAGS } = PACKED_DESCRIPTOR.offset;

const RING_LOG = struct('log of a ring', 16, {
  /**
   * The position of the used descriptor that was written last or is being written, in the low half, and the position after it
   * in the high half: one word, for both count at once. They are the same where none was written.
   */
  positions: ['u32', 0],
  /** What the descriptor had before. */
  length: ['u32', 4],
  id: ['u16', 8],
});
const { offset } = RING_LOG;

export const RING_LOG_BYTES = RING_LOG.size;

/** Hears of each used descriptor of a packed queue before it is written. */
export interface UsedLog {
  /** A queue begins at `position`. */
  begin(position: number): void;
  /** The descriptor at `position` is about to be written as used; the next one will be at `next`. */
  writing(memory: GuestMemory, ring: number, position: number, next: number): void;
}

export class RingLog implements UsedLog {
  readonly #view: DataView;
  readonly #at: number;

  /** It has {@link RING_LOG_BYTES} at offset `at`. */
  constructor(view: DataView, at: number) {
    this.#view = view;
    this.#at = at;
  }

  begin(position: number): void {
    this.#view.setUint32(this.#at + offset.positions, position + position * 2 ** 16, true);
  }

  writing(memory: GuestMemory, ring: number, position: number, next: number): void {
    const descriptor = descriptorAt(ring, position);
    const view = this.#view;
    view.setUint32(this.#at + offset.length, memory.u32(descriptor + LENGTH), true);
    view.setUint16(this.#at + offset.id, memory.u16(descriptor + ID), true);
    // Last: until then all of this is about a descriptor whose flags say that it was written.
    view.setUint32(this.#at + offset.positions, position + next * 2 ** 16, true);
  }

  /**
   * Where a queue at `config` goes on; its ring is as if nothing there had been written. Changes nothing more when it is done
   * again.
   * @throws VirtqueueError when the log is another queue's; MemoryAccessError
   */
  recover({ descriptorArea, size }: QueueConfig, memory: GuestMemory): number {
    const positions = this.#view.getUint32(this.#at + offset.positions, true);
    const position = positions % 2 ** 16;
    const next = Math.floor(positions / 2 ** 16);
    for (const at of [position, next]) {
      if (at % WRAP >= size) throw new VirtqueueError(`its log says position ${at % WRAP} of ${size}`);
    }
    if (position === next) return position;
    const descriptor = descriptorAt(descriptorArea, position);
    // A driver that has heard of it may have made another one available there, one lap on.
    if (!isAvailable(memory.atomicLoadU16(descriptor + FLAGS), position)) return next;
    memory.setU32(descriptor + LENGTH, this.#view.getUint32(this.#at + offset.length, true));
    memory.setU16(descriptor + ID, this.#view.getUint16(this.#at + offset.id, true));
    return position;
  }
}
