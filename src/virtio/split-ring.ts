/** Where the parts of a split virtqueue lie in guest memory (VIRTIO 1.4, section 2.7), for both of its sides. */
import { availEventOffset, RING_HEADER, usedEventOffset } from './layout.ts';
import type { QueueConfig } from './queue.ts';

/** Guest-physical addresses: of the tables, and of the single fields that either side reads or writes. */
interface SplitRing {
  readonly descriptors: number;
  readonly availFlags: number;
  readonly availIndex: number;
  readonly availRing: number;
  readonly usedEvent: number;
  readonly usedFlags: number;
  readonly usedIndex: number;
  readonly usedRing: number;
  readonly availEvent: number;
}

export const splitRing = ({ size, descriptorArea, driverArea, deviceArea }: QueueConfig): SplitRing => ({
  descriptors: descriptorArea,
  availFlags: driverArea + RING_HEADER.offset.flags,
  availIndex: driverArea + RING_HEADER.offset.index,
  availRing: driverArea + RING_HEADER.size,
  usedEvent: driverArea + usedEventOffset(size),
  usedFlags: deviceArea + RING_HEADER.offset.flags,
  usedIndex: deviceArea + RING_HEADER.offset.index,
  usedRing: deviceArea + RING_HEADER.size,
  availEvent: deviceArea + availEventOffset(size),
});
