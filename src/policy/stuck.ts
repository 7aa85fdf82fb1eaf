/**
 * Whether a guest gets on towards its target. One that gives nothing for some seconds is stuck: it counts with what its
 * balloon holds, its target is that, and it is asked again with back-off. A guest that does not take back what it may
 * is not stuck: it can do so at any moment, so it counts with what it may have.
 */
import { backOff } from './need.ts';
import { NEVER } from './records.ts';
import type { GuestDecision, GuestRecord, GuestSample } from './types.ts';

const STUCK_MS = 5000;
/** Nearer than this is there, and less than this is no progress. */
const TOLERANCE_BYTES = 2 ** 20;

/** Follows the balloon; fills in `stuck`, and is to be called before the movement. */
export function follow(guest: GuestSample, memory: GuestRecord, decision: GuestDecision, atMs: number): void {
  const { targetBytes, actualBytes } = guest;
  const missing = targetBytes - actualBytes;
  if (memory.stuckAtMs !== NEVER && !memory.probing) {
    // Its target is what it holds, until it is asked again.
    if (atMs >= memory.retryAtMs) {
      memory.probing = true;
      memory.progressAtMs = NEVER;
    }
    decision.stuck = !memory.probing;
    return;
  }
  decision.stuck = false;
  if (missing <= TOLERANCE_BYTES) {
    // While it is probed, its target may not have been raised yet.
    if (!memory.probing || memory.progressAtMs !== NEVER) settle(memory);
    return;
  }
  if (memory.progressAtMs === NEVER || memory.progressTargetBytes > targetBytes) {
    mark(memory, guest, atMs);
    return;
  }
  if (actualBytes - memory.progressBytes >= TOLERANCE_BYTES) {
    settle(memory);
    mark(memory, guest, atMs);
    return;
  }
  // A guest that took memory back in need has another start.
  memory.progressBytes = Math.min(memory.progressBytes, actualBytes);
  if (atMs - memory.progressAtMs < STUCK_MS) return;
  memory.retries = memory.probing ? memory.retries + 1 : 0;
  memory.stuckAtMs = memory.stuckAtMs === NEVER ? atMs : memory.stuckAtMs;
  memory.probing = false;
  memory.retryAtMs = atMs + backOff(memory.retries);
  decision.stuck = true;
}

function mark(memory: GuestRecord, { targetBytes, actualBytes }: GuestSample, atMs: number): void {
  memory.progressTargetBytes = targetBytes;
  memory.progressBytes = actualBytes;
  memory.progressAtMs = atMs;
}

function settle(memory: GuestRecord): void {
  memory.progressAtMs = NEVER;
  memory.stuckAtMs = NEVER;
  memory.probing = false;
  memory.retries = 0;
  memory.retryAtMs = NEVER;
}
