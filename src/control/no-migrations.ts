/** Migrations of a host that has the balloons of its guests, but does not run the guests: it cannot move them. */
import { GuestStateError } from './errors.ts';
import type { GuestHandlers, MigrationOperation } from './operations.ts';

const movedElsewhere = (name: string): string =>
  `${name} is moved by the program that runs it, not by the daemon of its balloon; see aerostat vm, or --qmp for a guest of QEMU`;

/** `expect` throws UnknownGuestError for a name that no guest has. */
export const noMigrations = (expect: (name: string) => void): GuestHandlers<MigrationOperation> => ({
  migration: async name => {
    expect(name);
    return { migration: null, obstacle: movedElsewhere(name), dirtyBytesPerSecond: null };
  },
  migrate: async name => {
    expect(name);
    throw new GuestStateError(movedElsewhere(name));
  },
  cancelMigration: async name => {
    expect(name);
    throw new GuestStateError(`${name} is not being moved`);
  },
});
