/**
 * What a guest needs, as an absolute size that it keeps: what it uses with head-room, what it is about to use while it
 * bursts, and what it was learned to need when taking memory did harm. It is never reckoned from what the balloon holds,
 * which lags behind; only distress, which says that the present size is too small, counts from it.
 */

import { noteFaults, notePeak, type Rates } from './reading.ts';
import { NEVER } from './records.ts';
import type { GuestDecision, GuestRecord, GuestSample } from './types.ts';
import { MIB } from './units.ts';

/** Above what is used: a fifth, and as much as lets a kernel breathe. */
const HEADROOM = 1.2;
const HEADROOM_BYTES_MIN = 96 * MIB;
/** How far a burst is thought ahead: until what the decision after the next asks of others has come. */
const HORIZON_MS = 6000;
/** A guest in distress needs so much more than it has. */
const DISTRESS_FACTOR = 1.3;
/** Harm within this time after a shrink is the shrink's. */
const HARM_MS = 30_000;
/** What harm teaches: what the guest had before, and a tenth. */
const LEARNED_FACTOR = 1.1;
const LEARNED_HALF_MS = 6 * 3_600_000;
const STALLS_A_SECOND = 20;
const MAJOR_FACTOR = 3;
/** Fewer major faults a second than this are harmless. */
const MAJOR_A_SECOND_MIN = 100;
/** After the first harm nothing is taken for so long, after each further one twice as long. */
const BACK_OFF_MS = 30_000;
const BACK_OFF_MS_MAX = 3_600_000;
/** Without harm for so long, the next one is a first one. */
const FORGIVEN_MS = 2 * 3_600_000;
/** Old statistics are made up for by what is resident after this time. */
const SILENCE_MS = 60_000;

/** Doubled `times` times, an hour at most. */
export const backOff = (times: number): number =>
  Math.min(BACK_OFF_MS_MAX, BACK_OFF_MS * 2 ** Math.min(times, 30));

export const isBackingOff = ({ harms, harmAtMs }: GuestRecord, atMs: number): boolean =>
  harmAtMs !== NEVER && atMs - harmAtMs < backOff(harms - 1);

/** Learns from new statistics whether the last shrink was too much. */
export function learn(
  memory: GuestRecord,
  rates: Rates,
  atMs: number,
  decision: Pick<GuestDecision, 'maxBytes' | 'learnedBytes'>,
): void {
  const sinceShrink = memory.shrunkAtMs === NEVER ? Number.POSITIVE_INFINITY : atMs - memory.shrunkAtMs;
  if (sinceShrink > HARM_MS) {
    noteFaults(memory, rates);
    return;
  }
  const faults =
    memory.majorRate >= 0 &&
    rates.majorFaults > Math.max(MAJOR_A_SECOND_MIN, MAJOR_FACTOR * memory.majorRate);
  if (!(rates.stalls > STALLS_A_SECOND || rates.oomKills > 0 || faults)) return;
  takeLearned(memory, decision, atMs);
  memory.learnedBytes = Math.min(
    decision.maxBytes,
    Math.max(decision.learnedBytes, LEARNED_FACTOR * memory.shrunkFromBytes),
  );
  memory.learnedAtMs = atMs;
  const forgiven = memory.harmAtMs === NEVER || atMs - memory.harmAtMs > FORGIVEN_MS;
  memory.harms = forgiven ? 1 : memory.harms + 1;
  memory.harmAtMs = atMs;
  // One shrink does harm once.
  memory.shrunkAtMs = NEVER;
}

/** What was learned, half of it after six hours; noted in `decision`. */
function takeLearned(
  { learnedBytes, learnedAtMs }: GuestRecord,
  decision: Pick<GuestDecision, 'learnedBytes'>,
  atMs: number,
): void {
  decision.learnedBytes =
    learnedAtMs === NEVER || learnedBytes <= 0
      ? 0
      : learnedBytes * 2 ** (-Math.max(0, atMs - learnedAtMs) / LEARNED_HALF_MS);
}

/** Fills in what the guest uses, needs now and should have. */
export function reckonNeed(
  guest: GuestSample,
  memory: GuestRecord,
  decision: GuestDecision,
  atMs: number,
): void {
  const { memoryBytes, currentBytes, fresh } = decision;
  takeUsed(guest, memory, decision, atMs);
  const used = decision.usedBytes;
  const ahead = fresh ? used + (memory.slopeBytes * HORIZON_MS) / 1000 : used;
  // Room for a burst that goes on is not what is used: the peak does not remember it.
  let now = Math.max(ahead * HEADROOM, ahead + HEADROOM_BYTES_MIN);
  if (decision.distress) now = Math.max(now, Math.min(memoryBytes, DISTRESS_FACTOR * currentBytes));
  takeLearned(memory, decision, atMs);
  notePeak(memory, decision, atMs);
  const peak = Math.max(memory.peakBytes, memory.formerPeakBytes);
  decision.nowBytes = now;
  decision.steadyBytes = Math.max(peak * HEADROOM, peak + HEADROOM_BYTES_MIN, decision.learnedBytes);
  bound(decision);
  decision.needBytes = Math.max(decision.nowBytes, decision.steadyBytes);
  if (!fresh) {
    // Nothing that is not known lowers a need.
    decision.nowBytes = Math.max(decision.nowBytes, Math.min(memory.needBytes, currentBytes));
    decision.needBytes = Math.max(decision.needBytes, memory.needBytes);
    bound(decision);
  }
  memory.needBytes = decision.needBytes;
}

/** What may be needed lies between the floor and the most that the guest gets. */
function bound(decision: GuestDecision): void {
  const { floorBytes, maxBytes } = decision;
  decision.nowBytes = Math.max(floorBytes, Math.min(maxBytes, decision.nowBytes));
  decision.steadyBytes = Math.max(floorBytes, Math.min(maxBytes, decision.steadyBytes));
  decision.needBytes = Math.max(floorBytes, Math.min(maxBytes, decision.needBytes));
}

/** A guest that says nothing uses what the host holds for it; where that is not known either, all that it has. */
function takeUsed(guest: GuestSample, memory: GuestRecord, decision: GuestDecision, atMs: number): void {
  const silent = !decision.fresh && atMs - Math.max(memory.saidAtMs, memory.bootAtMs) > SILENCE_MS;
  decision.usedBytes = memory.usedBytes;
  if (!silent && memory.usedBytes >= 0) return;
  const { residentBytes, memoryBytes, actualBytes } = guest;
  const resident =
    residentBytes !== null && Number.isFinite(residentBytes) && residentBytes >= 0
      ? Math.min(residentBytes, memoryBytes)
      : Math.max(0, memoryBytes - actualBytes);
  decision.usedBytes = Math.max(memory.usedBytes, resident);
}
