/** Waiting for a guest to follow its target. */
import type { GuestStatus } from '../control/contract.ts';
import { isAtTarget, isSettled, stuckWords } from '../control/judgement.ts';
import type { GuestControl } from '../control/operations.ts';
import { AerostatError } from '../sys/error.ts';
import { sleep } from './context.ts';
import { formatDuration } from './duration.ts';
import { formatSize } from './size.ts';

/** Often enough for a smooth bar, rare enough that the daemon does not notice. */
const POLL_MS = 50;

export class NotReachedError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_NOT_REACHED', message);
  }
}

export interface Wait {
  readonly targetBytes: number;
  readonly timeoutMs: number;
  /** Discards that had failed when the target was set. */
  readonly failuresBefore: number;
  readonly interrupt: AbortSignal;
  readonly onProgress?: (guest: GuestStatus) => void;
}

export interface Waited {
  readonly guest: GuestStatus;
  readonly reached: boolean;
  /** Discards that failed meanwhile: what they were of is in the balloon and with the host still. */
  readonly failedDiscards: number;
  /** Until the target was reached, by the daemon's own clock where it measured it. */
  readonly elapsedMs: number;
}

/** Until the target is reached, somebody else sets another, or the time is up. */
export async function waitForTarget(control: GuestControl, name: string, wait: Wait): Promise<Waited> {
  const start = performance.now();
  for (;;) {
    const guest = await control.guest(name);
    const elapsedMs = performance.now() - start;
    const failedDiscards = Math.max(0, (guest.counters?.punchFailures ?? 0) - wait.failuresBefore);
    const settled = guest.targetBytes === wait.targetBytes && isSettled(guest);
    // A balloon of which the host got nothing is not what was asked for, and waiting longer changes nothing.
    const reached = settled && failedDiscards === 0;
    wait.onProgress?.(guest);
    if (settled || guest.targetBytes !== wait.targetBytes || elapsedMs >= wait.timeoutMs) {
      return {
        guest,
        reached,
        failedDiscards,
        elapsedMs: (reached ? guest.progress?.drainedMs : null) ?? elapsedMs,
      };
    }
    await sleep(Math.min(POLL_MS, Math.max(1, wait.timeoutMs - elapsedMs)), wait.interrupt);
  }
}

/** Says how far the guest came, and why it may have stopped there. */
export function notReached(
  { guest, elapsedMs, failedDiscards }: Waited,
  targetBytes: number,
): NotReachedError {
  const { name } = guest;
  if (guest.targetBytes !== targetBytes) {
    const what =
      guest.targetBytes === null
        ? `${name} was lost meanwhile, and its target with it`
        : `somebody else set the target of ${name} to ${formatSize(guest.targetBytes)} meanwhile`;
    return new NotReachedError(what);
  }
  const after = `after ${formatDuration(elapsedMs)}`;
  if (!guest.connected) {
    return new NotReachedError(`${name} is not connected ${after}; its target is kept for when it is`);
  }
  if (isAtTarget(guest) && failedDiscards > 0) {
    const reason = guest.lastError === null ? '' : ` (${guest.lastError})`;
    return new NotReachedError(
      `the balloon of ${name} holds ${formatSize(guest.actualBytes ?? 0)}, but ${failedDiscards} discards failed and their memory is with the host still${reason}. Give the guest memory in a file that can be punched: a memfd, tmpfs or hugetlbfs`,
    );
  }
  const far = `the balloon of ${name} holds ${formatSize(guest.actualBytes ?? 0)} of ${formatSize(targetBytes)} ${after}`;
  const { pendingBytes } = guest;
  const pending =
    pendingBytes !== null && pendingBytes > 0 ? `, ${formatSize(pendingBytes)} not yet back at the host` : '';
  const short = !isAtTarget(guest) && (guest.actualBytes ?? 0) < targetBytes;
  const stuck = stuckWords(guest, formatSize, formatDuration);
  const why = stuck !== '' ? `; it is ${stuck}` : short ? '; the guest may have no more memory to give' : '';
  return new NotReachedError(`${far}${pending}${why}. It goes on; wait longer with --timeout`);
}
