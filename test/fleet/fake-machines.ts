/** Machines of a host that are played: where each guest is, and how its migration goes, is the test's to say. */
import type { MigrationStatus } from '../../src/control/migrations.ts';
import type { Machine, Machines } from '../../src/fleet/machines.ts';
import { reportOf } from './samples.ts';

export const moving = (to: string, more: Partial<MigrationStatus> = {}): MigrationStatus => ({
  to,
  state: {
    status: 'sending',
    elapsedMs: 1,
    round: 1,
    totalBytes: 100,
    sentBytes: 10,
    remainingBytes: 90,
    bytesPerSecond: 10,
    expectedDowntimeMs: null,
    guestShare: 1,
  },
  report: null,
  error: null,
  ...more,
});

const REPORT = { totalMs: 1, downtimeMs: 1, rounds: 1, bytes: 1, pages: 1, zeroPages: 0 };
export const moved = (to: string): MigrationStatus =>
  moving(to, {
    report: {
      ...REPORT,
      resentPages: 0,
      freePages: 0,
      balloonPages: 0,
      unbackedPages: 0,
      hintRaces: 0,
    },
  });

interface Played {
  incarnation: string;
  migration: MigrationStatus | null;
  isHere: boolean;
}

export class FakeMachines {
  readonly guests = new Map<string, Played>();
  /** Where machines were told to go, in the order in which they were. */
  readonly told: string[] = [];
  /** What a machine does when it is told to migrate. */
  onMigrate: (guest: string, to: string) => MigrationStatus = (guest, to) => {
    this.guests.delete(guest);
    return moved(to);
  };

  add(guest: string, incarnation = 'host1-1'): void {
    this.guests.set(guest, { incarnation, migration: null, isHere: true });
  }

  get machines(): Machines {
    const find = async (guest: string) => this.#machine(guest);
    return {
      socketOf: (guest: string) => `/${guest}.sock`,
      logOf: (guest: string) => `/${guest}.log`,
      controlOf: (guest: string) => this.#control(guest),
      find,
      changed: () => {},
      all: async () =>
        (await Promise.all([...this.guests.keys()].map(find))).filter(one => one !== undefined),
    } as unknown as Machines;
  }

  #machine(guest: string): Machine | undefined {
    const played = this.guests.get(guest);
    if (played === undefined) return undefined;
    const [known] = reportOf('host1', { names: [guest] }).guests;
    return {
      guest,
      control: this.#control(guest),
      isHere: played.isHere,
      migration: played.migration,
      known: { ...known, incarnation: played.incarnation },
    } as Machine;
  }

  #control(guest: string): Machine['control'] {
    return {
      migration: async () => {
        const played = this.guests.get(guest);
        if (played === undefined) throw new Error('no daemon listens');
        return { migration: played.migration, obstacle: null, dirtyBytesPerSecond: null };
      },
      migrate: async (_: string, { to }: { to: string }) => {
        this.told.push(`${guest} ${to}`);
        const status = this.onMigrate(guest, to);
        const played = this.guests.get(guest);
        if (played !== undefined) played.migration = status;
        return status;
      },
    } as unknown as Machine['control'];
  }
}
