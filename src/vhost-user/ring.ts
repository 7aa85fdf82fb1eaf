/**
 * From a ring as the front-end describes it to a queue that a device can serve. Ring addresses come in the
 * front-end's own address space; everything behind this file speaks guest physical.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { checkConfig, type DeviceQueue, layoutOf, type QueueConfig } from '../virtio/queue.ts';
import { SplitDeviceQueue } from '../virtio/split-device-queue.ts';
import { stateFromVringBase, stateToVringBase } from '../virtio/vring-base.ts';
import type { Vring } from './vring.ts';

/**
 * Opens a complete ring where {@link Vring.base} says; undefined while the memory that holds it is not there.
 * @throws VirtqueueError when size, alignment or base are nonsense
 */
export function openQueue(vring: Vring, memory: GuestMemory, features: bigint): DeviceQueue | undefined {
  const config = locate(vring, memory, features);
  if (config === undefined) return undefined;
  checkConfig(config);
  const state = stateFromVringBase(memory, config, vring.base);
  return new SplitDeviceQueue(config, state);
}

/** The base from which another queue goes on where `queue` stopped. */
export const ringBaseOf = (queue: DeviceQueue, features: bigint): number =>
  stateToVringBase(features, queue.save());

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

