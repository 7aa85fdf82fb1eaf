/**
 * Whether a decision should be made before its time: a guest bursts or suffers, memory that another one waits for has
 * come, or the host is short. It looks at a new sample beside the last decision, and decides nothing itself.
 */
import type { Decision, GuestDecision, GuestSample, Sample } from './types.ts';
import { MIB } from './units.ts';

/** Memory that has come in is worth a decision from here on. */
const GIVEN_BYTES_MIN = 16 * MIB;
const RISE_BYTES_MIN = 64 * MIB;
/** A guest that took so much of its room since it was last looked at may take the rest before it is looked at again. */
const RISE_SHARE = 0.1;
const AVAILABLE_SHARE_MIN = 0.05;

export function isUrgent({ host, guests }: Sample, last: Decision): boolean {
  // Names are compared below: another list of guests is for the next decision.
  const { reserveBytes, hurry, waitingBytes } = last.host;
  if (!hurry && host.availableBytes < reserveBytes / 2) return true;
  let come = 0;
  for (let at = 0; at < guests.length; at++) {
    const guest = guests[at];
    const decision = last.guests[at];
    if (decision === undefined || decision.name !== guest.name) return true;
    if (!decision.ours) continue;
    const committed = Math.max(guest.memoryBytes - guest.givenBytes, guest.memoryBytes - guest.targetBytes);
    come += Math.max(0, decision.committedBytes - committed);
    if (bursts(guest, decision)) return true;
  }
  return waitingBytes > 0 && come >= GIVEN_BYTES_MIN;
}

function bursts({ statistics, memoryBytes }: GuestSample, decision: GuestDecision): boolean {
  const { availableBytes = null, balloonedBytes = null } = statistics ?? {};
  const { keepBytes, maxBytes, usedBytes } = decision;
  if (availableBytes === null || balloonedBytes === null || keepBytes >= maxBytes) return false;
  const left = memoryBytes - balloonedBytes;
  const rise = left - availableBytes - usedBytes;
  if (rise > Math.max(RISE_BYTES_MIN, RISE_SHARE * (keepBytes - usedBytes))) return true;
  return !decision.distress && availableBytes < AVAILABLE_SHARE_MIN * left;
}
