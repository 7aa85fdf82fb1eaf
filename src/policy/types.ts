/**
 * What a memory policy is told and what it answers: samples, settings, its memory between decisions, decisions and
 * their reasons. All of it is plain data that JSON can hold. Sizes are bytes, times milliseconds of a monotonic clock of
 * the caller's. How a decision comes about is decide.ts's.
 */

/** What a guest says of itself; null where it does not say. Counters run since its boot. */
export interface StatisticsRead {
  /** What its programs can still get. */
  readonly availableBytes: number | null;
  readonly freeBytes: number | null;
  readonly cacheBytes: number | null;
  readonly swapInBytes: number | null;
  readonly swapOutBytes: number | null;
  readonly majorFaults: number | null;
  readonly minorFaults: number | null;
  readonly oomKills: number | null;
  readonly allocationStalls: number | null;
  /** What the balloon held when the guest said so; null where it was not noted. */
  readonly balloonedBytes: number | null;
  /** How long ago the guest said so, by our own clock. Absent: only a change of what it says tells that it spoke. */
  readonly ageMs?: number | undefined;
  /** It cannot be asked more often than this, whatever settings say. */
  readonly periodMsMin?: number | undefined;
}

/**
 * What virtio's statistics do not have and protocols of other hypervisors do. Ports of other policies look at it; ours
 * never does.
 */
export interface ForeignStatistics {
  /** Memory that programs were promised, as Hyper-V's guests report it. */
  readonly committedBytes: number;
  /** Running total of the time in which programs stood still for want of memory, as Linux' PSI counts it. */
  readonly stallMs: number;
}

export interface GuestSample {
  readonly name: string;
  /** All of its memory, the balloon's included. */
  readonly memoryBytes: number;
  /** What its balloon should hold now. */
  readonly targetBytes: number;
  /** What its balloon holds. */
  readonly actualBytes: number;
  /** The part of it that the host has back by its own account; a guest of another hypervisor's: `actualBytes`. */
  readonly givenBytes: number;
  /** What the host holds for the guest; null where the host cannot tell. */
  readonly residentBytes: number | null;
  /** Another number after each start of the guest's driver. */
  readonly epoch: number;
  readonly statistics: StatisticsRead | null;
  readonly foreign?: ForeignStatistics;
}

export interface HostSample {
  readonly totalBytes: number;
  /** What programs of the host can still get: clean page cache counts as available. */
  readonly availableBytes: number;
  /** What is unused, not even as a cache. Ports of other policies look at it; ours does not. */
  readonly freeBytes: number;
  /** Kept for guests that are about to start. */
  readonly reservedBytes: number;
}

export interface Sample {
  /** Of a monotonic clock of the policy's own machine. */
  readonly atMs: number;
  readonly host: HostSample;
  readonly guests: readonly GuestSample[];
}

/** `auto`: the policy sets its target. `hold`: a person set it, it stays. `off`: none of the policy's business. */
export const MODES = ['auto', 'hold', 'off'] as const;
type Mode = (typeof MODES)[number];

export interface GuestSettings {
  /** What the guest keeps whatever happens; by default the larger of a kernel's floor and a quarter of its memory. */
  readonly minBytes?: number;
  /** The most that it gets; by default all of its memory. */
  readonly maxBytes?: number;
  /** Weight among guests; 1000 by default. */
  readonly shares?: number;
  readonly mode?: Mode;
}

export interface Settings {
  /** What the host keeps for itself; by default the larger of 1 GiB and a twentieth of its memory. */
  readonly reserveBytes?: number;
  /** How often statistics come; 1000 by default. Older than two and a half periods is not fresh. */
  readonly statisticsPeriodMs?: number;
  /** By name. */
  readonly guests: Readonly<Record<string, GuestSettings>>;
}

/**
 * What bound the allocation. `room`: the host has memory for all that every guest may have. `surplus`: its need, and a
 * part of what is left. `shares`: the guests need more than there is, it has its part by shares. `floor`: its part by
 * shares is below its floor. `fixed`: not the policy's to choose.
 */
export const BOUNDS = ['room', 'surplus', 'shares', 'floor', 'fixed'] as const;
type Bound = (typeof BOUNDS)[number];

/**
 * Why the target is not what the allocation would have. `step`: less is taken at a time. `small`: too small a change.
 * `blocked`: it moved the other way a moment ago. `harm`: it suffered after a shrink. `stale`: its statistics are old
 * or missing. `boot`: it has just started. `waiting`: another guest has not given the memory yet. `stuck`: its balloon
 * does not grow. `unknown`: its sample is not plausible.
 */
