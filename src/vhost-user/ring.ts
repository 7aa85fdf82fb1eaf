/**
 * From a ring as the front-end describes it to a queue that a device can serve. Ring addresses come in the
 * front-end's own address space; everything behind this file speaks guest physical.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { createDeviceQueue } from '../virtio/create.ts';
import { hasFeature, RING_PACKED } from '../virtio/features.ts';
import { DESCRIPTOR_FLAG, layoutOf, PACKED_DESCRIPTOR } from '../virtio/layout.ts';
import { descriptorAt } from '../virtio/packed-ring.ts';
import {
  checkConfig,
  type DeviceQueue,
  initialState,
  type QueueConfig,
  type QueueState,
} from '../virtio/queue.ts';
import { stateFromVringBase, stateToVringBase } from '../virtio/vring-base.ts';
import type { BackendInflight } from './backend-inflight.ts';
import { isRefusal } from './protocol.ts';
import type { KeptRings } from './session-host.ts';
import type { Vring } from './vring.ts';

/** A ring that can be served, and where it lies in guest memory. */
interface OpenRing {
  readonly config: QueueConfig;
  readonly queue: DeviceQueue;
}

/** What outlives the back-end of a ring. */
interface Outliving {
  readonly kept?: KeptRings | undefined;
  readonly inflight?: BackendInflight | undefined;
}

/**
 * Opens a ring where {@link Vring.base} says, or what outlived its former back-end; undefined while the memory that holds it
 * is not there.
 * @throws VirtqueueError when size, alignment or base are nonsense
 */
export function openRing(
  vring: Vring,
  memory: GuestMemory,
  features: bigint,
  { kept, inflight }: Outliving = {},
): OpenRing | undefined {
  const config = locate(vring, memory, features);
  if (config === undefined) return undefined;
  checkConfig(config);
  const starting = () => startingState(memory, config, vring.base);
  const log = kept?.ringLog(vring.index);
  const queue =
    inflight?.open(vring.index, config, memory, starting, log) ?? createDeviceQueue(config, starting(), log);
  return { config, queue };
}

/**
 * Whether the front-end describes the ring as another one than it was when it stopped. False also while that is not
 * known yet: before its doorbell came, which is said last, or its memory.
 */
export function isAnotherRing(vring: Vring, memory: GuestMemory, features: bigint): boolean {
  const { left } = vring;
  if (left === undefined) return false;
  if (!left.hasBase(vring.base)) return true;
  if (vring.kick === undefined) return false;
  try {
    const ring = openRing(vring, memory, features);
    return ring !== undefined && !left.isAt(ring.config, ringBaseOf(ring.queue, features));
  } catch (error) {
    // Its indices are nonsense now, and it was a ring before.
    if (isRefusal(error)) return true;
    throw error;
  }
}

/**
 * Where a ring starts. Base 0 of a packed ring says, by the letter, that both wrap counters have flipped once.
 * Front-ends that do not know packed rings send it for a fresh one. The two can be told apart: in the lap that ended
 * there the device has marked a descriptor as used, and in a fresh ring it has not.
 */
function startingState(memory: GuestMemory, config: QueueConfig, base: number): QueueState {
  const state = stateFromVringBase(memory, config, base);
  if (base !== 0 || !hasFeature(config.features, RING_PACKED)) return state;
  return hasUsed(memory, config) ? state : initialState(config.features);
}

/**
 * Whether a packed ring that stands at its beginning has gone a lap. Any descriptor may say so: of a buffer of several, and
 * of buffers that were returned together, the device has marked one.
 */
function hasUsed(memory: GuestMemory, { descriptorArea, size }: QueueConfig): boolean {
  for (let position = 0; position < size; position++) {
    const flags = memory.u16(descriptorAt(descriptorArea, position) + PACKED_DESCRIPTOR.offset.flags);
    if ((flags & DESCRIPTOR_FLAG.USED) !== 0) return true;
  }
  return false;
}

/** The base from which another queue goes on where `queue` stopped. */
const ringBaseOf = (queue: DeviceQueue, features: bigint): number => stateToVringBase(features, queue.save());

function locate(vring: Vring, memory: GuestMemory, features: bigint): QueueConfig | undefined {
  const { addresses, size } = vring;
  if (addresses === undefined) return undefined;
  const layout = layoutOf({ size, features });
  const descriptorArea = memory.gpaOfUser(addresses.descriptorTable, layout.descriptorArea.size);
  const driverArea = memory.gpaOfUser(addresses.availRing, layout.driverArea.size);
  const deviceArea = memory.gpaOfUser(addresses.usedRing, layout.deviceArea.size);
  if (descriptorArea === undefined || driverArea === undefined || deviceArea === undefined) return undefined;
  return { size, features, descriptorArea, driverArea, deviceArea };
}
