/** What a guest is hosted with, and the lines of the log that hosting writes. */
import type { DiscardMode } from '../control/contract.ts';
import type { ArrivingShared } from '../memory/arriving-memory.ts';

/** Most serious first. */
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

/** One line of the log. */
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

/** As HyperAlloc has it: memory that is free for less is used again too often to be worth the faults. */
export const EVICTION_MS_DEFAULT = 5_000;
/** The longest that free frames of a shared allocator wait to be evicted. */
export const EVICTION_MS_MAX = 3_600_000;

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
  /** Times the decoding of lists: for benchmarks, which ask for it by `GuestThreads.decodeMs`. No operator can set it. */
  readonly timed?: boolean;
  /** Its memory, one region at address 0, comes while it runs; a machine's. */
  readonly arriving?: ArrivingShared;
  /** How often free frames of a shared allocator are evicted; 0 for never, {@link EVICTION_MS_DEFAULT} unless said otherwise. */
  readonly evictionMs?: number;
}
