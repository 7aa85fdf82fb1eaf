/**
 * What is to be thought of a guest and its target: whether it is there, whether it is on its way, whether it is in need,
 * and what speaks against taking more. Commands, pages, timers and policies ask here, so that all of them say the
 * same. Pure, and needs nothing of Node: the page in the browser judges with it as well.
 */
import type { GuestStatus, HintStatus, StatisticsSample } from './contract.ts';
import { balloonLimit, type MemoryUse, RESERVE_SHARE } from './memory-use.ts';

/**
 * A balloon that is nearer to its target than this is there. A guest with pages of 64 KiB gives and takes whole ones, and
 * so never hits a target that is no multiple of them.
 */
export const TOLERANCE_BYTES = 64 * 1024;

/** Below this share of its memory available, a guest is about to suffer. */
export const NEED_SHARE = 0.05;

/** Above this share of the balloon, what waits for whole huge pages is more than what is always left over. */
const INCOMPLETE_SHARE = 0.1;

type Balloon = Pick<GuestStatus, 'connected' | 'targetBytes' | 'actualBytes' | 'pendingBytes'> &
  Partial<Pick<GuestStatus, 'granularityBytes' | 'stuck'>>;

/** Whether a balloon of `actualBytes` is at `targetBytes`, for a guest whose lists name whole pieces of `granularityBytes`. */
export const isNear = (
  actualBytes: number,
  targetBytes: number,
  granularityBytes: number | null = null,
): boolean => Math.abs(actualBytes - targetBytes) < Math.max(TOLERANCE_BYTES, granularityBytes ?? 0);

/** Hypervisors do not tell of orders of others; a balloon that holds so much more than was asked for had one. */
export const FOREIGN_BYTES_MIN = 16 * 2 ** 20;

/** Whether the guest's balloon is where its target, or `targetBytes`, wants it. What is not known is not there. */
export function isAtTarget(guest: Balloon, targetBytes: number | null = guest.targetBytes): boolean {
  const { connected, actualBytes, granularityBytes } = guest;
  return (
    connected &&
    actualBytes !== null &&
    targetBytes !== null &&
    isNear(actualBytes, targetBytes, granularityBytes)
  );
}

/** Whether the guest is at its target, or at `targetBytes`, and the host has all that was given away. */
export const isSettled = (guest: Balloon, targetBytes?: number): boolean =>
  // A hypervisor that does not tell has nothing that could be waited for.
  isAtTarget(guest, targetBytes) && (guest.pendingBytes ?? 0) === 0;

/**
 * How far the guest's word for its balloon is from what its device was given and not asked back for, by the host's own
 * account: above 0 where the guest says more. 0 where they agree, or the account is not known.
 */
export function wordBesideAccount(
  guest: Pick<GuestStatus, 'actualBytes' | 'balloonedBytes' | 'removedBytes' | 'granularityBytes'>,
): number {
  const { actualBytes, balloonedBytes, removedBytes, granularityBytes } = guest;
  if (actualBytes === null || balloonedBytes === null) return 0;
  // What was given of memory that is gone is in the guest's balloon still, or is not: it may not know.
  const most = balloonedBytes + (removedBytes ?? 0);
  if (actualBytes > most) return isNear(actualBytes, most, granularityBytes) ? 0 : actualBytes - most;
  if (actualBytes >= balloonedBytes || isNear(actualBytes, balloonedBytes, granularityBytes)) return 0;
  return actualBytes - balloonedBytes;
}

/** A guest that gets on towards its target, or whose memory is on its way to the host. */
export function isMoving(guest: Balloon): boolean {
  const { connected, actualBytes, targetBytes, pendingBytes } = guest;
  const known = actualBytes !== null && targetBytes !== null;
  const onItsWay = known && !isAtTarget(guest) && (guest.stuck ?? null) === null;
  return connected && (onItsWay || (pendingBytes ?? 0) > 0);
}

/** What a guest has available. */
export interface Available {
  /** Of its memory. */
  readonly share: number;
  /** The guest said so before its balloon was changed last. */
  readonly old: boolean;
}

/**
 * What the guest's programs can still get, as a share of its memory, by its own word; null if it did not say. The balloon
 * may have grown since the guest said it: then this is the least that can be left, and `old`.
 */
export function availableShare(
  { balloonedBytes, actualBytes }: Pick<GuestStatus, 'balloonedBytes' | 'actualBytes'>,
  sample: StatisticsSample | undefined,
): Available | null {
  const { availableBytes = null, totalBytes = null } = sample?.statistics ?? {};
  if (availableBytes === null || totalBytes === null || totalBytes === 0) return null;
  const then = sample?.balloonedBytes ?? null;
  const now = balloonedBytes ?? actualBytes;
  const grown = then === null || now === null ? 0 : Math.max(0, now - then);
  const old = then !== null && now !== null && !isNear(now, then);
  return { share: Math.max(0, availableBytes - grown) / totalBytes, old };
}

/** Why one should think twice before a balloon is to hold so much. */
export interface Doubt {
  /** What the guest can spare, by its own word; null when it did not say. */
  readonly limitBytes: number | null;
  /** What would be left to the guest. */
  readonly leftBytes: number;
  /** The guest said so before its balloon was changed last. */
  readonly old: boolean;
}

type Room = Pick<MemoryUse, 'memory' | 'spare' | 'sparedAt'>;

