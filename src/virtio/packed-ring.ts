/**
 * What both sides of a packed virtqueue do the same way (VIRTIO 1.4, section 2.8): positions in the ring, the flags
 * that mark a descriptor as available or used, and event suppression. A position is an offset in bits 0-14 and the
 * wrap counter in bit 15, as the event structure has it.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { DESCRIPTOR_FLAG, EVENT_FLAGS, EVENT_SUPPRESSION, PACKED_DESCRIPTOR } from './layout.ts';
import { WRAP } from './queue.ts';

const { AVAIL, USED } = DESCRIPTOR_FLAG;
const OFFSET_MASK = WRAP - 1;

/** Address of the descriptor at `position` in the ring at `ring`. */
export const descriptorAt = (ring: number, position: number): number =>
  ring + (position & OFFSET_MASK) * PACKED_DESCRIPTOR.size;

/** The position `count` (at most `size`) descriptors on. The counter flips with every pass of the end (2.8.1). */
export function advance(position: number, count: number, size: number): number {
  const offset = (position & OFFSET_MASK) + count;
  return offset < size ? position + count : ((position & WRAP) ^ WRAP) + offset - size;
}

/** Flags of an available descriptor: AVAIL is the wrap counter, USED its inverse (2.8.1). */
export const availableFlags = (position: number): number => ((position & WRAP) === 0 ? USED : AVAIL);

/** Flags of a used descriptor: both are the wrap counter (2.8.1). */
export const usedFlags = (position: number): number => ((position & WRAP) === 0 ? 0 : USED | AVAIL);

export const isAvailable = (flags: number, position: number): boolean =>
  (flags & (USED | AVAIL)) === availableFlags(position);

export const isUsed = (flags: number, position: number): boolean =>
  (flags & (USED | AVAIL)) === usedFlags(position);

/**
 * Whether the other side, whose wish is in the structure at `area`, wants an event for the `moved` descriptors from
 * `from` on. Without RING_EVENT_IDX, and for the reserved value, every flag but DISABLE asks for one; so it does when
 * an event before `from` is `owed`.
 */
export function wantsEvent(
  memory: GuestMemory,
  area: number,
  eventIndex: boolean,
  owed: boolean,
  from: number,
  moved: number,
  size: number,
): boolean {
  const flags = memory.atomicLoadU16(area + EVENT_SUPPRESSION.offset.flags) & EVENT_FLAGS.MASK;
  if (flags === EVENT_FLAGS.DISABLE) return false;
  if (flags !== EVENT_FLAGS.DESCRIPTOR || !eventIndex || owed) return true;
  // After the flags, because the other side writes it before them.
  const event = memory.atomicLoadU16(area + EVENT_SUPPRESSION.offset.position);
  const lap = ((event ^ from) & WRAP) === 0 ? 0 : size;
  const ahead = (event & OFFSET_MASK) - (from & OFFSET_MASK) + lap;
  return ahead >= 0 && ahead < moved;
}

export function suppressEvents(memory: GuestMemory, area: number): void {
  memory.setU16(area + EVENT_SUPPRESSION.offset.flags, EVENT_FLAGS.DISABLE);
}

/** Asks for an event at `position`, or at every one where event indices were not negotiated. */
export function requestEvents(
  memory: GuestMemory,
  area: number,
  eventIndex: boolean,
  position: number,
): void {
  if (eventIndex) memory.atomicStoreU16(area + EVENT_SUPPRESSION.offset.position, position);
  const flags = eventIndex ? EVENT_FLAGS.DESCRIPTOR : EVENT_FLAGS.ENABLE;
  memory.atomicStoreU16(area + EVENT_SUPPRESSION.offset.flags, flags);
}
