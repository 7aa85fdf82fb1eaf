/**
 * From what the allocation wants to what is asked for now. Growth is whole and at once, as far as the host has the
 * memory; shrinking is gradual, except where another guest waits for it; nothing swings; what is promised to one guest
 * was given by others first.
 */
import { fill } from './allocation.ts';
import { isBackingOff } from './need.ts';
import { NEVER } from './records.ts';
import type { GuestDecision, GuestRecord, Held, HostDecision } from './types.ts';
import { MIB, PAGE_BYTES } from './units.ts';

/** A smaller move is not worth it. */
const MOVE_BYTES_MIN = 64 * MIB;
const MOVE_SHARE_MIN = 0.01;
/** A need is worth a smaller one, and where another guest waits a still smaller one is. */
const NEED_MOVE_PART = 0.25;
const HURRIED_MOVE_BYTES_MIN = 4 * MIB;
/** Of a guest's memory, at a time, where no other guest waits. */
const STEP_SHARE = 0.05;
/** A host with less than this of its reserve is short. Guests that use all they may leave the reserve, give or take. */
const SHORT_SHARE = 0.75;
/** After a move, the other direction rests for so long; a need does not. */
const REST_MS = 30_000;
/** What was promised because the host had it free may not be taken yet; after this time it is. */
const GRANT_MS = 10_000;

const leastMove = ({ memoryBytes }: GuestDecision): number =>
  Math.max(MOVE_BYTES_MIN, MOVE_SHARE_MIN * memoryBytes);

const isRecent = (time: number, atMs: number, withinMs: number): boolean =>
  time !== NEVER && atMs - time < withinMs;

/** What a guest has to have beyond what it has. */
function needGrowth(guest: GuestDecision): number {
  const { ours, currentBytes, keepBytes, wantBytes, nowBytes, distress } = guest;
  if (!ours) return 0;
  const needed = Math.min(wantBytes, nowBytes);
  if (!distress && needed - currentBytes < NEED_MOVE_PART * leastMove(guest)) return 0;
  return Math.max(0, needed - keepBytes);
}

/** What it should have beyond that, if it is worth a move. */
function otherGrowth(guest: GuestDecision, memory: GuestRecord, atMs: number): number {
  const { ours, currentBytes, keepBytes, wantBytes, nowBytes, maxBytes } = guest;
  if (!ours || wantBytes <= currentBytes) return 0;
  const rest = wantBytes - Math.max(keepBytes, Math.min(wantBytes, nowBytes));
  if (rest <= 0) return 0;
  const whole = wantBytes >= maxBytes;
  if (!whole && wantBytes - currentBytes < leastMove(guest)) return 0;
  if (isRecent(memory.shrunkAtMs, atMs, REST_MS) && !whole) return 0;
  return rest;
}

/** What a guest has not given yet it may keep, if it needs it: that costs no other guest anything. */
function keepUngiven(guest: GuestDecision): number {
  const { ours, currentBytes, wantBytes, needBytes, committedBytes } = guest;
  return ours ? Math.max(currentBytes, Math.min(wantBytes, needBytes, committedBytes)) : currentBytes;
}

/** Decides every guest's `keepBytes`. */
export function move(
  guests: readonly GuestDecision[],
  memories: readonly GuestRecord[],
  host: HostDecision,
  atMs: number,
): void {
  let committed = 0;
  let granted = 0;
  for (let at = 0; at < guests.length; at++) {
    const memory = memories[at];
    if (guests[at].ours) committed += guests[at].committedBytes;
    if (isRecent(memory.grantAtMs, atMs, GRANT_MS)) granted += memory.grantBytes;
  }
  const promised = host.budgetBytes - host.fixedBytes - committed;
  const free = host.availableBytes - host.reservedBytes - granted;
  // A need may have half of the reserve until others have given: that is what it is for.
  const forNeeds = Math.max(0, promised, free - host.reserveBytes / 2);
  const forRest = Math.max(0, promised, free - host.reserveBytes);
  const given = grow(guests, memories, host, atMs, forNeeds, forRest);
  grantFree(guests, memories, atMs, Math.max(0, given - Math.max(0, promised)));
  host.hurry =
    host.waitingBytes > HURRIED_MOVE_BYTES_MIN ||
    host.availableBytes < SHORT_SHARE * host.reserveBytes + host.reservedBytes;
  for (let at = 0; at < guests.length; at++) shrink(guests[at], memories[at], host, atMs);
}

