/**
 * What a daemon is started with, and what is had once it runs: the seam between the commands, which parse and
 * validate options, and the daemon, which acts on them. Nothing here knows about command lines or HTTP.
 */
import type { DeviceGuestStatus, DiscardMode } from '../control/contract.ts';
import type { Control } from '../control/operations.ts';
import type { BalloonedRegion, FollowedPages, FreePageStep } from './free-pages.ts';

/** Most serious first. */
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

/** One line of the daemon's log. */
export interface LogRecord {
  readonly level: LogLevel;
  /** A sentence without the guest's name and without a full stop. */
  readonly message: string;
  /** The guest that it is about, if it is about one. */
  readonly guest?: string;
  /** Further facts; units last in the names. */
  readonly detail?: Readonly<Record<string, string | number | boolean | null>>;
  readonly error?: Error;
}

/** The longest boot grace; a guest that needs more is better started without a target. */
export const BOOT_GRACE_MS_MAX = 3_600_000;

/** One guest's socket. Exactly one of {@link socketPath} and {@link fd} is given. */
export interface GuestOptions {
  /** Unique among the daemon's guests. */
  readonly name: string;
  /** Where the daemon listens for the front-end. A stale socket is replaced, a living one refused. */
  readonly socketPath?: string;
  /** A connected or listening Unix socket that the daemon inherited and owns from now on. */
  readonly fd?: number;
  /** Multiple of 4096. */
  readonly targetBytes: number;
  /** The ABI that is offered, for example `virtio`. */
  readonly profile: string;
  readonly discard: DiscardMode;
  /** Features that are not offered although the profile has them. */
  readonly without: readonly string[];
  /** Interval at which statistics are asked for; 0 for never. */
  readonly pollIntervalMs: number;
  /** How long a driver that has just started does not see the target, unless it answers for its statistics before. */
  readonly bootGraceMs?: number;
  /** Times the decoding of lists, for benchmarks. */
  readonly timed?: boolean;
}

export interface DaemonOptions {
  readonly guests: readonly GuestOptions[];
  readonly log: (record: LogRecord) => void;
}

/** What a migration asks of a guest's device. */
export interface DeviceMoves {
  balloon(name: string): Promise<readonly BalloonedRegion[]>;
  /** Saves the device of a guest whose rings have stopped. */
  save(name: string): Promise<Uint8Array>;
  /** @throws AerostatError AEROSTAT_DEVICE_STATE when it was not saved by us, or not for this guest's memory */
  load(name: string, saved: Uint8Array): Promise<void>;
  /** Who hears of free pages from the next start on. */
  follow(name: string, followed: FollowedPages | null): Promise<void>;
  freePages(name: string, step: FreePageStep): Promise<void>;
}

export interface Daemon {
  readonly control: Control<DeviceGuestStatus>;
  readonly moves: DeviceMoves;
  /** Takes another guest in, and sends one away that may be there. */
  open(guest: GuestOptions): Promise<void>;
  dismiss(name: string): Promise<void>;
  readonly version: string;
  /** Settles with the reason when a thread of the daemon died, after which some guest is not served; never rejects. */
  readonly failed: Promise<Error>;
  /** Drains what is pending, stops the rings and closes the sockets; safe to call twice. */
  close(): Promise<void>;
}

export type StartDaemon = (options: DaemonOptions) => Promise<Daemon>;
