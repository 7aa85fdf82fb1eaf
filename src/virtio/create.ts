/** Queues of the negotiated kind. */
import { hasFeature, RING_PACKED } from './features.ts';
import { PackedDeviceQueue } from './packed-device-queue.ts';
import { PackedDriverQueue } from './packed-driver-queue.ts';
import type { DeviceQueue, DriverQueue, DriverQueueState, QueueConfig, QueueState } from './queue.ts';
import type { UsedLog } from './ring-log.ts';
import { SplitDeviceQueue } from './split-device-queue.ts';
import { SplitDriverQueue } from './split-driver-queue.ts';

/**
 * A queue with a `log` may be gone on from at any moment by another process: a split one needs none for that.
 * @throws VirtqueueError when size or alignment are wrong
 */
export function createDeviceQueue(config: QueueConfig, state?: QueueState, log?: UsedLog): DeviceQueue {
  return hasFeature(config.features, RING_PACKED)
    ? new PackedDeviceQueue(config, state, log)
    : new SplitDeviceQueue(config, state);
}

/** @throws VirtqueueError when size or alignment are wrong */
export function createDriverQueue(config: QueueConfig, state?: DriverQueueState): DriverQueue {
  return hasFeature(config.features, RING_PACKED)
    ? new PackedDriverQueue(config, state)
    : new SplitDriverQueue(config, state);
}
