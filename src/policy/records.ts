/**
 * The records that decisions are written into. A caller with two decisions, one that it reads and one that is written,
 * makes no new record while its guests stay the same.
 */
import type { Decision, GuestDecision, GuestRecord, HostDecision, PolicyMemory } from './types.ts';

/** In a time: it has not happened. Other times before the clock's beginning are times. */
export const NEVER = -1;

const newGuestRecord = (name: string): GuestRecord => ({
  name,
  epoch: -1,
  memoryBytes: -1,
  bootAtMs: -1,
  firstAtMs: -1,
  fingerprint: -1,
  changedAtMs: -1,
  saidAtMs: -1,
  usedBytes: -1,
  slopeBytes: 0,
  peakBytes: -1,
  formerPeakBytes: -1,
  windowAtMs: -1,
  needBytes: -1,
  stalls: -1,
  oomKills: -1,
  swapOutBytes: -1,
  majorFaults: -1,
  majorRate: -1,
  distress: false,
  learnedBytes: 0,
  learnedAtMs: -1,
  harms: 0,
  harmAtMs: -1,
  shrunkFromBytes: -1,
  shrunkAtMs: -1,
  grownAtMs: -1,
  progressTargetBytes: -1,
  progressBytes: -1,
  progressAtMs: -1,
  stuckAtMs: -1,
  retries: 0,
  retryAtMs: -1,
  probing: false,
  grantBytes: 0,
  grantAtMs: -1,
});

export const newPolicyMemory = (): PolicyMemory => ({ version: 1, atMs: -1, othersBytes: -1, guests: [] });

const newGuestDecision = (): GuestDecision => ({
  name: '',
  mode: 'auto',
  targetBytes: -1,
  memoryBytes: -1,
  currentBytes: -1,
  keepBytes: -1,
  wantBytes: -1,
  floorBytes: 0,
  maxBytes: 0,
  usedBytes: -1,
  nowBytes: 0,
  needBytes: 0,
  steadyBytes: 0,
  learnedBytes: 0,
  committedBytes: 0,
  statisticsAgeMs: -1,
  shares: 0,
  bound: 'fixed',
  held: 'no',
  contradiction: false,
  distress: false,
  lowBytes: 0,
  highBytes: 0,
  weight: 0,
  partBytes: 0,
  fresh: false,
  booting: false,
  stuck: false,
  ours: false,
  requestBytes: 0,
});

const newHostDecision = (): HostDecision => ({
  totalBytes: 0,
  availableBytes: 0,
  reserveBytes: 0,
  othersBytes: 0,
  reservedBytes: 0,
  budgetBytes: 0,
  fixedBytes: 0,
  floorsBytes: 0,
  needBytes: 0,
  maxBytes: 0,
  overcommitted: false,
  floorsAbove: false,
  hurry: false,
  waitingBytes: 0,
  reservationReady: true,
});

export const newDecision = (): Decision => ({
  atMs: -1,
  host: newHostDecision(),
  guests: [],
  memory: newPolicyMemory(),
});

/**
 * Writes a fraction into each number of a record that is thrown away. V8 keeps a number in the record itself, and writes
 * it there without an allocation, from the first fraction on that any record of that kind held; done once for each kind
 * before there are others, all of them are alike from the beginning.
 */
export function holdFractions(record: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(record)) if (typeof value === 'number') record[name] = 0.5;
}

for (const record of [newGuestRecord(''), newGuestDecision(), newHostDecision()])
  holdFractions(record as unknown as Record<string, unknown>);

/** Makes both lists of `decision` as long as `count`; records that are there stay. */
export function sizeRecords(decision: Decision, count: number): void {
  const { guests, memory } = decision;
  while (guests.length < count) guests.push(newGuestDecision());
  guests.length = count;
  while (memory.guests.length < count) memory.guests.push(newGuestRecord(''));
  memory.guests.length = count;
}

/** The times in a record of memory, which move together when the clock begins anew. */
const TIMES = [
  'bootAtMs',
  'firstAtMs',
  'changedAtMs',
  'saidAtMs',
  'windowAtMs',
  'learnedAtMs',
  'harmAtMs',
  'shrunkAtMs',
  'grownAtMs',
  'progressAtMs',
  'stuckAtMs',
  'retryAtMs',
  'grantAtMs',
] as const;

/** Moves all times of `guest` by `byMs`, so that what was five seconds ago still is. */
export function shiftTimes(guest: GuestRecord, byMs: number): void {
  for (const time of TIMES) {
    if (guest[time] === NEVER) continue;
    const shifted = guest[time] + byMs;
    guest[time] = shifted === NEVER ? NEVER - 1 : shifted;
  }
}

/** A guest that was never seen. */
export const UNSEEN: Readonly<GuestRecord> = newGuestRecord('');

/** Copies what is remembered of one guest. */
export function copyMemory(to: GuestRecord, from: Readonly<GuestRecord>, name: string): void {
  // One by one: Object.assign would allocate a number for each of them.
  to.name = name;
  to.epoch = from.epoch;
  to.memoryBytes = from.memoryBytes;
  to.bootAtMs = from.bootAtMs;
  to.firstAtMs = from.firstAtMs;
  to.fingerprint = from.fingerprint;
  to.changedAtMs = from.changedAtMs;
  to.saidAtMs = from.saidAtMs;
  to.usedBytes = from.usedBytes;
  to.slopeBytes = from.slopeBytes;
  to.peakBytes = from.peakBytes;
  to.formerPeakBytes = from.formerPeakBytes;
  to.windowAtMs = from.windowAtMs;
  to.needBytes = from.needBytes;
  to.stalls = from.stalls;
  to.oomKills = from.oomKills;
  to.swapOutBytes = from.swapOutBytes;
  to.majorFaults = from.majorFaults;
  to.majorRate = from.majorRate;
  to.distress = from.distress;
  to.learnedBytes = from.learnedBytes;
  to.learnedAtMs = from.learnedAtMs;
  to.harms = from.harms;
  to.harmAtMs = from.harmAtMs;
  to.shrunkFromBytes = from.shrunkFromBytes;
  to.shrunkAtMs = from.shrunkAtMs;
  to.grownAtMs = from.grownAtMs;
  to.progressTargetBytes = from.progressTargetBytes;
  to.progressBytes = from.progressBytes;
  to.progressAtMs = from.progressAtMs;
  to.stuckAtMs = from.stuckAtMs;
  to.retries = from.retries;
  to.retryAtMs = from.retryAtMs;
  to.probing = from.probing;
  to.grantBytes = from.grantBytes;
  to.grantAtMs = from.grantAtMs;
}
