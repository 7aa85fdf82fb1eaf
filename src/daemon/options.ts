/**
 * What a daemon is started with, and what is had once it runs: the seam between the commands, which parse and validate
 * options, and the daemon, which acts on them. Nothing here knows about command lines or HTTP.
 */
import type { DeviceGuestStatus } from '../control/contract.ts';
import type { Control } from '../control/operations.ts';
import type { GuestOptions, LogRecord } from '../hosting/options.ts';
import type { HandedKeeper, Predecessor } from './predecessor.ts';
import type { Successor } from './successor.ts';

export interface DaemonOptions {
  readonly guests: readonly GuestOptions[];
  readonly log: (record: LogRecord) => void;
  /** The socket of a keeper, where guests outlive the daemon, or `systemd` for the service manager. */
  readonly keep?: string | undefined;
  /**
   * Called when what the caller needs next may be loaded: when the threads know of all guests, or serve them if those are
   * kept.
   */
  readonly meanwhile?: (() => void) | undefined;
  /** Where it is written how guests are steered, for the next daemon. */
  readonly stateDirectory?: string | undefined;
  /** This daemon waits, with all loaded, until the one that the keeper serves has ended. */
  readonly standby?: Standby | undefined;
  /** The daemon whose place this one takes. */
  readonly predecessor?: Predecessor | undefined;
}

export interface Standby {
  /** Ends the wait; `startDaemon` throws its reason. */
  readonly interrupt: AbortSignal;
  /** Called when it is loaded and waits. */
  readonly waits: () => void;
  /** Which guests are to be served then, of which it may have heard since. */
  readonly guests: () => readonly GuestOptions[];
}

export interface Daemon {
  readonly control: Control<DeviceGuestStatus>;
  /** Takes another guest in, and sends one away that may be there. */
  open(guest: GuestOptions): Promise<void>;
  dismiss(name: string): Promise<void>;
  readonly version: string;
  /** When all guests that it was started with were served, in milliseconds of this process. */
  readonly servedMs: number;
  /** Settles with the reason when a thread of the daemon died, after which some guest is not served; never rejects. */
  readonly failed: Promise<Error>;
  /** Hands all guests over to a process that serves them then. When it rejects, they are served here, and that process is gone. */
  handOver(successor: Successor): Promise<void>;
  /** Names of its guests. @throws AerostatError AEROSTAT_HAND_OVER when they cannot be handed over */
  readonly toHandOver: readonly string[];
  /** What keeps them. @throws AerostatError AEROSTAT_HAND_OVER when nothing does */
  readonly keeper: HandedKeeper;
  /** Drains what is pending, stops the rings and closes the sockets; safe to call twice. */
  close(): Promise<void>;
}

export type StartDaemon = (options: DaemonOptions) => Promise<Daemon>;
