/**
 * `aerostat/virtio`: virtqueues over a guest memory that is given with every call (see `aerostat/memory`). Split and
 * packed, the device's side for devices, and the driver's side for drivers and for testing devices.
 */
export {
  BUFFER_BYTES_MAX,
  type ChainFault,
  DescriptorChain,
  type PoppedBuffer,
  SegmentList,
} from './chain.ts';
export { createDeviceQueue, createDriverQueue } from './create.ts';
export * from './features.ts';
export { layoutOf, type PartLayout, type QueueLayout } from './layout.ts';
export { PackedDeviceQueue } from './packed-device-queue.ts';
export { PackedDriverQueue } from './packed-driver-queue.ts';
export {
  checkConfig,
  checkMemory,
  type DeviceQueue,
  type DriverQueue,
  type DriverQueueState,
  initialState,
  type OutstandingBuffer,
  QUEUE_SIZE_MAX,
  type QueueConfig,
  type QueueState,
  type UsedBuffer,
  VirtqueueError,
  VirtqueueUsageError,
} from './queue.ts';
export { SplitDeviceQueue } from './split-device-queue.ts';
export { SplitDriverQueue } from './split-driver-queue.ts';
export { stateFromVringBase, stateToVringBase } from './vring-base.ts';
