/** What the main thread and a guest's thread say to each other; see threads/worker-client.ts. */

import type { CommandAnswers } from '../embedded/answers.ts';
import type { CommandName, GuestCommand } from '../embedded/commands.ts';
import type { EmbeddedGuestOptions, GuestEventName, SavedGuest } from '../embedded/options.ts';
import type { ArrivingShared } from '../memory/arriving-memory.ts';
import type { MappedSlots } from '../migration/kernel-dirty-log.ts';
import type { PauseStep } from '../migration/pause.ts';
import type { ThreadAnswer } from '../threads/worker-client.ts';

/** What a guest's thread starts with. It owns the descriptor. */
export interface GuestThreadData {
  readonly wakeFd: number;
}

/** The memory of a guest that is to come: one region at address 0. */
export interface GuestMemoryFile {
  /** The thread's. */
  readonly fd: number;
  /** Bytes. */
  readonly size: number;
  readonly adviseHugePages: boolean;
  /** The words of the log that the guest keeps, unless the kernel keeps one. */
  readonly log: Int32Array;
  /** Pages of it may come while the guest runs. */
  readonly arriving: ArrivingShared | undefined;
}

/** What is known of a guest that is on its way. */
export interface GuestPreparing {
  /** The connection to the device, the thread's; null where it is there already. */
  readonly socketFd: number | null;
  readonly options: GuestBeginning['options'];
  readonly keepsLog: boolean;
  /** The guest as it was while it ran. */
  readonly guest: Uint8Array;
}

/** The guest that a thread runs in the memory that it was given. */
export interface GuestBeginning {
  /** The connection to the device, the thread's; null where it is there already: see {@link GuestPreparing}. */
  readonly socketFd: number | null;
  readonly options: Omit<EmbeddedGuestOptions, 'socketPath' | 'onEvent' | 'memoryBytes'>;
  /** The guest keeps the log, not the kernel. */
  readonly keepsLog: boolean;
  /** A guest that goes on, rather than one that boots. */
  readonly saved: SavedGuest | null;
}

/** A guest that stands still. */
interface StoodStill {
  /** The pages of rings, lists and messages: all that driver and device write beside the guest's own code. */
  readonly driverPages: readonly { readonly pfn: number; readonly pages: number }[];
  readonly spent: readonly PauseStep[];
}

export interface GuestThreadRequests {
  memory: { args: GuestMemoryFile; result: null };
  /** Makes ready for a guest that is on its way; may be asked again, for the guest as it was later. */
  prepare: { args: GuestPreparing; result: readonly PauseStep[] };
  /** Answered when the guest runs, or stands where it was saved. */
  begin: { args: GuestBeginning; result: readonly PauseStep[] };
  /** Lets a guest go on that was saved. */
  resumeLoaded: { args: null; result: readonly PauseStep[] };
  command: { args: { command: GuestCommand }; result: CommandAnswers[CommandName] };
  pause: { args: null; result: StoodStill };
  resume: { args: null; result: null };
  throttle: { args: { share: number }; result: null };
  /** Answered when it has its turn: how long the thread lets others wait. */
  turn: { args: null; result: null };
  /** Answered when saving will be fast. */
  warmUp: { args: null; result: null };
  /** The guest alone, as it is while it runs. */
  saveAhead: { args: null; result: Uint8Array };
  save: { args: null; result: SavedGuest & { readonly spent: readonly PauseStep[] } };
  /** Where all of the memory is mapped for the guest's stores. */
  mappings: { args: null; result: readonly MappedSlots[] };
  /** Switches the guest off. */
  end: { args: null; result: null };
  /** Ends the thread. */
  close: { args: null; result: null };
}

export type GuestThreadEvent =
  | { readonly kind: 'event'; readonly event: GuestEventName; readonly message: string }
  /** The guest has ended by itself: a page lost its content, or our own code is wrong. */
  | { readonly kind: 'ended'; readonly code: string; readonly message: string };

export type FromGuestThread = ThreadAnswer | GuestThreadEvent;
