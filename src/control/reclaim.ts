/**
 * Before a snapshot of a guest: as much as it can spare goes into the balloon, it is asked for free page hints, and what it
 * does not use then is listed, so that a snapshotter need not keep it. Afterwards the guest has it back. Works with
 * any control, here or over the API; who takes the snapshot, and how, is not its business.
 */
import type { GuestStatus, HintStatus } from './contract.ts';
import { GuestStateError } from './errors.ts';
import { isSettled } from './judgement.ts';
import { balloonLimit, spareOf } from './memory-use.ts';
import type { GuestControl } from './operations.ts';
import { type UnneededRange, unneededRanges } from './unneeded-ranges.ts';

/** How often it is looked whether the guest is there. */
const POLL_MS = 20;
/** The share of the time that the balloon may take where hints are to come as well. */
const BALLOON_SHARE = 0.6;
/** A list that its guest changed while it was read is read again, so often. */
const READS_MAX = 3;

interface ReclaimOrder {
  readonly budgetMs: number;
  /** Ask for hints, too. */
  readonly hints: boolean;
  /** When the daemon ends the hint session, if it is not ended before. */
  readonly holdMs: number;
}

interface ReclaimWorld {
  /** Monotonic. */
  nowMs(): number;
  /** @throws when the user interrupts it */
  sleep(ms: number): Promise<void>;
  onProgress?(guest: GuestStatus, what: string): void;
}

/** What the target was, so that it can be again. */
export interface FormerTarget {
  readonly targetBytes: number | null;
  /** What the guest was to keep, where the target was given like that. */
  readonly memoryBytes: number | null;
}

export interface Reclaimed {
  readonly guest: string;
  /** Wall clock, milliseconds since the epoch: when the list was whole. */
  readonly atMs: number;
  readonly memoryBytes: number;
  readonly regions: readonly { readonly guestAddress: number; readonly bytes: number }[];
  readonly ranges: readonly UnneededRange[];
  readonly former: FormerTarget;
  readonly balloon: {
    readonly targetBytes: number;
    readonly balloonedBytes: number;
    readonly reached: boolean;
  };
  /** Null where none were asked for. */
  readonly hints: HintStatus | null;
  /** Why there are none, in words. */
  readonly noHints: string | null;
  /** When the hint session ends by itself, and the hinted ranges with it; null where there is none. */
  readonly hintsUntilMs: number | null;
}

/**
 * @throws GuestStateError when the guest is not connected, its hypervisor tells no map of its memory, or it gives and takes
 *   pages all the time; its target is what it was then, and no hint session is open
 */
export async function reclaim(
  control: GuestControl,
  name: string,
  order: ReclaimOrder,
  world: ReclaimWorld,
): Promise<Reclaimed> {
  const endMs = world.nowMs() + order.budgetMs;
  const before = await control.guest(name);
  if (!before.connected)
    throw new GuestStateError(`${name} is not connected: it has nothing that could be listed`);
  const former = formerOf(before);
  try {
    const targetBytes = await inflate(control, before, { ...order, endMs }, world);
    const { hints, noHints } = order.hints
      ? await hint(control, name, { ...order, endMs }, world)
      : { hints: null, noHints: 'they were not asked for' };
    return await listed(control, name, { former, targetBytes, hints, noHints });
  } catch (error) {
    await restoreTarget(control, name, former).catch(() => {});
    throw error;
  }
}

/** The guest may have back what it gave for the snapshot: its hint session ends, and its target is what it was. */
export async function restoreTarget(
  control: GuestControl,
  name: string,
  { targetBytes, memoryBytes }: FormerTarget,
): Promise<GuestStatus> {
  const status = await control.guest(name);
  const open = status.hint !== null && !['unsupported', 'idle', 'done'].includes(status.hint.state);
  if (open) await control.hint(name, { action: 'done' });
  if (memoryBytes !== null) return control.change(name, { memoryBytes, force: true });
  return targetBytes === null ? status : control.change(name, { targetBytes, force: true });
}

