/**
 * Moving guests, as whoever steers sees it: the part of {@link Control} that is about migrations, in one shape whoever
 * moves the guest. Null is what the mover does not tell.
 */
import { GuestStateError } from './errors.ts';

/** Where a migration is. */
export interface MigrationState {
  /** In the mover's own words. */
  readonly status: string;
  readonly elapsedMs: number;
  readonly round: number | null;
  readonly totalBytes: number | null;
  readonly sentBytes: number | null;
  readonly remainingBytes: number | null;
  readonly bytesPerSecond: number | null;
  readonly expectedDowntimeMs: number | null;
  /** The share of its time that the guest has; less than 1 when it is slowed down. */
  readonly guestShare: number | null;
}

/** How a migration went. */
export interface MigrationReport {
  readonly totalMs: number;
  /** How long the guest stood still. */
  readonly downtimeMs: number | null;
  readonly rounds: number;
  /** What went over the wire. */
  readonly bytes: number;
  readonly pages: number;
  readonly zeroPages: number;
  readonly resentPages: number | null;
  /** Never sent: named by the guest as free, in the balloon, or nothing that the host held. */
  readonly freePages: number | null;
  readonly balloonPages: number | null;
  readonly unbackedPages: number | null;
  /** Pages that were written after the guest had named them as free, and sent for it. */
  readonly hintRaces: number | null;
}

/** A migration under way, or the last one. */
export interface MigrationStatus {
  readonly to: string;
  readonly state: MigrationState;
  /** Once the guest is at its destination. */
  readonly report: MigrationReport | null;
  /** Why it is not, once that is known; `code` is stable. */
  readonly error: { readonly code: string; readonly message: string } | null;
}

/** All there is to say of a guest that somebody may want to move. */
export interface MigrationAnswer {
  /** Under way, or the last one; null when there was none. */
  readonly migration: MigrationStatus | null;
  /** Why the guest cannot be moved from here at all; null when it can. */
  readonly obstacle: string | null;
}

export interface MigrationOrder {
  /** Where the destination waits: `tcp:HOST:PORT`. */
  readonly to: string;
  readonly connections?: number;
  readonly bandwidthBytesPerSecond?: number;
  /** How long the guest may stand still. */
  readonly downtimeMsMax?: number;
  readonly roundsMax?: number;
  /** Slow the guest down when it writes faster than can be sent. Default: yes. */
  readonly autoConverge?: boolean;
  /** How the guest names free pages, by the names of vm/free-page-channel.ts. */
  readonly channel?: string;
  /** With zstd, of Node (22.15) or of the host (libzstd.so.1); it fails when one side has neither. */
  readonly compress?: boolean;
}

export interface Migrations {
  /** Why the guest cannot be moved from here at all; null when it can. @throws UnknownGuestError */
  obstacle(name: string): Promise<string | null>;
  /**
   * Begins to move a guest; its progress is {@link status}'s.
   * @throws GuestStateError when it cannot be moved, or is moving; UnknownGuestError
   */
  start(name: string, order: MigrationOrder): Promise<MigrationStatus>;
  /** Null when there was none. @throws UnknownGuestError */
  status(name: string): Promise<MigrationStatus | null>;
  /** Gives it up, and the guest goes on where it is. @throws GuestStateError when there is none to give up */
  cancel(name: string): Promise<void>;
}

const movedElsewhere = (name: string): string =>
  `${name} is moved by whoever runs it, not by its balloon's daemon; see aerostat vm, or --qmp for a guest of QEMU's`;

/** Of a daemon that has guests' balloons, but not the guests: who runs them moves them. */
export const NO_MIGRATIONS: Migrations = {
  obstacle: async name => movedElsewhere(name),
  start: async name => {
    throw new GuestStateError(movedElsewhere(name));
  },
  status: async () => null,
  cancel: async name => {
    throw new GuestStateError(`${name} is not being moved`);
  },
};

/** Those of whoever hosts guests. */
export const migrationsOf = (control: object): Migrations =>
  'migrations' in control ? (control.migrations as Migrations) : NO_MIGRATIONS;
