/** A guest on the way to its target, as benchmarks wait for it: until its driver is done and the host has all of the memory. */
import { setTimeout as delay } from 'node:timers/promises';
import type { DeviceGuestStatus, GuestEvent } from '../control/contract.ts';
import type { Control } from '../control/operations.ts';
import { AerostatError } from '../sys/error.ts';
import { BENCH_GUEST } from './bench-daemon.ts';

/** A guest that makes no progress for this long never will. */
const STALL_MS = 120_000;
const POLL_MS = 5;

/**
 * Sets the target, and waits until the guest says that it is there and nothing is pending any more.
 * @throws AerostatError AEROSTAT_BENCH when the guest makes no progress; the signal's reason when that aborts
 */
export async function reachTarget(
  control: Control<DeviceGuestStatus>,
  targetBytes: number,
  signal: AbortSignal,
): Promise<DeviceGuestStatus> {
  const reached = actualBecomes(control, targetBytes, signal);
  await control.change(BENCH_GUEST, { targetBytes, force: true });
  await reached;
  return drained(() => control.guest(BENCH_GUEST), signal);
}

/** Waits until the host has all that the guest gave. */
export async function drained(
  look: () => Promise<DeviceGuestStatus>,
  signal: AbortSignal,
): Promise<DeviceGuestStatus> {
  for (const deadline = Date.now() + STALL_MS; ; ) {
    const status = await look();
    if (typeof status.progress?.drainedMs === 'number') return status;
    if (Date.now() > deadline) throw new AerostatError('AEROSTAT_BENCH', 'the host does not get its memory');
    await delay(POLL_MS, undefined, { signal });
  }
}

/** From the wish on: when the guest was done, and when the host had everything. */
export function progressOf({ progress }: DeviceGuestStatus): { reachedMs: number; drainedMs: number } {
  const { reachedMs, drainedMs } = progress ?? {};
  if (typeof reachedMs === 'number' && typeof drainedMs === 'number') return { reachedMs, drainedMs };
  throw new AerostatError('AEROSTAT_BENCH', 'the guest left while it was measured');
}

function actualBecomes(
  control: Control<DeviceGuestStatus>,
  targetBytes: number,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout;
    const end = (error?: Error) => {
      clearTimeout(timer);
      unsubscribe();
      signal.removeEventListener('abort', aborted);
      if (error === undefined) resolve();
      else reject(error);
    };
    const stalled = () =>
      end(new AerostatError('AEROSTAT_BENCH', `the guest made no progress for ${STALL_MS / 1000} s`));
    const aborted = () => end(signal.reason as Error);
    const rearm = () => {
      clearTimeout(timer);
      timer = setTimeout(stalled, STALL_MS);
    };
    const unsubscribe = control.subscribe((event: GuestEvent) => {
      if (event.type !== 'actual') return;
      rearm();
      if (event.detail.actualBytes === targetBytes) end();
    });
    signal.addEventListener('abort', aborted);
    rearm();
  });
}