export const HELDS = [
  'no',
  'step',
  'small',
  'blocked',
  'harm',
  'stale',
  'boot',
  'waiting',
  'stuck',
  'hold',
  'off',
  'unknown',
] as const;
export type Held = (typeof HELDS)[number];

/** The answer for one guest with all that led to it. A size of -1 is not known. */
export interface GuestDecision {
  name: string;
  mode: Mode;
  /** What its balloon is to hold; -1: leave it alone. */
  targetBytes: number;
  memoryBytes: number;
  /** What it may keep by the target in force. */
  currentBytes: number;
  /** What it may keep by the new target. */
  keepBytes: number;
  /** What the allocation would have it keep. */
  wantBytes: number;
  floorBytes: number;
  maxBytes: number;
  /** What its programs use: the newest that is known. */
  usedBytes: number;
  /** What it has to have right now. */
  nowBytes: number;
  /** What it should have: its use of the last minute with head-room, and what was learned. */
  needBytes: number;
  /** Its need without what a burst may come to: the weight of what is left over goes by it. */
  steadyBytes: number;
  learnedBytes: number;
  /** What it can hold at the host whatever is decided now: it has not given the rest yet. */
  committedBytes: number;
  statisticsAgeMs: number;
  shares: number;
  bound: Bound;
  held: Held;
  /** The settings contradict each other: the minimum is above the maximum or the memory. */
  contradiction: boolean;
  /** It showed distress in its newest statistics. */
  distress: boolean;
  // Scratch of the allocation: bounds and weight of the fill under way, and its result.
  lowBytes: number;
  highBytes: number;
  weight: number;
  partBytes: number;
  // Scratch of the movement.
  fresh: boolean;
  booting: boolean;
  stuck: boolean;
  ours: boolean;
  requestBytes: number;
}

export interface HostDecision {
  totalBytes: number;
  availableBytes: number;
  reserveBytes: number;
  /** What the host uses besides its guests. */
  othersBytes: number;
  reservedBytes: number;
  /** What the guests may keep together. */
  budgetBytes: number;
  /** What guests keep about which the policy decides nothing. */
  fixedBytes: number;
  floorsBytes: number;
  needBytes: number;
  maxBytes: number;
  /** The guests need more than there is. */
  overcommitted: boolean;
  /** The floors alone are more than there is: no policy can help. */
  floorsAbove: boolean;
  /** A guest needs memory that others have to give first, or the host is short: surplus is taken at once. */
  hurry: boolean;
  /** Decided for guests and not promised yet, because the host has not got it. */
  waitingBytes: number;
  /** What was reserved is free at the host. */
  reservationReady: boolean;
}

/** What is remembered of a guest; -1 in a time: never. */
export interface GuestRecord {
  name: string;
  epoch: number;
  memoryBytes: number;
  bootAtMs: number;
  /** When the first statistics since boot that could be used were seen. */
  firstAtMs: number;
  /** Of the statistics that were seen last, so that frozen ones are known as such. */
  fingerprint: number;
  /** When statistics were taken last, by the time of the decision. */
  changedAtMs: number;
  /** When the guest said them, as far as that is known: from here their age counts. */
  saidAtMs: number;
  usedBytes: number;
  /** Bytes a second by which the use rose between the newest two statistics. */
  slopeBytes: number;
  /** The most that was used in the running window and in the one before. */
  peakBytes: number;
  formerPeakBytes: number;
  windowAtMs: number;
  needBytes: number;
  stalls: number;
  oomKills: number;
  swapOutBytes: number;
  majorFaults: number;
  /** Major faults a second, averaged while nothing was taken. */
  majorRate: number;
  distress: boolean;
  learnedBytes: number;
  learnedAtMs: number;
  harms: number;
  harmAtMs: number;
  shrunkFromBytes: number;
  shrunkAtMs: number;
  grownAtMs: number;
  /** The target that progress is measured against, and the least distance to it. */
  progressTargetBytes: number;
  progressBytes: number;
  progressAtMs: number;
  stuckAtMs: number;
  retries: number;
  retryAtMs: number;
  probing: boolean;
  /** Promised because it was free at the host, and perhaps not taken yet. */
  grantBytes: number;
  grantAtMs: number;
}

export interface PolicyMemory {
  version: 1;
  /** When the last decision was made; -1: never. */
  atMs: number;
  othersBytes: number;
  guests: GuestRecord[];
}

export interface Decision {
  atMs: number;
  host: HostDecision;
  /** In the order of the samples. */
  guests: GuestDecision[];
  memory: PolicyMemory;
}
