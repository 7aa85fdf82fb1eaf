/** Waiting for a guest to follow its target. */
import type { GuestStatus } from '../control/contract.ts';
import { obstacleOf, standsStill } from '../control/guest-state.ts';
import { isAtTarget, isSettled, stuckWords, wordBesideAccount } from '../control/judgement.ts';
import type { GuestControl } from '../control/operations.ts';
import { AerostatError } from '../sys/error.ts';
import { sleep } from './context.ts';
import { formatDuration } from './duration.ts';
import { formatSize } from './size.ts';

/** Often enough for a smooth bar, rare enough that the daemon does not notice. */
const POLL_MS = 50;
/** A look at a guest that is not answered for so long is told of; most are answered within some milliseconds. */
const SILENT_MS = 200;
/** The command ends when the guest stands still for so long. */
const STILL_MS = 500;

export class NotReachedError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_NOT_REACHED', message);
  }
}

interface Wait {
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
  /** Where the guest moved to meanwhile; its target went with it. */
  readonly movedTo?: string;
  /** What serves the guest did not answer any more. */
  readonly silent?: boolean;
}

/** Until the target is reached, another client sets another one, the guest moves elsewhere, or the time is up. */
export async function waitForTarget(control: GuestControl, name: string, wait: Wait): Promise<Waited> {
  const start = performance.now();
  let before: GuestStatus | undefined;
  let stillSinceMs: number | undefined;
  for (;;) {
    const leftMs = wait.timeoutMs - (performance.now() - start);
    const looked = control.guest(name);
    // What does not answer, because it is stopped, delays the command no longer than was asked for.
    const guest = before === undefined ? await looked : await within(looked, leftMs);
    const elapsedMs = performance.now() - start;
    if (guest === undefined) {
      const silent = leftMs >= SILENT_MS;
      return { guest: before as GuestStatus, reached: false, failedDiscards: 0, elapsedMs, silent };
    }
    before = guest;
    const failedDiscards = Math.max(0, (guest.counters?.punchFailures ?? 0) - wait.failuresBefore);
    // A guest that has left is gone from here, or stands still in the QEMU that it left.
    const mayHaveLeft = !guest.connected || standsStill(guest.state);
    const movedTo = mayHaveLeft ? await destinationOf(control, name) : undefined;
    if (movedTo !== undefined) return { guest, reached: false, failedDiscards, elapsedMs, movedTo };
    const settled = guest.targetBytes === wait.targetBytes && isSettled(guest);
    // A balloon of which the host got nothing is not what was asked for, and waiting longer changes nothing.
    // Nor is one of which the guest alone says that it is filled.
    const reached = settled && failedDiscards === 0 && wordBesideAccount(guest) === 0;
    wait.onProgress?.(guest);
    // A moment is no pause: the rings of a guest that resets stand still as well.
    if (!standsStill(guest.state)) stillSinceMs = undefined;
    else stillSinceMs ??= elapsedMs;
    const still = stillSinceMs !== undefined && elapsedMs - stillSinceMs >= STILL_MS;
    if (settled || still || guest.targetBytes !== wait.targetBytes || elapsedMs >= wait.timeoutMs) {
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

/** Undefined when `ms` are over before. */
async function within<Answer>(answer: Promise<Answer>, ms: number): Promise<Answer | undefined> {
  // An answer that comes too late is ignored, and so is a failure.
  answer.catch(() => {});
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>(resolve => {
    timer = setTimeout(() => resolve(undefined), Math.max(1, ms));
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Where a guest that is not here any more went, if that is why. */
async function destinationOf(control: GuestControl, name: string): Promise<string | undefined> {
  const migration = await control.migration(name).catch(() => null);
  if (migration?.migration?.report == null) return undefined;
  return migration.migration.to ?? 'another host';
}

/** Says how far the guest came, and why it may have stopped there. */
export function notReached(waited: Waited, targetBytes: number): NotReachedError {
  const { guest, elapsedMs, failedDiscards, movedTo, silent = false } = waited;
  const { name } = guest;
  if (movedTo !== undefined) {
    return new NotReachedError(
      `${name} moved to ${movedTo} meanwhile, and its target with it; wait for it there`,
    );
  }
  if (guest.targetBytes !== targetBytes) {
    const what =
      guest.targetBytes === null
        ? `${name} was lost meanwhile, and its target with it`
        : `another client set the target of ${name} to ${formatSize(guest.targetBytes)} meanwhile`;
    return new NotReachedError(what);
  }
  const after = `after ${formatDuration(elapsedMs)}`;
  if (!guest.connected) {
    return new NotReachedError(`${name} is not connected ${after}; its target is kept for when it is`);
  }
  if (isAtTarget(guest) && wordBesideAccount(guest) !== 0) return new NotReachedError(wordAlone(guest));
  if (isAtTarget(guest) && failedDiscards > 0) {
    const reason = guest.lastError === null ? '' : ` (${guest.lastError})`;
    return new NotReachedError(
      `the balloon of ${name} holds ${formatSize(guest.actualBytes ?? 0)}, but ${failedDiscards} ${failedDiscards === 1 ? 'discard' : 'discards'} failed and their memory is with the host still${reason}. Give the guest memory in a file that can be punched: a memfd, tmpfs or hugetlbfs`,
    );
  }
  const obstacle = obstacleOf(guest.state);
  if (obstacle !== undefined) {
    return new NotReachedError(
      `${name} cannot go to its target: ${obstacle}; its target is kept for when it goes on`,
    );
  }
  const far = `the balloon of ${name} holds ${formatSize(guest.actualBytes ?? 0)} of ${formatSize(targetBytes)} ${after}`;
  const { pendingBytes } = guest;
  const pending =
    pendingBytes !== null && pendingBytes > 0 ? `, ${formatSize(pendingBytes)} not yet back at the host` : '';
  const short = !isAtTarget(guest) && (guest.actualBytes ?? 0) < targetBytes;
  const stuck = stuckWords(guest, formatSize, formatDuration);
  const why = stuck !== '' ? `; it is ${stuck}` : short ? '; the guest may have no more memory to give' : '';
  if (silent) {
    return new NotReachedError(
      `${far}${pending}, and what serves it does not answer any more; is it stopped?`,
    );
  }
  return new NotReachedError(`${far}${pending}${why}. The target stays set; wait longer with --timeout`);
}

/** What to say of a guest whose word for its balloon is not what its device was given. */
function wordAlone({ name, actualBytes, balloonedBytes, counters, lastError }: GuestStatus): string {
  const claim = `${name} says that its balloon holds ${formatSize(actualBytes ?? 0)}, but by the lists that its device took it holds ${formatSize(balloonedBytes ?? 0)}`;
  const refused = counters?.badBuffers ?? 0;
  if (refused === 0) {
    return `${claim}. Its driver counts pages that it did not name, or named what is no memory of the guest's`;
  }
  const times =
    refused === 1 ? '1 of its buffers was refused' : `${refused} of its buffers were refused so far`;
  return `${claim}; ${times}${lastError === null ? '' : `. The last error was: ${lastError}`}`;
}
