/**
 * What a session stands between: a device, which knows neither sockets nor messages, and the world around both. The
 * session knows the protocol. Calls come from one thread.
 */
import type { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import type { OwnedFd } from '../sys/fd.ts';
import type { Reactor } from '../sys/poll.ts';
import type { DeviceQueue } from '../virtio/queue.ts';

/** Why a ring stops, which decides what becomes of work that the device has acknowledged but not finished. */
export type StopReason =
  /** The guest is paused or moves on elsewhere: finish what was acknowledged. */
  | 'paused'
  /** The driver starts over, or is gone: drop it. */
  | 'abandoned'
  /**
   * It was suspended, and its memory is gone or it starts again where buffers that the device keeps were not taken yet.
   * Whether its guest goes on shows later; until then what was acknowledged is left as it is. What was kept is void.
   */
  | 'undecided';

/** Reaches the driver of one ring. */
export interface RingDoorbell {
  /** Interrupts the driver. */
  interrupt(): void;
  /** Says that the ring is broken and will not be served any more. */
  fail(): void;
}

export interface VhostUserBackend {
  /** Device and ring feature bits that are offered; the transport's own are the session's. */
  readonly features: bigint;
  /** Rings that the device has at most, whatever it offers; front-ends take it for a limit. */
  readonly queueCount: number;

  /** The driver took `features` (device and ring bits). Called before any ring starts. */
  setFeatures(features: bigint): void;
  /** Fills `into` with the configuration space from `offset` on; bytes beyond its end are 0. */
  readConfig(offset: number, into: Uint8Array): void;
  /** Applies what the driver may write and ignores the rest. */
  writeConfig(offset: number, bytes: Uint8Array): void;

  regionAdded(region: MemoryRegion): void;
  /** Calls `letGo` when nothing of the device touches the region any more, which closes it: at once, or before it settles. */
  regionRemoved(region: MemoryRegion, letGo: () => void): void;

  /** The memory lasts as long as the ring runs; it may gain and lose regions meanwhile. */
  startQueue(index: number, queue: DeviceQueue, memory: GuestMemory, doorbell: RingDoorbell): void;
  /**
   * The front-end disabled ring `index`: its guest is paused, or another driver begins. When this returns, nothing is
   * served and nothing that was acknowledged is worked off, until the ring is resumed or stopped.
   */
  suspendQueue(index: number): void;
  /** The suspended ring goes on. */
  resumeQueue(index: number): void;
  /** Returns when the device has let go of the ring. */
  stopQueue(index: number, reason: StopReason): void;
  /** The driver kicked ring `index`. */
  serveQueue(index: number): void;

  /**
   * Whether nothing is under way of what was asked for: then what comes next may count on it. False: it is to be asked
   * again when there is news ({@link BackendConnection.progress}), and no ring is served until it is true. Absent where
   * everything is done before a call returns.
   */
  settle?(): boolean;
  /**
   * Whether files that a front-end hands over as memory can be looked at now. False: something is done about them that
   * may take long, and it is to be asked again when there is news. Absent where waiting is no harm.
   */
  prepareMemory?(files: readonly OwnedFd[]): boolean;

  /** The device starts over: features, account and sessions are forgotten. All rings are stopped. */
  reset(): void;
}

/** What the session needs of the world around it. */
export interface SessionHost {
  readonly reactor: Pick<Reactor, 'watch'>;
  /** A request was refused, or a ring could not be used; `ringIndex` says which. */
  refused(error: Error, context: { request?: string; ringIndex?: number }): void;
  /** The front-end handed over (or withdrew) the channel for the back-end's own requests. */
  backendChannel(fd: OwnedFd | undefined): void;
}
