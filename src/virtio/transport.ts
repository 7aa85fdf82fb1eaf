/**
 * The way from a driver to a device, whatever it is made of: vhost-user messages and eventfds, or the
 * registers of a PCI function (VIRTIO 1.4, section 4). Rings, lists and pages lie in guest memory that the
 * driver reaches without it. A driver follows 3.1.1: reset, ACKNOWLEDGE and DRIVER, features, FEATURES_OK
 * and reading it back, queues, DRIVER_OK. Nothing here does I/O.
 */
import type { QueueConfig } from './queue.ts';

/** Bits of the device status (2.1). */
export const DEVICE_STATUS = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  NEEDS_RESET: 64,
  FAILED: 128,
} as const;

/** The number of a queue, or null where the transport's interrupt does not tell which queue it is for. */
export type InterruptedQueue = number | null;

export interface VirtioTransport {
  /** What it leads to, for errors and logs: `QEMU's 00:04.0`, `vhost-user at /run/balloon`. */
  readonly description: string;
  /**
   * Settles with the reason when the device cannot be reached any more, {@link close} included; never
   * rejects.
   */
  readonly ended: Promise<Error>;

  /** Settles when the device is reset: it touches no memory any more, and its status is 0 (2.4). */
  reset(): Promise<void>;

  /** A transport without a status field of its own answers what was written, FEATURES_OK included. */
  readStatus(): Promise<number>;
  /** Writes all bits, those that were set before included. */
  writeStatus(status: number): Promise<void>;

  /**
   * What the device offers. Bits that are the transport's own (VHOST_USER_F_PROTOCOL_FEATURES) are left
   * out.
   */
  getFeatures(): Promise<bigint>;
  /** What the driver takes of it; before FEATURES_OK. */
  setFeatures(features: bigint): Promise<void>;

  /**
   * The largest size that queue `index` can have, 0 when there is no such queue. Before the queue is
   * configured.
   */
  queueSizeMax(index: number): Promise<number>;
  /**
   * Tells the device where queue `index` lies and lets it run; the parts are initialized by then. Between
   * FEATURES_OK and DRIVER_OK. Addresses are guest physical, whatever the transport makes of them. A queue that
   * another device has run goes on at `base`, in vhost-user's terms, where the transport can say so.
   */
  enableQueue(index: number, config: QueueConfig, base?: number): Promise<void>;

  /**
   * Tells the device that queue `index` has new buffers. Leaves at once and in order with other calls; a
   * failure shows in {@link ended}. Nothing need be awaited, but a program that kicks thousands of times
   * without ever returning to its event loop may fill a transport that answers kicks.
   */
  kick(index: number): void;

  /**
   * Reads `length` bytes of the device's configuration. Bytes that belong together are read together: the
   * transport sees to it that they did not change in between (2.5).
   */
  readConfig(offset: number, length: number): Promise<Uint8Array>;
  /** Settles when the device has seen it. */
  writeConfig(offset: number, bytes: Uint8Array): Promise<void>;

  /**
   * Calls `listener` when the device returned buffers and its driver wants to know, until the returned
   * function is called.
   */
  onInterrupt(listener: (queue: InterruptedQueue) => void): () => void;
  /** Calls `listener` when the configuration changed, until the returned function is called. */
  onConfigChange(listener: () => void): () => void;

  /** Lets go of the device. Does not reset it. Idempotent. */
  close(): void;
}
