/**
 * Moves the targets of a demonstration's guests while no client does: each keeps a part of its memory available, and
 * the balloon has what it does not need. It is no policy for production guests: it knows one guest at a
 * time, and nothing of the host.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { GuestStatus, StatisticsSample } from '../control/contract.ts';
import type { GuestControl } from '../control/operations.ts';

const MIB = 2 ** 20;

/** Of its memory, what a guest should have available. */
const RESERVE_SHARE = 1 / 4;
/** A balloon grows no faster than that in one step, so that it can be watched; memory is given back at once. */
const GROWTH_BYTES_MAX = 48 * MIB;
/** Smaller changes are not worth a target. */
const CHANGE_BYTES_MIN = 8 * MIB;
const STEP_MS = 2000;

/**
 * What the balloon should hold, by what the guest said of itself and what its balloon held at that moment; undefined where
 * either is not known, or where the target is good as it is.
 */
export function wantedBytes(
  { connected, memoryBytes, targetBytes }: GuestStatus,
  sample: StatisticsSample | undefined,
): number | undefined {
  const available = sample?.statistics.availableBytes ?? null;
  const held = sample?.balloonedBytes ?? null;
  if (!connected || memoryBytes === null || targetBytes === null) return undefined;
  if (available === null || held === null) return undefined;
  const spare = available - memoryBytes * RESERVE_SHARE;
  const wanted = Math.max(0, Math.min(held + spare, targetBytes + GROWTH_BYTES_MAX));
  const whole = Math.floor(wanted / MIB) * MIB;
  return Math.abs(whole - targetBytes) < CHANGE_BYTES_MIN ? undefined : whole;
}

/** Moves the targets of all guests until `signal` says that it is over; a guest whose target a client sets is left to that client. */
export async function keepTargets(
  control: GuestControl,
  signal: AbortSignal,
  stepMs = STEP_MS,
): Promise<void> {
  const ours = new Map<string, number>();
  const theirs = new Set<string>();
  while (!signal.aborted) {
    await delay(stepMs, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    try {
      const [guests, samples] = await Promise.all([control.guests(), control.samples()]);
      for (const guest of guests) {
        const { name, targetBytes } = guest;
        if (targetBytes !== null && targetBytes !== (ours.get(name) ?? 0)) theirs.add(name);
        const bytes = theirs.has(name) ? undefined : wantedBytes(guest, samples[name]);
        if (bytes === undefined) continue;
        await control.change(name, { targetBytes: bytes });
        ours.set(name, bytes);
      }
    } catch {
      // A guest that moves, or has just come to its end: the next step sees how it is then.
    }
  }
}
