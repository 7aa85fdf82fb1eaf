/**
 * `aerostat/virtio`: virtqueues over a guest memory that is given with every call (see `aerostat/memory`). Split and
 * packed, the device's side for devices, and the driver's side for drivers and for testing devices.
 */
export { AerostatError, type ErrorCode, InvariantError, SystemError } from '../sys/error.ts';
export { BufferDevice, type Turns } from './buffer-device.ts';
export {
  BUFFER_BYTES_MAX,
  type ChainFault,
  DescriptorChain,
  type PoppedBuffer,
  SegmentList,
} from './chain.ts';
export { createDeviceQueue, createDriverQueue } from './create.ts';
export type { Doorbell, StopReason, VirtioDevice } from './device.ts';
export { ExchangeQueue, type ExchangeQueueOptions } from './exchange-queue.ts';
export {
  ACCESS_PLATFORM,
  ADMIN_VQ,
  ANY_LAYOUT,
  type FeatureNames,
  featureNames,
  hasFeature,
  IN_ORDER,
  NOTIF_CONFIG_DATA,
  NOTIFICATION_DATA,
  NOTIFY_ON_EMPTY,
  ORDER_PLATFORM,
  RING_EVENT_IDX,
  RING_FEATURES,
  RING_INDIRECT_DESC,
  RING_PACKED,
  RING_RESET,
  SR_IOV,
  VERSION_1,
} from './features.ts';
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
