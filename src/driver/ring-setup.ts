/** Places a virtqueue in the guest's memory, or finds it there again, and tells the device where it lies. */
import type { QueueRole } from '../balloon/features.ts';
import { type Profile, queueRoles } from '../balloon/profiles.ts';
import { createDriverQueue } from '../virtio/create.ts';
import { hasFeature, RING_PACKED } from '../virtio/features.ts';
import { layoutOf } from '../virtio/layout.ts';
import { checkMemory, type DriverQueueState, type QueueConfig, WRAP } from '../virtio/queue.ts';
import type { VirtioTransport } from '../virtio/transport.ts';
import type { DriverMemory } from './driver-memory.ts';
import { DriverRing, type RingWorld } from './driver-ring.ts';
import { DriverProbeError, DriverStateError } from './errors.ts';

export interface PlannedRing {
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
  place: PlannedRing,
  world: RingWorld,
  memory: DriverMemory,
): Promise<DriverRing> {
  const { index, role } = place;
  const { transport } = world;
  const config = await placeRing(place, transport, memory);
  const queue = createDriverQueue(config);
  queue.initialize(world.memory);
  await transport.enableQueue(index, config);
  return new DriverRing(index, role, queue, config, world);
}

/** Where the rings are that these features bring. */
export const plannedRings = (profile: Profile, features: bigint, sizeMax: number): PlannedRing[] =>
  queueRoles(profile, features).map((role, index) => ({ index, role, features, sizeMax }));

/**
 * The rings of a driver that was saved, where they were; the device is not told yet.
 * @throws DriverStateError, VirtqueueError when they cannot be there
 */
export async function findRings(
  places: readonly PlannedRing[],
  states: readonly DriverQueueState[],
  world: RingWorld,
  memory: DriverMemory,
): Promise<DriverRing[]> {
  if (places.length !== states.length) throw new DriverStateError(`it had ${states.length} rings`);
  const rings: DriverRing[] = [];
  for (const place of places) rings.push(await findRing(place, states[place.index], world, memory));
  return rings;
}

async function findRing(
  place: PlannedRing,
  state: DriverQueueState,
  world: RingWorld,
  memory: DriverMemory,
): Promise<DriverRing> {
  const { index, role } = place;
  const config = await placeRing(place, world.transport, memory);
  checkMemory(config, world.memory);
  if (hasFeature(place.features, RING_PACKED) && state.nextAvail % WRAP >= config.size) {
    throw new DriverStateError(`ring ${index} stopped beyond its end`);
  }
  if (state.links.length !== config.size || state.links.some(link => link > config.size)) {
    throw new DriverStateError(`ring ${index} has other descriptors`);
  }
  return new DriverRing(index, role, createDriverQueue(config, state), config, world);
}

/** Split rings have a power of two of entries (VIRTIO 1.4, 2.7). */
const wholeSize = (size: number, features: bigint): number =>
  hasFeature(features, RING_PACKED) ? size : 2 ** Math.floor(Math.log2(size));

async function placeRing(
  { index, role, features, sizeMax }: PlannedRing,
  transport: VirtioTransport,
  memory: DriverMemory,
): Promise<QueueConfig> {
  const offered = await transport.queueSizeMax(index);
  if (offered === 0) throw new DriverProbeError(`${transport.description} has no queue ${index} (${role})`);
  for (let size = wholeSize(Math.min(offered, sizeMax), features); size >= 1; size = Math.floor(size / 2)) {
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
