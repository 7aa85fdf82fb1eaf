/**
 * What is noticed of a device while a driver and its back-end use it: for a host that shows the guest's state and steers
 * it by that. The device needs none of it. Each is called after the device has done it, but for a reading.
 */
import type { QueueRole } from '../balloon/features.ts';
import type { MemoryRegion } from '../memory/guest-memory.ts';
import type { StopReason } from '../virtio/device.ts';

export interface DeviceObserver {
  /** The driver is about to read `length` bytes of the configuration space. */
  configRead?(offset: number, length: number): void;
  regionAdded?(region: MemoryRegion): void;
  regionRemoved?(region: MemoryRegion): void;
  /** `known`: the inflate ring had run before, and the account is still that of its driver. */
  queueStarted?(role: QueueRole, known: boolean): void;
  queueSuspended?(role: QueueRole): void;
  queueResumed?(role: QueueRole): void;
  queueStopped?(role: QueueRole, reason: StopReason): void;
  reset?(): void;
}
