/**
 * Gives all memory back to guests whose policy is silent and wished for that, where their hypervisors know no leases. It goes
 * by what the policy left in its heartbeat, and ends when there is nothing left to look after. How a guest is reached is
 * the caller's.
 */
import { writeFileSync } from 'node:fs';
import type { SteeringClock } from './clock.ts';
import { type Heartbeat, type HeldTarget, isAlive, isSilent, readHeartbeat } from './heartbeat.ts';

const LOOK_MS = 500;
/** A guest that cannot be reached for so long is given up. */
const PATIENCE_MS = 600_000;

interface GuardOptions {
  /** The policy's heartbeat. */
  readonly path: string;
  readonly clock: SteeringClock;
  /** Empties the balloon of a guest. It may fail, and is tried again. */
  readonly release: (guest: HeldTarget & { readonly monitor: string }) => Promise<void>;
}

/** Resolves when the policy is gone and all that it held is released, or when another policy took its place. */
export async function guard({ path, clock, release }: GuardOptions): Promise<void> {
  for (let silentSinceMs: number | undefined; ; await pause(clock)) {
    const heartbeat = readHeartbeat(path);
    if (heartbeat === undefined) return;
    const isGone = !isAlive(heartbeat.pid);
    if (!isSilent(heartbeat, clock.nowMs())) {
      silentSinceMs = undefined;
      continue;
    }
    silentSinceMs ??= clock.nowMs();
    if (heartbeat.onSilence === 'release') await releaseAll(path, heartbeat, release);
    const left = readHeartbeat(path);
    const isDone = left === undefined || left.onSilence === 'keep' || left.guests.every(isFree);
    if (isGone && (isDone || clock.nowMs() - silentSinceMs > PATIENCE_MS)) return;
  }
}

const isFree = ({ monitor, released }: HeldTarget): boolean => monitor === null || released;

async function releaseAll(
  path: string,
  heartbeat: Heartbeat,
  release: GuardOptions['release'],
): Promise<void> {
  const guests = await Promise.all(
    heartbeat.guests.map(async (guest): Promise<HeldTarget> => {
      const { monitor, released } = guest;
      if (monitor === null || released) return guest;
      return release({ ...guest, monitor }).then(
        () => ({ ...guest, targetBytes: 0, released: true }),
        () => guest,
      );
    }),
  );
  // A policy that decides again meanwhile has the last word.
  if (readHeartbeat(path)?.atMs !== heartbeat.atMs) return;
  writeFileSync(path, JSON.stringify({ ...heartbeat, guests }), { mode: 0o600 });
}

const pause = (clock: SteeringClock): Promise<void> =>
  new Promise(resolve => {
    clock.schedule(LOOK_MS, resolve);
  });
