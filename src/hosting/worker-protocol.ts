/**
 * What the main thread and a data-plane thread say to each other. Requests go over the worker's port together
 * with a ring of its wake-up descriptor; answers, events and log records come back over the port.
 */
import type { MessagePort } from 'node:worker_threads';
import type { DeviceGuestStatus, GuestEvent, StatisticsSample } from '../control/contract.ts';
import type { AnswerOf, ArgsOf, ThreadOperation } from '../control/operations.ts';
import type { LeaseRenewalOrder } from '../control/policy.ts';
import type { KeeperKind } from '../keeping/guests-keeper.ts';
import type { ThreadAnswer } from '../threads/worker-client.ts';
import type { BalloonedRegion, FollowedPages, FreePageCommand } from './free-pages.ts';
import type { MapSources } from './map-sources.ts';
import type { GuestOptions, LogRecord } from './options.ts';

/** How threads reach what keeps guests: a socket that stays open as long as the process lives. */
export interface KeeperPlace {
  readonly kind: KeeperKind;
  readonly fd: number;
  /** Of a service manager's store. */
  readonly room?: SharedArrayBuffer | undefined;
}

/** What a data-plane thread starts with. */
export interface DataThreadData {
  /** An eventfd; the thread owns this descriptor. */
  readonly wakeFd: number;
  /** Rings the thread as long as others do: its number stays open until discarding threads have ended. */
  readonly bellFd: number;
  readonly discardControl: SharedArrayBuffer;
  readonly discardPort: MessagePort;
  readonly keeper?: KeeperPlace | undefined;
}

/** A guest's socket, opened by the main thread; the data-plane thread owns the descriptor. */
export interface GuestSocket {
  readonly fd: number;
  readonly listening: boolean;
  /** What a keeper had of the guest: descriptors, by the numbers that it keeps them under. */
  readonly kept?: readonly (readonly [number: number, fd: number])[];
  /** A living daemon hands it over, and takes it back if it cannot go on here: nothing of it is changed then. */
  readonly handedOver?: boolean;
}

/** Operations of the control plane that the guest's thread answers. */
type OperationRequests = {
  [Name in ThreadOperation]: {
    args: { name: string; args: ArgsOf<Name> | undefined };
    result: AnswerOf<Name, DeviceGuestStatus>;
  };
};

/** The requests by name: what they take and what they give. */
export interface DataThreadRequests extends OperationRequests {
  openGuest: { args: { options: GuestOptions; socket: GuestSocket }; result: null };
  closeGuest: { args: { name: string }; result: null };
  /** Leaves it to another process; the asker closes the descriptors in the answer. */
  leaveGuest: { args: { name: string }; result: (readonly [number: number, fd: number])[] };
  guests: { args: null; result: readonly DeviceGuestStatus[] };
  samples: { args: null; result: Readonly<Record<string, StatisticsSample>> };
  renewLeases: { args: LeaseRenewalOrder; result: number };
  /** The asker closes the descriptors in the answer. */
  mapSources: { args: { name: string }; result: MapSources };
  /** The bitmap of ballooned pages of each region, which is shared memory. */
  balloon: { args: { name: string }; result: readonly BalloonedRegion[] };
  /** Maps the guest's memory, which the device will need soon. */
  mapMemory: { args: { name: string }; result: null };
  saveDevice: { args: { name: string }; result: Uint8Array };
  loadDevice: { args: { name: string; saved: Uint8Array }; result: null };
  followFreePages: { args: { name: string; followed: FollowedPages | null }; result: null };
  freePages: { args: { name: string; step: FreePageCommand }; result: null };
  addDiscardPort: { args: { port: MessagePort }; result: null };
  /** Milliseconds that decoding lists took, of a guest whose options have it timed. */
  decodeMs: { args: { name: string }; result: number };
  thread: { args: null; result: { gcPauseMaxMs: number } };
  /** See `rehearsal.ts`. */
  rehearse: { args: null; result: null };
  /** Drains, stops rings, closes sockets, and ends the thread. */
  close: { args: null; result: null };
}

export type RequestName = keyof DataThreadRequests;

export type DataThreadRequest = {
  [K in RequestName]: { readonly id: number; readonly name: K; readonly args: DataThreadRequests[K]['args'] };
}[RequestName];

export type FromDataThread =
  | ThreadAnswer
  | { readonly kind: 'event'; readonly event: GuestEvent }
  | { readonly kind: 'log'; readonly record: LogRecord };
