/**
 * The vocabulary of steering guests: what is said of a daemon, its host and its guests, and what can be changed. What
 * can be asked for is declared in operations.ts. Sizes are bytes, times milliseconds, and what is not known is null,
 * never guessed.
 */

import type { DiscardMode } from '../device/discard-mode.ts';
import type { Durations } from '../sys/durations.ts';
import type { SilenceRule } from './policy.ts';

export { BENCH_DISCARD_MODES, DISCARD_MODES, type DiscardMode } from '../device/discard-mode.ts';
export { DURATION_BOUNDS_MS, type Durations } from '../sys/durations.ts';

/** What a guest's memory lies in: memory of the host, huge pages set aside for that, or a file on a disk. */
export const MEMORY_PLACES = ['memory', 'huge-pages', 'disk'] as const;
export type MemoryPlace = (typeof MEMORY_PLACES)[number];

export const GUEST_STATES = ['waiting', 'no-driver', 'running', 'paused', 'silent'] as const;

/**
 * - `waiting`: no front-end is connected, or the guest's QEMU has no balloon device;
 * - `no-driver`: one is, and no driver has started its rings yet;
 * - `running`: the driver's rings are served;
 * - `paused`: the hypervisor has stopped the guest, or disabled its rings, and they may go on;
 * - `silent`: the rings are there, and the guest does not answer: its front-end is stopped or hangs.
 */
export type GuestState = (typeof GUEST_STATES)[number];

/** Names of the virtio and balloon features that were negotiated, for example `stats-vq`. */
type FeatureName = string;

/** Running totals since the guest's socket was opened; every one only ever rises. */
export interface GuestCounters {
  /** Buffers taken from all queues. */
  readonly buffers: number;
  readonly inflateBuffers: number;
  readonly deflateBuffers: number;
  readonly reportingBuffers: number;
  readonly hintBuffers: number;
  readonly statsBuffers: number;
  /** How long buffers of the inflate and deflate queues were with us: what the guest's driver waits for. */
  readonly acknowledgeTimes: Durations;
  /** Bytes of page lists decoded. */
  readonly listBytes: number;
  /** Pages named in inflate lists. */
  readonly pages: number;
  readonly deflatedPages: number;
  readonly reportedPages: number;
  readonly hintedPages: number;
  /** Deflated pages that were still pending and so kept their memory. */
  readonly keptPages: number;
  /** Maximal runs that inflated and reported pages were joined into. */
  readonly runs: number;
  /** Calls that gave memory back to the host. */
  readonly punches: number;
  readonly punchFailures: number;
  /** Transparent huge pages of which a part was given back, so that the host split them, where it is known to have such. */
  readonly hugePagesCut: number;
  /** Milliseconds that those calls took together, whichever thread made them. */
  readonly discardMs: number;
  /** How long each of those that succeeded took. */
  readonly discardTimes: Durations;
  /** Interrupts sent to the guest. */
  readonly notifications: number;
  /** Kicks received from the guest. */
  readonly kicks: number;
  /** Buffers refused as nonsense and returned with length 0. */
  readonly badBuffers: number;
  /** Pages in lists that are no memory of the guest's. */
  readonly badPages: number;
  /** Deflated pages that an account which began in the middle does not have. */
  readonly unknownPages: number;
  /** Requests of the front-end that were refused, or said what cannot be. */
  readonly badRequests: number;
  /** Rings stopped because their indices were nonsense. */
  readonly brokenRings: number;
  readonly resets: number;
  readonly connections: number;
}

export type HintState = 'unsupported' | 'idle' | 'requested' | 'running' | 'stopped' | 'done';

export interface HintStatus {
  readonly state: HintState;
  /** The session's command id, or null when there was none yet. */
  readonly commandId: number | null;
  /** Distinct bytes hinted in this session. */
  readonly hintedBytes: number;
  /** Runs of hinted pages in this session. */
  readonly ranges: number;
  /** What the guest keeps out of use until the session is done: up to this, for it may take some back in need. */
  readonly heldBytes: number;
  /** When the session is ended by its time limit; null for one that has none. */
  readonly endsInMs: number | null;
}

/** How the last change of target went; for benches and `set --wait`. */
export interface TargetProgress {
  /** From the request to the guest's own completion (`actual` at the target); null while it is under way. */
  readonly reachedMs: number | null;
  /** From the request until nothing was pending any more after that; null while it is under way. */
  readonly drainedMs: number | null;
}

/** Whose a target is. */
export interface TargetOwner {
  /** `start`: the daemon's, since it started. `person`: of an order without a lease. `policy`: of one with a lease. */
  readonly by: 'start' | 'person' | 'policy';
  /** Until when a policy's lease lasts; wall clock, milliseconds since the epoch. Null for the others. */
  readonly untilMs: number | null;
  /** The lease has run out: the policy is silent. */
  readonly lapsed: boolean;
}

