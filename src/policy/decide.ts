/**
 * One decision over all guests of a host: a sample, the settings and what is remembered go in, targets with their
 * reasons and the new memory come out. It reads no clock, does no I/O and has no chance of its own, so the same input
 * gives the same output. The parts are in files of their own: reading, need, budget, allocation, movement, stuck.
 */
import { allocate } from './allocation.ts';
import { reckonBudget } from './budget.ts';
import { move } from './movement.ts';
import { learn, reckonNeed } from './need.ts';
import { isSane, newReading, type Reading, readGuest } from './reading.ts';
import { copyMemory, newDecision, newPolicyMemory, shiftTimes, sizeRecords, UNSEEN } from './records.ts';
import { applySettings, settingsOf } from './settings.ts';
import { follow } from './stuck.ts';
import type {
  Decision,
  GuestDecision,
  GuestRecord,
  GuestSample,
  PolicyMemory,
  Sample,
  Settings,
} from './types.ts';
import { PAGE_BYTES } from './units.ts';

const STATISTICS_PERIOD_MS = 1000;

/**
 * Decides. `into` is written and returned: with two decisions in turn, the one that is read and the one that is written,
 * nothing is allocated for a guest that was there before. It must not be the decision that `memory` belongs to.
 */
export function decide(
  sample: Sample,
  settings: Settings,
  memory: PolicyMemory = newPolicyMemory(),
  into: Decision = newDecision(),
): Decision {
  if (into.memory === memory)
    throw new TypeError('a decision cannot be written into the memory that it is made from');
  const { guests: samples } = sample;
  sizeRecords(into, samples.length);
  const { atMs } = sample;
  into.atMs = atMs;
  into.memory.atMs = atMs;
  remember(samples, memory, into.memory, atMs);
  const reading = newReading();
  const periodMs = settings.statisticsPeriodMs ?? STATISTICS_PERIOD_MS;
  const totals: Totals = { heldBytes: 0, fixedBytes: 0 };
  for (let at = 0; at < samples.length; at++) {
    const guest = samples[at];
    const decision = into.guests[at];
    view(guest, into.memory.guests[at], decision, settings, atMs, periodMs, reading);
    add(totals, guest, decision);
  }
  reckonBudget(into.host, sample, settings, totals.heldBytes, memory, into.memory);
  into.host.fixedBytes = totals.fixedBytes;
  allocate(into.guests, into.host);
  move(into.guests, into.memory.guests, into.host, atMs);
  for (let at = 0; at < samples.length; at++) conclude(into.guests[at], samples[at]);
  return into;
}

/** Finds what was remembered of each guest. The list is nearly always the same as before; then nothing is looked up. */
function remember(
  samples: readonly GuestSample[],
  before: PolicyMemory,
  now: PolicyMemory,
  atMs: number,
): void {
  let index: Map<string, GuestRecord> | undefined;
  // A clock that began anew: everything is as long ago as it was.
  const shift = before.atMs > atMs ? atMs - before.atMs : 0;
  for (let at = 0; at < samples.length; at++) {
    const { name } = samples[at];
    let found: GuestRecord | undefined = before.guests[at];
    if (found === undefined || found.name !== name) {
      index ??= new Map(before.guests.map(guest => [guest.name, guest]));
      found = index.get(name);
    }
    const copy = now.guests[at];
    copyMemory(copy, found ?? UNSEEN, name);
    if (shift !== 0) shiftTimes(copy, shift);
  }
}