/** What guests have to have first, then the rest; returns what was given. */
function grow(
  guests: readonly GuestDecision[],
  memories: readonly GuestRecord[],
  host: HostDecision,
  atMs: number,
  forNeeds: number,
  forRest: number,
): number {
  let given = 0;
  host.waitingBytes = 0;
  for (const guest of guests) guest.keepBytes = keepUngiven(guest);
  for (const forNeed of [true, false]) {
    let asked = 0;
    for (let at = 0; at < guests.length; at++) {
      const guest = guests[at];
      guest.requestBytes = forNeed ? needGrowth(guest) : otherGrowth(guest, memories[at], atMs);
      guest.lowBytes = 0;
      guest.highBytes = guest.requestBytes;
      guest.weight = 1;
      asked += guest.requestBytes;
    }
    if (asked === 0) continue;
    fill(guests, Math.max(0, forNeed ? forNeeds : forRest - given));
    for (const guest of guests) {
      if (!guest.ours || guest.requestBytes === 0) continue;
      guest.keepBytes += guest.partBytes;
      given += guest.partBytes;
      if (guest.partBytes < guest.requestBytes - PAGE_BYTES) guest.held = 'waiting';
    }
    // What comes out of the reserve is missing there, too.
    if (forNeed) host.waitingBytes = Math.max(0, asked - Math.min(forNeeds, forRest));
  }
  return given;
}

/** Notes, in proportion to what each got, what was promised only because the host had it free. */
function grantFree(
  guests: readonly GuestDecision[],
  memories: readonly GuestRecord[],
  atMs: number,
  bytes: number,
): void {
  let grown = 0;
  for (const { keepBytes, currentBytes } of guests) grown += keepBytes - currentBytes;
  for (let at = 0; at < guests.length; at++) {
    const memory = memories[at];
    const growth = guests[at].keepBytes - guests[at].currentBytes;
    if (growth <= 0) continue;
    memory.grownAtMs = atMs;
    if (bytes <= 0) continue;
    const former = isRecent(memory.grantAtMs, atMs, GRANT_MS) ? memory.grantBytes : 0;
    memory.grantBytes = former + (bytes * growth) / grown;
    memory.grantAtMs = atMs;
  }
}

function shrink(guest: GuestDecision, memory: GuestRecord, host: HostDecision, atMs: number): void {
  const { ours, currentBytes, wantBytes, memoryBytes } = guest;
  if (!ours || wantBytes >= currentBytes) return;
  const held = whyNotShrunk(guest, memory, host, atMs);
  guest.held = held;
  if (held !== 'no') return;
  const step = host.hurry ? Number.POSITIVE_INFINITY : STEP_SHARE * memoryBytes;
  if (currentBytes - wantBytes > step) guest.held = 'step';
  guest.keepBytes = Math.max(wantBytes, currentBytes - step);
  // What it had before the shrinking of the last moments began is what harm would teach.
  if (!isRecent(memory.shrunkAtMs, atMs, REST_MS)) memory.shrunkFromBytes = currentBytes;
  memory.shrunkAtMs = atMs;
}

function whyNotShrunk(guest: GuestDecision, memory: GuestRecord, host: HostDecision, atMs: number): Held {
  if (guest.stuck) return 'stuck';
  if (guest.booting && !host.hurry) return 'boot';
  if (!guest.fresh && !host.hurry) return 'stale';
  const least = host.hurry ? HURRIED_MOVE_BYTES_MIN : leastMove(guest);
  if (guest.currentBytes - guest.wantBytes < least) return 'small';
  if (host.hurry) return 'no';
  if (isBackingOff(memory, atMs)) return 'harm';
  return isRecent(memory.grownAtMs, atMs, REST_MS) ? 'blocked' : 'no';
}
