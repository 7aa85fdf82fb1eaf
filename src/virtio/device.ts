/**
 * A virtio device as a back-end drives it, whatever carries the driver's wishes there: the mirror of `transport.ts`, which
 * is what a driver sees. The back-end knows messages and descriptors, the device knows neither. All calls come from one
 * thread. Nothing here does I/O.
 */
import type { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import type { DeviceQueue } from './queue.ts';

/** Why a ring stops, which decides what becomes of work that the device has acknowledged but not finished. */
export type StopReason =
  /** The guest is paused or moves on elsewhere: finish what was acknowledged. */
  | 'paused'
  /** The driver starts over, or is gone, or the ring is broken: drop it. */
  | 'abandoned'
  /**
   * It was suspended, and its memory is gone or it starts again where buffers that the device keeps were not taken yet.
   * Whether its guest goes on shows later; until then what was acknowledged is left as it is. What was kept is void.
   */
  | 'undecided';

/** Reaches the driver of one ring, and the back-end that started it. */
export interface Doorbell {
  /** Interrupts the driver. */
  interrupt(): void;
  /**
   * The ring is broken because of `error`. Before this returns the back-end has said so to the driver and has called
   * {@link VirtioDevice.stopQueue} with `abandoned`: a ring stops in no other way.
   */
  fail(error: Error): void;
}

export interface VirtioDevice {
  /** Device and ring feature bits that are offered; bits of the transport are the back-end's. */
  readonly features: bigint;
  /** Rings that the device has at most, whatever it offers; drivers take it for a limit. */
  readonly queueCount: number;

  /** The driver took `features` (device and ring bits). Called before any ring starts. */
  setFeatures(features: bigint): void;
  /** Fills `into` with the configuration space from `offset` on; bytes beyond its end are 0. */
  readConfig(offset: number, into: Uint8Array): void;
  /** Applies what the driver may write and ignores the rest. */
  writeConfig(offset: number, bytes: Uint8Array): void;

  regionAdded(region: MemoryRegion): void;
  /** Calls `released` when nothing of the device touches the region any more, which closes it: at once, or before it settles. */
  regionRemoved(region: MemoryRegion, released: () => void): void;

  /** The memory lasts as long as the ring runs; it may gain and lose regions meanwhile. */
  startQueue(index: number, queue: DeviceQueue, memory: GuestMemory, doorbell: Doorbell): void;
  /**
   * Ring `index` was disabled: its guest is paused, or another driver begins. When this returns, nothing is served and
   * nothing that was acknowledged is worked off, until the ring is resumed or stopped.
   */
  suspendQueue(index: number): void;
  /** The suspended ring goes on. */
  resumeQueue(index: number): void;
  /** Returns when the device has let go of the ring. */
  stopQueue(index: number, reason: StopReason): void;
  /** Serves what the driver made available on ring `index`, which it kicked. */
  serveQueue(index: number): void;

  /**
   * Whether nothing is under way of what was asked for: then what comes next may count on it. False: it is to be asked
   * again when there is news, and no ring is served until it is true. Absent where everything is done before a call
   * returns.
   */
  settle?(): boolean;

  /** The device starts over: features, account and sessions are forgotten. All rings are stopped. */
  reset(): void;
}