const formerOf = ({ targetBytes, wishedMemoryBytes }: GuestStatus): FormerTarget => ({
  targetBytes,
  memoryBytes: wishedMemoryBytes,
});

interface Deadline extends ReclaimOrder {
  readonly endMs: number;
}

/** Asks for what the guest says that it can spare; returns the target. A guest that says nothing keeps its target. */
async function inflate(
  control: GuestControl,
  guest: GuestStatus,
  { endMs, budgetMs, hints }: Deadline,
  world: ReclaimWorld,
): Promise<number> {
  const { name, memoryBytes } = guest;
  const target = guest.targetBytes ?? 0;
  // Long enough for a driver that answers at all, and not all of the time for one that does not.
  const sample = await control
    .statistics(name, { freshMs: 0, timeoutMs: Math.max(1, Math.min(1000, Math.floor(budgetMs / 4))) })
    .catch(() => undefined);
  const limit = memoryBytes === null ? null : balloonLimit({ memory: memoryBytes, ...spareOf(sample) });
  // What the guest was asked for before stays asked for.
  if (limit === null || limit <= target) return target;
  await control.change(name, { targetBytes: limit });
  const untilMs = hints ? endMs - budgetMs * (1 - BALLOON_SHARE) : endMs;
  for (;;) {
    const now = await control.guest(name);
    world.onProgress?.(now, 'balloon');
    if (isSettled(now, limit) || now.stuck !== null || world.nowMs() >= untilMs) return limit;
    await world.sleep(POLL_MS);
  }
}

async function hint(
  control: GuestControl,
  name: string,
  { endMs, holdMs }: Deadline,
  world: ReclaimWorld,
): Promise<{ hints: HintStatus | null; noHints: string | null }> {
  try {
    await control.hint(name, { action: 'start', limitMs: holdMs });
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'AEROSTAT_GUEST_STATE') throw error;
    return { hints: null, noHints: error.message };
  }
  for (;;) {
    const status = await control.guest(name);
    const state = status.hint?.state;
    world.onProgress?.(status, 'hints');
    if (state !== 'requested' && state !== 'running') break;
    if (world.nowMs() >= endMs) {
      // What it named so far counts; what it names from now on does not.
      await control.hint(name, { action: 'stop' });
      break;
    }
    await world.sleep(POLL_MS);
  }
  return { hints: await control.hintStatus(name), noHints: null };
}

interface Outcome extends Pick<Reclaimed, 'former' | 'hints' | 'noHints'> {
  readonly targetBytes: number;
}

async function listed(
  control: GuestControl,
  name: string,
  { former, targetBytes, hints, noHints }: Outcome,
): Promise<Reclaimed> {
  for (let read = 0; read < READS_MAX; read++) {
    const before = await control.guest(name);
    const { memoryBytes, regions, ranges } = await unneededRanges(control, name, hints !== null);
    const after = await control.guest(name);
    // A guest that took pages back meanwhile may have taken one that was listed a moment before.
    if (deflations(before) !== deflations(after) || before.counters?.resets !== after.counters?.resets)
      continue;
    const now = hints === null ? null : await control.hintStatus(name);
    const atMs = Date.now();
    return {
      ...{ guest: name, atMs, memoryBytes, regions, ranges, former, noHints },
      balloon: {
        targetBytes,
        balloonedBytes: after.balloonedBytes ?? 0,
        reached: isSettled(after, targetBytes),
      },
      hints: now,
      hintsUntilMs: now === null || now.endsInMs === null ? null : atMs + now.endsInMs,
    };
  }
  throw new GuestStateError(
    `${name} takes pages back faster than they can be listed; give it time, or a lower target`,
  );
}

const deflations = ({ counters }: GuestStatus): number | undefined => counters?.deflateBuffers;