/** A balloon that gets no nearer to its target: it holds `actualBytes` of `targetBytes`. */
export interface StuckStatus {
  /** Wall clock, milliseconds since the epoch. */
  readonly sinceMs: number;
  readonly forMs: number;
  /** The guest gave memory and took it back again and again; its driver is shown less than the target. */
  readonly swings: boolean;
  /** When its driver is shown all of the target again; null while it is, or where it does not swing. */
  readonly retryInMs: number | null;
}

/** A guest, on our device or on another's. Null is what its hypervisor does not tell. */
export interface GuestStatus {
  readonly name: string;
  /** Of its device, where it has a socket of its own; for a guest of QEMU's, of its monitor. */
  readonly socketPath: string | null;
  readonly connected: boolean;
  /** Whether it can answer; null where its hypervisor does not tell. */
  readonly state: GuestState | null;
  readonly profile: string | null;
  readonly features: readonly FeatureName[] | null;
  readonly discard: DiscardMode | null;
  readonly memoryBytes: number | null;
  /** What the memory lies in; `disk` where any of it is in a file on a disk. Null while the guest has shown none. */
  readonly memoryPlace: MemoryPlace | null;
  /** Whether its front-end can no longer shrink its memory, which would end the daemon. Null while it has shown none. */
  readonly memorySealed: boolean | null;
  /** What the balloon should hold: what was wished for last. */
  readonly targetBytes: number | null;
  /** What the guest is to keep, where the target was given like that: then it follows memory that is added or removed. */
  readonly wishedMemoryBytes: number | null;
  /** Whose the target is. */
  readonly targetOwner: TargetOwner | null;
  /** What the driver is shown of that: less while the guest cannot hold it, and during its boot grace. */
  readonly shownTargetBytes: number | null;
  /** What the guest says its balloon holds; reported, never trusted. */
  readonly actualBytes: number | null;
  /**
   * The host's own account of what the guest gave away and has not taken back; null when it began in the middle, as after
   * a restart of the daemon, and until the next driver starts.
   */
  readonly balloonedBytes: number | null;
  /**
   * The part of that which the host keeps, because the guest has not given all of the huge pages that it lies in: only
   * whole ones can be given back. It may be so for as long as the balloon is as it is. Null where the whole is.
   */
  readonly incompleteBytes: number | null;
  /** What was in the balloon of memory that was taken out of the guest since: it counts no more, and does when it comes back. */
  readonly removedBytes: number | null;
  /** The guest's lists name whole pieces of so many bytes: its balloon can come no nearer to a target than that. */
  readonly granularityBytes: number | null;
  /** Given away and acknowledged, not yet given back to the host. */
  readonly pendingBytes: number | null;
  /** Total given back to the host for inflation since the socket was opened. */
  readonly discardedBytes: number | null;
  /** Total given back to the host for free page reporting since the socket was opened. */
  readonly reportedBytes: number | null;
  /**
   * What the host holds for the guest right now. Of memory in a file on disk: the blocks that the file has there; what of it
   * is in the page cache comes besides.
   */
  readonly residentBytes: number | null;
  readonly counters: GuestCounters | null;
  readonly progress: TargetProgress | null;
  /** Null while the balloon is at its target, or on its way to it. */
  readonly stuck: StuckStatus | null;
  readonly hint: HintStatus | null;
  readonly lastError: string | null;
}

/** The status of a guest of which only `known` is known. */
export const statusOf = (name: string, known: Partial<GuestStatus>): GuestStatus => ({
  name,
  socketPath: null,
  connected: false,
  state: null,
  profile: null,
  features: null,
  discard: null,
  memoryBytes: null,
  memoryPlace: null,
  memorySealed: null,
  targetBytes: null,
  wishedMemoryBytes: null,
  targetOwner: null,
  shownTargetBytes: null,
  actualBytes: null,
  balloonedBytes: null,
  removedBytes: null,
  incompleteBytes: null,
  granularityBytes: null,
  pendingBytes: null,
  discardedBytes: null,
  reportedBytes: null,
  residentBytes: null,
  counters: null,
  progress: null,
  stuck: null,
  hint: null,
  lastError: null,
  ...known,
});

/** What is known of every guest on our own device, connected or not. */
type KnownOfOurs =
  | 'state'
  | 'profile'
  | 'features'
  | 'discard'
  | 'targetBytes'
  | 'shownTargetBytes'
  | 'granularityBytes'
  | 'pendingBytes'
  | 'discardedBytes'
  | 'reportedBytes'
  | 'counters'
  | 'hint';

/** A guest on our own device. */
export type DeviceGuestStatus = GuestStatus & {
  readonly [Field in KnownOfOurs]: NonNullable<GuestStatus[Field]>;
};

