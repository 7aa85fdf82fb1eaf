/**
 * Reads one guest's sample: is it sane, are its statistics new, what do its programs use, is it in distress, has it just
 * booted. Nothing that a guest says is believed beyond what the host sees: what is resident bounds what is used. What
 * follows from it is need.ts's.
 */
import { holdFractions, NEVER } from './records.ts';
import type { GuestDecision, GuestRecord, GuestSample, StatisticsRead } from './types.ts';
import { MIB } from './units.ts';

/** After a boot nothing is taken for so long: a system that starts uses more than it will. */
const BOOT_GRACE_MS = 60_000;
/** Statistics older than so many of their periods are not fresh. */
const FRESH_PERIODS = 2.5;
/** Windows of the peak: what was used counts for one of them at least and two at most. */
const WINDOW_MS = 35_000;
/** A slower rise is what head-room is for, and no burst: bytes a second. */
const BURST_RATE_MIN = 64 * MIB;
/** A peak that comes again is never quite the same. */
const KNOWN_PEAK = 1.05;
/** Above these, a guest suffers. */
const STALLS_A_SECOND = 20;
const SWAP_OUT_BYTES_A_SECOND = MIB;
const AVAILABLE_SHARE_MIN = 0.05;
/** With more than this available, a stall is page cache that makes room. */
const STALL_AVAILABLE_SHARE = 0.2;
/** What a kernel keeps free counts as used in its statistics, and the host need not hold it. */
const SLACK_SHARE = 0.05;
/** Of the newest rate in the average: it follows slowly when it rises, and fast when it falls. */
const RISE_WEIGHT = 0.05;
const FALL_WEIGHT = 0.5;

const isSize = (value: number): boolean => Number.isFinite(value) && value >= 0;
const orNone = (value: number | null | undefined): number =>
  value !== null && value !== undefined && isSize(value) ? value : -1;

/** A sample with sizes that make no sense decides nothing. */
export function isSane(guest: GuestSample): boolean {
  const { memoryBytes, targetBytes, actualBytes, givenBytes } = guest;
  return (
    isSize(memoryBytes) && memoryBytes > 0 && isSize(targetBytes) && isSize(actualBytes) && isSize(givenBytes)
  );
}

/** A newer answer comes so many periods after the one before it, or later. What is nearer is the same one, less exactly dated. */
const NEWER_PERIODS = 0.5;

function forget(memory: GuestRecord, guest: GuestSample, atMs: number): void {
  memory.epoch = guest.epoch;
  memory.bootAtMs = atMs;
  memory.firstAtMs = NEVER;
  memory.fingerprint = -1;
  memory.changedAtMs = NEVER;
  memory.saidAtMs = NEVER;
  memory.usedBytes = -1;
  memory.slopeBytes = 0;
  memory.peakBytes = -1;
  memory.formerPeakBytes = -1;
  memory.stalls = -1;
  memory.oomKills = -1;
  memory.swapOutBytes = -1;
  memory.majorFaults = -1;
  memory.majorRate = -1;
  memory.distress = false;
  memory.stuckAtMs = NEVER;
  memory.probing = false;
  memory.progressAtMs = NEVER;
}

/** What happened between two statistics, a second. -1: not known. */
export interface Rates {
  /** Between the two. */
  seconds: number;
  stalls: number;
  oomKills: number;
  swapOutBytes: number;
  majorFaults: number;
}

/** What a guest's statistics say; -1 for what they do not say, or what makes no sense. */
interface Said {
  /** One number that changes whenever they do. A guest in which nothing happens says the same again: then the age tells. */
  fingerprint: number;
  ageMs: number;
  availableBytes: number;
  balloonedBytes: number;
  stalls: number;
  oomKills: number;
  swapOutBytes: number;
  majorFaults: number;
}

/** Records that a decision fills in for one guest after the other. */
export interface Reading {
  readonly said: Said;
  readonly rates: Rates;
}

export const newReading = (): Reading => ({
  said: {
    fingerprint: -1,
    ageMs: -1,
    availableBytes: -1,
    balloonedBytes: -1,
    stalls: -1,
    oomKills: -1,
    swapOutBytes: -1,
    majorFaults: -1,
  },
  rates: { seconds: 0, stalls: -1, oomKills: -1, swapOutBytes: -1, majorFaults: -1 },
});

for (const record of Object.values(newReading())) holdFractions(record as Record<string, number>);

function hear(statistics: StatisticsRead, said: Said): void {
  said.ageMs = orNone(statistics.ageMs);
  said.availableBytes = orNone(statistics.availableBytes);
  said.balloonedBytes = orNone(statistics.balloonedBytes);
  said.stalls = orNone(statistics.allocationStalls);
  said.oomKills = orNone(statistics.oomKills);
  said.swapOutBytes = orNone(statistics.swapOutBytes);
  said.majorFaults = orNone(statistics.majorFaults);
  said.fingerprint =
    said.availableBytes +
    1.7 * orNone(statistics.freeBytes) +
    2.9 * orNone(statistics.cacheBytes) +
    3.1 * orNone(statistics.minorFaults) +
    5.3 * said.majorFaults +
    7.7 * said.balloonedBytes;
}

const rate = (now: number, before: number, seconds: number): number =>
  now < 0 || before < 0 || now < before || seconds <= 0 ? -1 : (now - before) / seconds;

