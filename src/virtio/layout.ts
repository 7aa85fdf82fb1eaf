/**
 * The structures that a driver and a device share in guest memory (VIRTIO 1.4, sections 2.7 and 2.8), declared once,
 * and the three parts that every virtqueue consists of, with their sizes and alignments. No logic.
 */
import { struct } from '../sys/struct.ts';
import { hasFeature, RING_EVENT_IDX, RING_PACKED } from './features.ts';

/** A descriptor of a split queue, in the table or in an indirect table (2.7.5). */
export const DESCRIPTOR = struct('virtq_desc', 16, {
  address: ['u64', 0],
  length: ['u32', 8],
  flags: ['u16', 12],
  next: ['u16', 14],
});

/** What the available ring and the used ring begin with (2.7.6, 2.7.8). */
export const RING_HEADER = struct('virtq ring header', 4, {
  flags: ['u16', 0],
  index: ['u16', 2],
});

/** An entry of the available ring: the head of a chain. */
export const AVAIL_ELEMENT = struct('virtq_avail element', 2, { head: ['u16', 0] });

/** An entry of the used ring (2.7.8). */
export const USED_ELEMENT = struct('virtq_used_elem', 8, {
  id: ['u32', 0],
  length: ['u32', 4],
});

/** `used_event` after the available ring, `avail_event` after the used ring; only with RING_EVENT_IDX. */
const RING_EVENT = struct('virtq ring event', 2, { index: ['u16', 0] });

/** A descriptor of a packed queue, in the ring or in an indirect table (2.8.13). */
export const PACKED_DESCRIPTOR = struct('pvirtq_desc', 16, {
  address: ['u64', 0],
  length: ['u32', 8],
  id: ['u16', 12],
  flags: ['u16', 14],
});

/** What a packed queue has in its driver area and its device area (2.8.14). */
export const EVENT_SUPPRESSION = struct('pvirtq_event_suppress', 4, {
  /** Bits 0-14 a position in the ring, bit 15 the wrap counter there. */
  position: ['u16', 0],
  flags: ['u16', 2],
});

export const DESCRIPTOR_FLAG = { NEXT: 1, WRITE: 2, INDIRECT: 4, AVAIL: 1 << 7, USED: 1 << 15 } as const;

/** `flags` of the available ring. */
export const AVAIL_NO_INTERRUPT = 1;
/** `flags` of the used ring. */
export const USED_NO_NOTIFY = 1;

/** `flags` of {@link EVENT_SUPPRESSION}; 3 is reserved. */
export const EVENT_FLAGS = { ENABLE: 0, DISABLE: 1, DESCRIPTOR: 2, MASK: 3 } as const;

/** Alignment and size of one part of a queue, in bytes. */
export interface PartLayout {
  readonly alignment: number;
  readonly size: number;
}

/** The parts by the names that both queue kinds share (2.6). */
export interface QueueLayout {
  /** Descriptor table (split) or descriptor ring (packed). */
  readonly descriptorArea: PartLayout;
  /** Available ring, or driver event suppression. */
  readonly driverArea: PartLayout;
  /** Used ring, or device event suppression. */
  readonly deviceArea: PartLayout;
}

/** Where the event index lies, from the start of its ring. */
export const usedEventOffset = (size: number): number => RING_HEADER.size + AVAIL_ELEMENT.size * size;
export const availEventOffset = (size: number): number => RING_HEADER.size + USED_ELEMENT.size * size;

/** Sizes and alignments of a queue of `size` entries (2.7, 2.8.10.1), for drivers that place one and devices that check its place. */
export function layoutOf({ size, features }: { size: number; features: bigint }): QueueLayout {
  if (hasFeature(features, RING_PACKED)) {
    return {
      descriptorArea: { alignment: 16, size: PACKED_DESCRIPTOR.size * size },
      driverArea: { alignment: 4, size: EVENT_SUPPRESSION.size },
      deviceArea: { alignment: 4, size: EVENT_SUPPRESSION.size },
    };
  }
  // Without event indices neither side touches their fields, and there are front-ends that do not count them.
  const event = hasFeature(features, RING_EVENT_IDX) ? RING_EVENT.size : 0;
  return {
    descriptorArea: { alignment: 16, size: DESCRIPTOR.size * size },
    driverArea: { alignment: 2, size: usedEventOffset(size) + event },
    deviceArea: { alignment: 4, size: availEventOffset(size) + event },
  };
}
