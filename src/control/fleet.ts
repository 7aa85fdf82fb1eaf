/**
 * A fleet of hosts as the page shows it: hosts with their memory and guests, guests on their way and why, what was decided
 * last. How it is found out is fleet/'s; needs nothing of Node.
 */

/**
 * What a host is. `steady`: its guests' needs fit. `short`: they do not. `draining`: it is to be empty. `empty`: it drains
 * and has no guests left. `silent`: its report stands still. `unseen`: its report was found stored and has not changed since;
 * it may be of any age. `implausible`: its figures make no sense.
 */
export const FLEET_HOST_STATES = [
  'steady',
  'short',
  'draining',
  'empty',
  'silent',
  'unseen',
  'implausible',
] as const;
export type FleetHostState = (typeof FLEET_HOST_STATES)[number];

/** `none`: what answers looks at no fleet. `silent`: the fleet does not answer; all is as it was seen last. */
export const FLEET_STATES = ['none', 'known', 'silent'] as const;

export interface FleetGuestView {
  readonly name: string;
  readonly memoryBytes: number;
  /** What its host holds for it. */
  readonly residentBytes: number;
  readonly needBytes: number;
  /** What it writes to, a second; null where that is not known. */
  readonly dirtyBytesPerSecond: number | null;
  /** Why it cannot be moved; null where it can. */
  readonly obstacle: string | null;
  /** Where it is moving to; null where it is not. */
  readonly to: string | null;
}

export interface FleetHostView {
  readonly name: string;
  readonly state: FleetHostState;
  readonly leads: boolean;
  /** Since its report was seen to change; null where it was only found stored. What follows is of that report. */
  readonly ageMs: number | null;
  /** What guests and reserve may have together. */
  readonly memoryBytes: number;
  readonly reserveBytes: number;
  /** What the host holds for its guests. */
  readonly residentBytes: number;
  readonly needBytes: number;
  /** Kept for guests that are on their way to it. */
  readonly incomingBytes: number;
  /** By how much the needs of its guests are above what they may have. */
  readonly shortBytes: number;
  readonly guestCount: number;
  /** Null where they were not asked for, and are too many to be told unasked. */
  readonly guests: readonly FleetGuestView[] | null;
}

export interface FleetMove {
  readonly order: string;
  readonly guest: string;
  readonly from: string;
  readonly to: string;
  /** Null where the order cannot be read. */
  readonly why: string | null;
  /** In words of the migration, or of what comes before it. */
  readonly status: string;
  readonly sentBytes: number | null;
  readonly remainingBytes: number | null;
}

/** An event of the fleet's audit stream, in words. */
export interface FleetRecord {
  /** Of the stream: what comes later has a higher one. */
  readonly sequence: number;
  /** Wall clock of the server that stored it, milliseconds since the epoch. */
  readonly timeMs: number;
  readonly words: string;
}

export interface FleetPicture {
  readonly state: (typeof FLEET_STATES)[number];
  readonly name: string | null;
  /** Why the fleet does not answer. */
  readonly trouble: string | null;
  /** Since all of this was seen; null while nothing was. */
  readonly seenAgoMs: number | null;
  readonly leader: string | null;
  readonly epoch: number | null;
  /** Sorted by their names. */
  readonly hosts: readonly FleetHostView[];
  readonly moves: readonly FleetMove[];
  /** The newest of the audit stream, newest first. */
  readonly events: readonly FleetRecord[];
  /** Reports that made no sense, or were of a newer version. */
  readonly reportsRefused: number;
}

export interface FleetQuestion {
  /** The host whose guests are told, also where those of all hosts are too many. */
  readonly host?: string;
}

export const NO_FLEET: FleetPicture = {
  state: 'none',
  name: null,
  trouble: null,
  seenAgoMs: null,
  leader: null,
  epoch: null,
  hosts: [],
  moves: [],
  events: [],
  reportsRefused: 0,
};