/** Takes the sample into `memory` and `decision`; returns whether its statistics are new, with the rates filled in then. */
export function readGuest(
  guest: GuestSample,
  atMs: number,
  periodMs: number,
  memory: GuestRecord,
  decision: GuestDecision,
  reading: Reading,
): boolean {
  if (memory.epoch !== guest.epoch || memory.bootAtMs === NEVER) forget(memory, guest, atMs);
  memory.memoryBytes = guest.memoryBytes;
  const { statistics } = guest;
  const everyMs = Math.max(periodMs, orNone(statistics?.periodMsMin));
  const isNew = statistics !== null && takeStatistics(guest, statistics, atMs, everyMs, memory, reading);
  decision.statisticsAgeMs = memory.saidAtMs === NEVER ? -1 : atMs - memory.saidAtMs;
  decision.fresh =
    decision.statisticsAgeMs >= 0 &&
    decision.statisticsAgeMs <= FRESH_PERIODS * everyMs &&
    memory.usedBytes >= 0;
  const begun = memory.firstAtMs === NEVER ? memory.bootAtMs + BOOT_GRACE_MS : memory.firstAtMs;
  decision.booting = atMs - begun < BOOT_GRACE_MS;
  decision.distress = memory.distress && decision.fresh;
  return isNew;
}

function takeStatistics(
  guest: GuestSample,
  statistics: StatisticsRead,
  atMs: number,
  periodMs: number,
  memory: GuestRecord,
  { said, rates }: Reading,
): boolean {
  hear(statistics, said);
  const { fingerprint, ageMs: age, availableBytes: available } = said;
  const saidAtMs = age < 0 ? atMs : atMs - age;
  const isNewer =
    age >= 0 && memory.saidAtMs !== NEVER && saidAtMs - memory.saidAtMs > NEWER_PERIODS * periodMs;
  if (fingerprint === memory.fingerprint && !isNewer) return false;
  if (available < 0) return false;
  memory.fingerprint = fingerprint;
  // We look at other moments than the guest: two statistics are a period apart at least.
  const elapsedMs = memory.changedAtMs === NEVER ? 0 : Math.max(atMs - memory.changedAtMs, periodMs);
  const seconds = elapsedMs / 1000;
  rates.seconds = seconds;
  memory.changedAtMs = atMs;
  memory.saidAtMs = saidAtMs === NEVER ? NEVER - 1 : saidAtMs;
  if (memory.firstAtMs === NEVER) memory.firstAtMs = atMs;

  const ballooned = Math.min(guest.memoryBytes, said.balloonedBytes);
  const left = guest.memoryBytes - (ballooned < 0 ? guest.actualBytes : ballooned);
  const stated = Math.max(0, left - available);
  // A guest may say that it uses more than the host holds for it; then it is wrong, or lies.
  const resident = orNone(guest.residentBytes);
  const used = resident < 0 ? stated : Math.min(stated, resident + SLACK_SHARE * guest.memoryBytes);
  const slope = memory.usedBytes < 0 || seconds <= 0 ? 0 : (used - memory.usedBytes) / seconds;
  // What it used a minute ago is provided for: a rise up to that is no burst. One that pauses may go on.
  const isNew = used > KNOWN_PEAK * Math.max(memory.peakBytes, memory.formerPeakBytes);
  memory.slopeBytes = Math.max(isNew ? slope : 0, memory.slopeBytes / 2);
  if (memory.slopeBytes < BURST_RATE_MIN) memory.slopeBytes = 0;
  memory.usedBytes = used;

  takeRates(said, memory, rates);
  memory.distress =
    (rates.stalls > STALLS_A_SECOND && available < STALL_AVAILABLE_SHARE * left) ||
    rates.oomKills > 0 ||
    rates.swapOutBytes > SWAP_OUT_BYTES_A_SECOND ||
    available < AVAILABLE_SHARE_MIN * left;
  return true;
}

function takeRates(said: Said, memory: GuestRecord, rates: Rates): void {
  const { stalls, oomKills, swapOutBytes, majorFaults } = said;
  const { seconds } = rates;
  rates.stalls = rate(stalls, memory.stalls, seconds);
  rates.oomKills = rate(oomKills, memory.oomKills, seconds);
  rates.swapOutBytes = rate(swapOutBytes, memory.swapOutBytes, seconds);
  rates.majorFaults = rate(majorFaults, memory.majorFaults, seconds);
  memory.stalls = stalls;
  memory.oomKills = oomKills;
  memory.swapOutBytes = swapOutBytes;
  memory.majorFaults = majorFaults;
}

/** Keeps the most that was used in this window and in the one before. */
export function notePeak(
  memory: GuestRecord,
  { usedBytes: used }: Pick<GuestDecision, 'usedBytes'>,
  atMs: number,
): void {
  const elapsed = memory.windowAtMs === NEVER ? Number.POSITIVE_INFINITY : atMs - memory.windowAtMs;
  if (elapsed >= WINDOW_MS) {
    memory.formerPeakBytes = elapsed >= 2 * WINDOW_MS ? -1 : memory.peakBytes;
    memory.peakBytes = used;
    memory.windowAtMs = atMs;
  } else {
    memory.peakBytes = Math.max(memory.peakBytes, used);
  }
}

/** Averages major faults while nothing is being taken, for a comparison afterwards. */
export function noteFaults(memory: GuestRecord, { majorFaults }: Rates): void {
  if (majorFaults < 0) return;
  const off = majorFaults - memory.majorRate;
  memory.majorRate =
    memory.majorRate < 0 ? majorFaults : memory.majorRate + (off > 0 ? RISE_WEIGHT : FALL_WEIGHT) * off;
}