/** Statistics of the guest by name; bytes for sizes, counts otherwise; null when the guest did not say. */
export interface GuestStatistics {
  readonly swapInBytes: number | null;
  readonly swapOutBytes: number | null;
  readonly majorFaults: number | null;
  readonly minorFaults: number | null;
  readonly freeBytes: number | null;
  readonly totalBytes: number | null;
  readonly availableBytes: number | null;
  readonly cacheBytes: number | null;
  readonly hugetlbAllocations: number | null;
  readonly hugetlbFailures: number | null;
  readonly oomKills: number | null;
  readonly allocationStalls: number | null;
  readonly asyncScannedPages: number | null;
  readonly directScannedPages: number | null;
  readonly asyncReclaimedPages: number | null;
  readonly directReclaimedPages: number | null;
}

export interface StatisticsSample {
  readonly statistics: GuestStatistics;
  /** Age of the sample; null when the guest never sent one. */
  readonly ageMs: number | null;
  /**
   * What the guest's balloon held when it took the sample, the least where the balloon moved meanwhile; null where that is
   * not known. The statistics add up with this, and with no later figure.
   */
  readonly balloonedBytes: number | null;
}

export interface DaemonStatus {
  readonly version: string;
  readonly pid: number;
  /** Milliseconds since the epoch; it stays the same whatever becomes of the clock. */
  readonly startedAtMs: number;
  readonly uptimeMs: number;
  readonly residentBytes: number;
  readonly cpuUserMs: number;
  readonly cpuSystemMs: number;
  /** Longest pause of a data-plane thread for garbage collection. */
  readonly gcPauseMaxMs: number;
  /** Descriptors of the process, and how many it may have; null where its guests are others', or the kernel does not tell. */
  readonly descriptors: { readonly open: number; readonly max: number } | null;
  /** Whether a keeper has what its guests need when it ends; null where it serves none. */
  readonly kept: boolean | null;
}

/** A process that serves in place of the one that was asked, which ends. */
export interface UpgradeAnswer {
  readonly pid: number;
  readonly version: string;
  /** That were handed over. */
  readonly guests: number;
  /** From when the first of them stood still until all were served. */
  readonly handOverMs: number;
}

/** Share of time in which programs waited for memory (pressure stall information). */
export interface HostPressure {
  /** Some program waited, over the last 10 and 60 seconds. */
  readonly some10Percent: number;
  readonly some60Percent: number;
  /** All programs that could have run waited. */
  readonly full10Percent: number;
  readonly full60Percent: number;
}

export interface HostStatus {
  readonly totalBytes: number | null;
  /** What programs can still get without swapping. */
  readonly availableBytes: number | null;
  /** Memory in shared files, where guests' memory is. */
  readonly sharedBytes: number | null;
  readonly swapTotalBytes: number | null;
  readonly swapFreeBytes: number | null;
  readonly pressure: HostPressure | null;
}

export type GuestEventType =
  | 'connected'
  | 'disconnected'
  | 'ready'
  | 'reset'
  | 'state'
  | 'target'
  | 'actual'
  | 'target-reached'
  | 'stuck'
  | 'statistics'
  | 'hint'
  | 'migration'
  | 'policy'
  | 'error';

export interface GuestEvent {
  readonly guest: string;
  readonly type: GuestEventType;
  /** Wall clock, milliseconds since the epoch. */
  readonly timeMs: number;
  readonly detail: Readonly<Record<string, string | number | boolean | null>>;
}

export type HintAction = 'start' | 'stop' | 'done';

export interface HintOrder {
  readonly action: HintAction;
  /** Of a session that starts: when the daemon ends it if its caller has not. */
  readonly limitMs?: number;
}

/** What a guest with a request queue can be asked for. */
export const GUEST_REQUESTS = ['unused-pages', 'drop-cache', 'shrink'] as const;
export type GuestRequest = (typeof GUEST_REQUESTS)[number];

export interface RequestAnswer {
  readonly request: GuestRequest;
  /** Distinct bytes that the guest named as unused. They are counted, never discarded. */
  readonly unusedBytes: number;
  /** Page lists of the answer. */
  readonly lists: number;
  /** From the request to the end of the answer. */
  readonly elapsedMs: number;
}

/** What a policy orders is its own for so long, unless it renews it. */
export interface LeaseOrder {
  readonly forMs: number;
  /** What becomes of the target when it is not renewed: it stays, or all memory is the guest's again. */
  readonly onSilence: SilenceRule;
}
/** What is to change of a guest. It is one step: all of it is done, or nothing. */
export interface GuestChanges {
  /** What the balloon should hold, in whole pages; kept for later when the guest is not connected. */
  readonly targetBytes?: number;
  /** What the guest is to keep instead: the target follows when memory is added to it or removed from it. */
  readonly memoryBytes?: number;
  readonly discard?: DiscardMode;
  /** Interval at which statistics are asked for; 0 turns polling off. */
  readonly pollIntervalMs?: number;
  /** Of a target that a policy orders. Without it, a person did. */
  readonly lease?: LeaseOrder;
  /** Sets the target also where the guest says that it cannot spare so much. */
  readonly force?: boolean;
  /** The definition of a domain of libvirt keeps target and interval, too. */
  readonly persist?: boolean;
}
