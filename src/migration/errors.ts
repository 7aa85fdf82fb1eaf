/** How a migration fails. Damaged streams have an error of their own, StreamError. */
import { AerostatError, wireError } from '../sys/error.ts';

/** The migration ended without success, and the guest runs on at the source. */
export class MigrationError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_MIGRATION_FAILED', message, options);
  }
}

/** An operator asked for the migration's end; the guest runs on at the source. */
export class MigrationCancelled extends AerostatError {
  readonly reason: string;

  constructor(reason: string) {
    super('AEROSTAT_MIGRATION_CANCELLED', `the migration was cancelled: ${reason}`);
    this.reason = reason;
  }
}

/**
 * The guest was handed over, and it is not known whether it runs at the destination. It stays stopped here, since two of
 * it would be worse than none.
 */
export class MigrationUnknown extends AerostatError {
  constructor(options?: ErrorOptions) {
    super(
      'AEROSTAT_MIGRATION_UNKNOWN',
      'the destination was told to run the guest and cannot be reached to ask whether it does. The guest stands still here, and its destination is asked on; look there, and call the guest back (aerostat migrate --cancel) only if it runs nowhere else',
      options,
    );
  }
}

/** How a side is sent away, with what is wrong. */
export const refusalOf = (error: Error): { kind: 'refused'; code: string; message: string } => ({
  kind: 'refused',
  ...wireError(error, 'AEROSTAT_MIGRATION_FAILED'),
});
