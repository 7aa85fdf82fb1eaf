/** What can be wrong with what a {@link Control} is asked: no daemon's fault, and so answered, not thrown up. */
import { AerostatError } from '../sys/error.ts';
import { formatSize } from '../sys/size.ts';
import type { GuestChanges } from './contract.ts';
import type { Doubt } from './judgement.ts';

/** Raised for a guest name that no guest has. */
export class UnknownGuestError extends AerostatError {
  constructor(name: string, known: readonly string[]) {
    const list = known.length === 0 ? 'there is none' : `known: ${known.join(', ')}`;
    super('AEROSTAT_UNKNOWN_GUEST', `no guest is called ${name}; ${list}`);
  }
}

/** Raised for a target above what the guest can spare, by its own word, that was not confirmed. */
export class UnconfirmedError extends AerostatError {
  constructor(name: string, targetBytes: number, doubt: Doubt, ageMs: number | null) {
    const { limitBytes, leftBytes, old } = doubt;
    const age = ageMs === null ? '' : `, ${Math.round(ageMs / 1000)}s ago`;
    const when = old ? `${age}, before its balloon was changed` : age;
    const why =
      limitBytes === null
        ? `next to nothing (${formatSize(leftBytes)}) would be left to ${name}`
        : `${name} says that it can spare ${formatSize(limitBytes)}${when}; ${formatSize(leftBytes)} would be left to it`;
    super(
      'AEROSTAT_UNCONFIRMED',
      `${why}. Its target stays; to take ${formatSize(targetBytes)} all the same, say so with --force ("force": true)`,
    );
  }
}

/** Raised for an order of a migration that is malformed, whatever state the guest is in. */
export class MigrationOrderError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_MIGRATION_ORDER', message);
  }
}

/** Raised when a guest cannot do what was asked: not connected, or the feature was not negotiated. */
export class GuestStateError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_GUEST_STATE', message);
  }
}

/** Raised for what only a memory policy can do, where there is none. */
export class PolicyOffError extends AerostatError {
  constructor() {
    super(
      'AEROSTAT_POLICY_OFF',
      'no memory policy runs here; start one with "aerostat policy run", or say where it is with --api',
    );
  }
}

/** @throws GuestStateError where the definition of a guest is to be changed that has none, or none that is known here */
export function checkNoDefinition(name: string, { persist }: GuestChanges): void {
  if (persist === true) {
    throw new GuestStateError(
      `${name} is no domain of libvirt, and has no definition that could keep this (--persist)`,
    );
  }
}

/** @throws GuestStateError for a target that is said in two ways at once, and for a lease of none */
export function checkOneTarget({ targetBytes, memoryBytes, lease }: GuestChanges): void {
  if (lease !== undefined && targetBytes === undefined && memoryBytes === undefined) {
    throw new GuestStateError('a lease is of a target; name the target with it');
  }
  if (targetBytes === undefined || memoryBytes === undefined) return;
  throw new GuestStateError('targetBytes and memoryBytes are two ways to say the same; name one');
}
