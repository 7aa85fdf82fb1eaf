/** Places a virtqueue in the guest's memory and tells the device where it lies. */
import type { QueueRole } from '../balloon/features.ts';
import { createDriverQueue } from '../virtio/create.ts';
import { hasFeature, RING_PACKED } from '../virtio/features.ts';
import { layoutOf } from '../virtio/layout.ts';
import type { QueueConfig } from '../virtio/queue.ts';
import type { DriverMemory } from './driver-memory.ts';
import { DriverRing, type RingWorld } from './driver-ring.ts';
import { DriverProbeError } from './errors.ts';

export interface RingPlace {
  readonly index: number;
  readonly role: QueueRole;
  readonly features: bigint;
  /** Entries at most, whatever the device allows. */
  readonly sizeMax: number;
}

/**
 * A ring as large as the device and `sizeMax` allow, or smaller where the guest's memory is in fragments.
 * @throws DriverProbeError when the device has no such queue, or the guest no memory for it
 */
export async function setUpRing(
  place: RingPlace,
  world: RingWorld,
  memory: DriverMemory,
): Promise<DriverRing> {
  const { index, role, features, sizeMax } = place;
  const { transport } = world;
  const offered = await transport.queueSizeMax(index);
  if (offered === 0) throw new DriverProbeError(`${transport.description} has no queue ${index} (${role})`);
  const config = placeRing(wholeSize(Math.min(offered, sizeMax), features), features, memory);
  const queue = createDriverQueue(config);
  queue.initialize(world.memory);
  await transport.enableQueue(index, config);
  return new DriverRing(index, role, queue, world);
}

/** Split rings have a power of two of entries (VIRTIO 1.4, 2.7). */
const wholeSize = (size: number, features: bigint): number =>
  hasFeature(features, RING_PACKED) ? size : 2 ** Math.floor(Math.log2(size));

function placeRing(sizeMax: number, features: bigint, memory: DriverMemory): QueueConfig {
  for (let size = sizeMax; size >= 1; size = Math.floor(size / 2)) {
    const layout = layoutOf({ size, features });
    const driverOffset = align(layout.descriptorArea.size, layout.driverArea.alignment);
    const deviceOffset = align(driverOffset + layout.driverArea.size, layout.deviceArea.alignment);
    const stretch = memory.allocate(deviceOffset + layout.deviceArea.size);
    if (stretch === undefined) continue;
    return {
      size,
      descriptorArea: stretch.address,
      driverArea: stretch.address + driverOffset,
      deviceArea: stretch.address + deviceOffset,
      features,
    };
  }
  throw new DriverProbeError('the guest has no memory for a ring');
}

const align = (offset: number, alignment: number): number => Math.ceil(offset / alignment) * alignment;
