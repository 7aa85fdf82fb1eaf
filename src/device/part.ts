/**
 * What one feature of the balloon is to the device, the mirror of a part of the driver (`driver/queue-part.ts`): something
 * that a ring starts, that takes the ring's buffers, and that is saved and forgotten with the device. Rings are served by
 * {@link RingServer}, which knows no part by name. A part has one ring or two, and none before `start`.
 */
import type { QueueRole } from '../balloon/features.ts';
import type { Profile } from '../balloon/profiles.ts';
import type { PageSink } from '../memory/page.ts';
import type { MonotonicClock } from '../sys/monotonic.ts';
import type { Fields, ShapedFields } from '../sys/shape.ts';
import type { StopReason } from '../virtio/device.ts';
import type { UsePart } from './addressed-accounts.ts';
import type { DeviceCounters } from './counters.ts';
import type { DeviceConfig } from './device-config.ts';
import type { DeviceHost } from './device-host.ts';
import type { PageAccounts } from './page-accounts.ts';
import type { RunningQueue } from './running-queue.ts';

/** What all parts of one device have in common. */
export interface PartWorld {
  readonly profile: Profile;
  readonly host: DeviceHost;
  readonly clock: MonotonicClock;
  readonly config: DeviceConfig;
  readonly accounts: PageAccounts;
  readonly counters: DeviceCounters;
  /** Takes the pages that the guest says it does not use; what lies outside of guest memory is left out on the way. */
  readonly unusedPages: PageSink;
  /** The same for a part of a run that lies in a region. */
  readonly noteUnused: UsePart;
}

export interface DevicePart {
  /** What its queues are for. */
  readonly roles: readonly QueueRole[];
  /** What it counts by itself; every figure only ever rises. */
  readonly counters: Readonly<Record<string, number>>;

  /** The driver took `features`; 0 when it starts over. */
  negotiated?(features: bigint): void;
  /** The ring runs from now on. */
  start(ring: RunningQueue): void;
  /** The ring stands still until it is resumed or stopped. */
  suspend?(ring: RunningQueue): void;
  resume?(ring: RunningQueue): void;
  /** The ring does not run any more. Its list, if one was begun, was left before ({@link DevicePart.leave}). */
  stop(ring: RunningQueue, reason: StopReason): void;
  /** The driver starts over: nothing of it is remembered but what was counted. All rings were stopped before. */
  reset(): void;

  /**
   * Takes the buffer in `ring.chain`, whose list it may begin in `ring.walk`. True when the buffer goes back, with its list
   * if it has begun one; false when the part keeps it.
   * @throws PageListError when it says nothing that can be understood: it is refused
   */
  serve(ring: RunningQueue): boolean;
  /** A buffer is about to be refused. */
  refuse?(ring: RunningQueue): void;
  /** Goes on with the list that was begun in a way of its own; true when it is done. Absent: `ring.walk` only goes on. */
  readonly resumeList?: ((ring: RunningQueue) => boolean) | undefined;
  /** The list that was begun is done, and its buffer is about to go back. */
  walked?(ring: RunningQueue): void;
  /** The list that was begun is left, and its buffer is taken again, whole, when the ring goes on. */
  leave?(ring: RunningQueue): void;

  /** A batch is about to be taken. */
  batchBegun?(ring: RunningQueue): void;
  /**
   * Bytes of the buffer whose list is done that the device wrote, if {@link DevicePart.promisesHold}. Present where buffers
   * say so, which is known only when the batch may be returned: they are given back then.
   */
  readonly promised?: ((ring: RunningQueue) => number) | undefined;
  /** Whether what was promised of the batch came true; all of its buffers say 0 where not. */
  promisesHold?(ring: RunningQueue): boolean;
  /** All of the batch was taken, as far as the turn lasts; `ring.batchBuffers` says how many. */
  batchTaken?(ring: RunningQueue): void;
  /** Whether all discards are over that have to be before the batch is returned. Asked only where other threads discard. */
  mayReturn?(ring: RunningQueue): boolean;
  /** The batch cannot be returned yet. */
  batchKept?(ring: RunningQueue): void;
  /** The batch was returned; `late` when it was kept before. */
  batchReturned?(ring: RunningQueue, late: boolean): void;

  /** Threads that discard have news. */
  news?(): void;
  /** Whether nothing that was asked of it beside its rings is under way. Asked only where other threads discard. */
  settled?(): boolean;
  /** Its fields of a saved device. */
  readonly saved?: SavedFields;
}

/** Some fields of a saved device, by those who know what they mean. */
export interface SavedFields {
  /** What each has to be. The fields come from a stranger. */
  readonly shape: Fields;
  save(): object;
  /** Goes on with fields that have this shape, before any ring runs. */
  load(fields: object): void;
}

export function savedFields<F extends Fields>(
  shape: F,
  save: () => ShapedFields<F>,
  load: (fields: ShapedFields<F>) => void,
): SavedFields {
  return { shape, save, load: fields => load(fields as ShapedFields<F>) };
}