function view(
  guest: GuestSample,
  memory: GuestRecord,
  decision: GuestDecision,
  settings: Settings,
  atMs: number,
  periodMs: number,
  reading: Reading,
): void {
  clear(decision, guest.name);
  if (!isSane(guest)) {
    decision.held = 'unknown';
    // It counts with what it had when its sample made sense.
    decision.committedBytes = Math.max(0, memory.memoryBytes);
    return;
  }
  const { memoryBytes, targetBytes, givenBytes } = guest;
  decision.memoryBytes = memoryBytes;
  applySettings(decision, settingsOf(settings, guest.name));
  decision.currentBytes = Math.max(0, memoryBytes - targetBytes);
  const given = Math.min(givenBytes, memoryBytes);
  decision.committedBytes = Math.max(decision.currentBytes, memoryBytes - given);
  const isNew = readGuest(guest, atMs, periodMs, memory, decision, reading);
  if (isNew) learn(memory, reading.rates, atMs, decision);
  follow(guest, memory, decision, atMs);
  reckonNeed(guest, memory, decision, atMs);
  decision.ours = decision.mode === 'auto';
  if (!decision.ours) {
    decision.held = decision.mode === 'hold' ? 'hold' : 'off';
    return;
  }
  raise(guest, decision);
}

/** What cannot or must not be taken is as good as needed. */
function raise(guest: GuestSample, decision: GuestDecision): void {
  const { maxBytes, memoryBytes, currentBytes } = decision;
  const has = Math.min(maxBytes, Math.max(0, memoryBytes - guest.actualBytes));
  if (decision.stuck) {
    // It keeps what it has whatever is decided. For those who plan, that is a floor.
    decision.floorBytes = Math.max(decision.floorBytes, has);
  }
  const kept = decision.booting ? has : decision.fresh ? 0 : Math.min(maxBytes, currentBytes);
  decision.steadyBytes = Math.max(decision.steadyBytes, kept);
  decision.needBytes = Math.max(decision.needBytes, kept);
  decision.nowBytes = Math.max(decision.nowBytes, decision.floorBytes);
  decision.needBytes = Math.max(decision.needBytes, decision.nowBytes);
}

interface Totals {
  /** What the host holds for guests: where it cannot tell, all that a guest has not given back. */
  heldBytes: number;
  /** What guests have that are not the policy's to move. */
  fixedBytes: number;
}

function add(totals: Totals, { residentBytes }: GuestSample, decision: GuestDecision): void {
  const { committedBytes, memoryBytes } = decision;
  if (residentBytes === null || !Number.isFinite(residentBytes) || residentBytes < 0)
    totals.heldBytes += committedBytes;
  else totals.heldBytes += memoryBytes < 0 ? residentBytes : Math.min(residentBytes, memoryBytes);
  if (!decision.ours) totals.fixedBytes += committedBytes;
}

function clear(decision: GuestDecision, name: string): void {
  decision.name = name;
  decision.mode = 'auto';
  decision.targetBytes = -1;
  decision.memoryBytes = -1;
  decision.currentBytes = -1;
  decision.keepBytes = -1;
  decision.wantBytes = -1;
  decision.floorBytes = 0;
  decision.maxBytes = 0;
  decision.usedBytes = -1;
  decision.nowBytes = 0;
  decision.needBytes = 0;
  decision.steadyBytes = 0;
  decision.learnedBytes = 0;
  decision.committedBytes = 0;
  decision.statisticsAgeMs = -1;
  decision.bound = 'fixed';
  decision.held = 'no';
  decision.contradiction = false;
  decision.distress = false;
  decision.fresh = false;
  decision.booting = false;
  decision.stuck = false;
  decision.ours = false;
  decision.requestBytes = 0;
  decision.partBytes = 0;
}

/** From what a guest keeps to what its balloon holds, in whole pages, and never below a floor. */
function conclude(decision: GuestDecision, guest: GuestSample): void {
  if (!decision.ours) return;
  const { memoryBytes, maxBytes } = decision;
  const keep = Math.max(decision.keepBytes, Math.min(decision.floorBytes, maxBytes));
  // A maximum below the memory holds from the beginning; it is no shrink that could wait.
  const target = Math.floor(Math.max(0, memoryBytes - Math.min(keep, maxBytes)) / PAGE_BYTES) * PAGE_BYTES;
  if (decision.stuck && target >= guest.actualBytes) {
    decision.held = 'stuck';
    decision.targetBytes = Math.floor(guest.actualBytes / PAGE_BYTES) * PAGE_BYTES;
  } else {
    decision.targetBytes = target;
  }
  decision.keepBytes = memoryBytes - decision.targetBytes;
}
