/** What can be wrong with what a {@link Control} is asked: no daemon's fault, and so answered, not thrown up. */
import { AerostatError } from '../sys/error.ts';

/** Raised for a guest name that nobody answers to. */
export class UnknownGuestError extends AerostatError {
  constructor(name: string, known: readonly string[]) {
    const list = known.length === 0 ? 'there is none' : `known: ${known.join(', ')}`;
    super('AEROSTAT_UNKNOWN_GUEST', `no guest is called ${name}; ${list}`);
  }
}

/** Raised for the order of a migration that makes no sense, whatever state the guest is in. */
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
