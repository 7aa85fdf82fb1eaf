/**
 * What policies left in their heartbeats, for programs that look at the same guests: whose the targets are of guests whose
 * hypervisors know no leases, and how a policy is that does not answer any more.
 */
import type { GuestStatus } from '../control/contract.ts';
import { isNear } from '../control/judgement.ts';
import type { Control } from '../control/operations.ts';
import { POLICY_OFF, type PolicyStatus } from '../control/policy.ts';
import { type Heartbeat, type HeldTarget, isSilent, leaseEndMs, readHeartbeats } from './heartbeat.ts';

type NowMs = () => number;

/** The control, whose guests behind monitors have the target and its owner that a policy left word of. */
export function knowingLeases(control: Control, directory: string, nowMs: NowMs): Control {
  const known = (statuses: readonly GuestStatus[]): readonly GuestStatus[] => {
    const heartbeats = statuses.some(isUnknown) ? readHeartbeats(directory) : [];
    return heartbeats.length === 0
      ? statuses
      : statuses.map(status => withLease(status, heartbeats, nowMs()));
  };
  return {
    ...control,
    guests: async () => known(await control.guests()),
    guest: async name => known([await control.guest(name)])[0],
  };
}

const isUnknown = ({ counters, targetOwner, socketPath }: GuestStatus): boolean =>
  counters === null && targetOwner === null && socketPath !== null;

function withLease(status: GuestStatus, heartbeats: readonly Heartbeat[], nowMs: number): GuestStatus {
  if (!isUnknown(status)) return status;
  for (const heartbeat of heartbeats) {
    const held = heartbeat.guests.find(({ monitor }) => monitor === status.socketPath);
    const lapsed = isSilent(heartbeat, nowMs);
    if (held === undefined || !(holds(status, held) || !lapsed)) continue;
    const { targetBytes } = held;
    return { ...status, targetBytes, targetOwner: { by: 'policy', untilMs: leaseEndMs(heartbeat), lapsed } };
  }
  return status;
}

/** A balloon that holds something else was set by another since, of whom nothing is known. */
const holds = ({ actualBytes }: GuestStatus, { targetBytes }: HeldTarget): boolean =>
  actualBytes !== null && isNear(actualBytes, targetBytes);

/** How a policy is of which only its heartbeat is left. */
export function statusLeft(heartbeat: Heartbeat, nowMs: number): PolicyStatus {
  const { dryRun, periodMs, decisions, moves, onSilence, atMs } = heartbeat;
  const running = dryRun ? 'dry-run' : 'running';
  return {
    ...POLICY_OFF,
    ...{ dryRun, periodMs, decisions, moves, onSilence },
    state: isSilent(heartbeat, nowMs) ? 'silent' : running,
    decidedAgoMs: Math.max(0, nowMs - atMs),
  };
}