/** Undefined when there is nothing to think about: less is taken than now, or no more than the guest can spare. */
export function doubtOf(
  guest: Pick<GuestStatus, 'actualBytes' | 'balloonedBytes'>,
  use: Room | undefined,
  bytes: number,
): Doubt | undefined {
  if (use === undefined || bytes <= (guest.actualBytes ?? 0)) return undefined;
  const limitBytes = balloonLimit(use);
  if (limitBytes !== null && bytes <= limitBytes) return undefined;
  const old = use.sparedAt !== null && !isNear(guest.balloonedBytes ?? guest.actualBytes ?? 0, use.sparedAt);
  return { limitBytes, leftBytes: Math.max(0, use.memory - bytes), old };
}

/**
 * The doubts that refuse a target unless it is forced: above what the guest says that it can spare; where it says nothing,
 * only what would leave it nothing to run on.
 */
export function needsForce(
  guest: Pick<GuestStatus, 'actualBytes' | 'balloonedBytes'>,
  use: Room,
  bytes: number,
): Doubt | undefined {
  const doubt = doubtOf(guest, use, bytes);
  if (doubt === undefined || doubt.limitBytes !== null) return doubt;
  return doubt.leftBytes < RESERVE_SHARE * use.memory ? doubt : undefined;
}

/** What a guest keeps out of use for a hint session, which is why it may be in need. */
export const heldForHints = ({ hint }: Pick<GuestStatus, 'hint'>): number => hint?.heldBytes ?? 0;

/** How a hint session is, in a few words: a guest that named all that it does not use is not at rest, it holds that. */
export function hintWords({ state, heldBytes }: HintStatus, size: (bytes: number) => string): string {
  return state === 'stopped' && heldBytes > 0 ? `holding ${size(heldBytes)} until done` : state;
}

/**
 * What of the balloon does the host no good as it is, in words: the guest gave parts of huge pages. Empty where there is
 * nothing of the kind.
 */
export function incompleteWords(
  { incompleteBytes }: Pick<GuestStatus, 'incompleteBytes'>,
  size: (bytes: number) => string,
): string {
  return (incompleteBytes ?? 0) === 0 ? '' : `${size(incompleteBytes ?? 0)} wait for whole huge pages`;
}

/** Whether so much of the balloon waits for whole huge pages that a list should say it: a few pages always do. */
export const isMuchIncomplete = (guest: Pick<GuestStatus, 'incompleteBytes' | 'balloonedBytes'>): boolean =>
  (guest.incompleteBytes ?? 0) > INCOMPLETE_SHARE * (guest.balloonedBytes ?? 0);

/** What the target follows, in words, where it was given as what the guest is to keep; empty where it was not. */
export const keptWords = (
  { wishedMemoryBytes }: Pick<GuestStatus, 'wishedMemoryBytes'>,
  size: (bytes: number) => string,
): string => (wishedMemoryBytes === null ? '' : `the guest keeps ${size(wishedMemoryBytes)}`);

/** What left the account with memory that was taken out of the guest, in words; empty where nothing did. */
export const removedWords = (
  { removedBytes }: Pick<GuestStatus, 'removedBytes'>,
  size: (bytes: number) => string,
): string =>
  (removedBytes ?? 0) === 0
    ? ''
    : `${size(removedBytes ?? 0)} more was in memory that was removed from the guest, and counts again when it is back`;

/** What the resident figure counts, where it does not count what is in memory; empty where it does. */
export const residentWords = ({ memoryPlace }: Pick<GuestStatus, 'memoryPlace'>): string =>
  memoryPlace === 'disk'
    ? 'blocks of its file on disk; what of the file is in the page cache comes besides'
    : '';

type Stuck = Pick<GuestStatus, 'stuck' | 'actualBytes' | 'targetBytes' | 'shownTargetBytes'>;

/** Whether the guest can give no more, for now. */
export const isStuck = ({ stuck }: Pick<GuestStatus, 'stuck'>): boolean => stuck !== null;

/** How it is stuck, in words, with sizes and durations as the caller writes them; empty where it is not. */
export function stuckWords(
  { stuck, actualBytes, targetBytes, shownTargetBytes }: Stuck,
  size: (bytes: number) => string,
  duration: (ms: number) => string,
): string {
  if (stuck === null) return '';
  const since = new Date(stuck.sinceMs).toLocaleTimeString('en-GB');
  const where = `stuck since ${since} (${duration(stuck.forMs)}) at ${size(actualBytes ?? 0)} of ${size(targetBytes ?? 0)}`;
  if (!stuck.swings) return where;
  const shown = `the guest gave memory and took it back again and again, so its driver is shown ${size(shownTargetBytes ?? 0)}`;
  const again =
    stuck.retryInMs === null ? ' and tried again now' : `; all of it again in ${duration(stuck.retryInMs)}`;
  return `${where}: ${shown}${again}`;
}

/** That a policy set the target, and whether it is silent; empty for a target of others. */
export function policyWords({ targetOwner }: Pick<GuestStatus, 'targetOwner'>): string {
  if (targetOwner?.by !== 'policy') return '';
  if (!targetOwner.lapsed) return 'set by the memory policy';
  const since = new Date(targetOwner.untilMs ?? 0).toLocaleTimeString('en-GB');
  return `set by the memory policy, which is silent: its lease ended at ${since}`;
}
