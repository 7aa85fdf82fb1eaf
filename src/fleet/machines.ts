/**
 * The machines of this host: one for each socket in a directory, where `aerostat vm` and `aerostat receive` have their APIs.
 * They are processes of their own, so that they outlive the agent; it only asks them.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { GuestStatistics, GuestStatus } from '../control/contract.ts';
import type { MigrationStatus } from '../control/migrations.ts';
import type { Control } from '../control/operations.ts';
import type { ReportedGuest } from './messages.ts';

const SUFFIX = '.sock';
/** Above what a guest uses, as the policy of a host has it. */
const HEADROOM = 1.1;

export interface Machine {
  readonly guest: string;
  readonly control: Control;
  readonly migration: MigrationStatus | null;
  /** As its host reports it, but for what the agent knows of orders. */
  readonly known: Omit<ReportedGuest, 'moving' | 'left'>;
  /** It runs here: it has not left, and is not on its way to us. */
  readonly isHere: boolean;
}

interface Reading {
  readonly machine: Machine;
  /** When it was asked. */
  readonly atMs: number;
}

export class Machines {
  readonly #directory: string;
  readonly #connect: (socket: string) => Control;
  readonly #now: () => number;
  readonly #controls = new Map<string, Control>();
  readonly #readings = new Map<string, Reading>();
  /** What was asked before it changed is not kept. */
  #generation = 0;

  constructor(directory: string, connect: (socket: string) => Control, now: () => number) {
    this.#directory = directory;
    this.#connect = connect;
    this.#now = now;
  }

  socketOf(guest: string): string {
    return join(this.#directory, `${guest}${SUFFIX}`);
  }

  logOf(guest: string): string {
    return join(this.#directory, `${guest}.log`);
  }

  /** The same each time: a client hears of the program's end, and is not forgotten before that. */
  controlOf(guest: string): Control {
    const known = this.#controls.get(guest) ?? this.#connect(this.socketOf(guest));
    this.#controls.set(guest, known);
    return known;
  }

  /**
   * All that answer. One that does not is left out: it has just ended, or begins. One that was asked less than `ageMsMax` ago
   * is not asked again: all of a host that is drained are looked at whenever one of them begins to move or has left.
   */
  async all(ageMsMax = 0): Promise<readonly Machine[]> {
    const names = this.#names();
    for (const gone of [...this.#controls.keys()].filter(name => !names.includes(name))) {
      this.#controls.delete(gone);
      this.#readings.delete(gone);
    }
    const youngMs = this.#now() - ageMsMax;
    const asked = names.map(async name => {
      const read = this.#readings.get(name);
      return read !== undefined && read.atMs > youngMs ? read.machine : this.find(name);
    });
    return (await Promise.all(asked)).filter(machine => machine !== undefined);
  }

  /** It is asked now. */
  async find(guest: string): Promise<Machine | undefined> {
    const [atMs, generation] = [this.#now(), this.#generation];
    const machine = await this.#machine(guest).catch(() => undefined);
    const newer = (this.#readings.get(guest)?.atMs ?? atMs) > atMs;
    if (machine === undefined) this.#readings.delete(guest);
    else if (!newer && generation === this.#generation) this.#readings.set(guest, { machine, atMs });
    return machine;
  }

  /** What is known of it is not so any more. */
  changed(guest: string): void {
    this.#generation++;
    this.#readings.delete(guest);
  }

  #names(): readonly string[] {
    try {
      return readdirSync(this.#directory)
        .filter(name => name.endsWith(SUFFIX))
        .map(name => name.slice(0, -SUFFIX.length));
    } catch {
      // The directory is made by the first machine.
      return [];
    }
  }

  async #machine(name: string): Promise<Machine | undefined> {
    const control = this.controlOf(name);
    const [statuses, samples, daemon] = await Promise.all([
      control.guests(),
      control.samples(),
      control.daemon(),
    ]);
    const status = statuses.find(guest => guest.name === name);
    if (status === undefined) return undefined;
    const { obstacle, migration, dirtyBytesPerSecond } = await control.migration(name);
    return {
      guest: name,
      control,
      isHere: status.connected,
      migration,
      known: {
        guest: name,
        incarnation: `${daemon.startedAtMs}-${daemon.pid}`,
        sizeBytes: status.memoryBytes ?? 0,
        residentBytes: status.residentBytes ?? status.memoryBytes ?? 0,
        needBytes: needOf(status, samples[name]?.statistics),
        // No policy of this host's steers it, and none keeps anything for it.
        minBytes: 0,
        // A machine that was started with an older program does not tell.
        dirtyBytesPerSecond: dirtyBytesPerSecond ?? null,
        obstacle,
      },
    };
  }
}

/** What its programs use, with head-room; what it has where it says nothing. */
function needOf({ memoryBytes, residentBytes }: GuestStatus, said: GuestStatistics | undefined): number {
  const { totalBytes = null, availableBytes = null } = said ?? {};
  if (totalBytes === null || availableBytes === null) return residentBytes ?? memoryBytes ?? 0;
  const used = Math.max(0, totalBytes - availableBytes);
  return Math.round(Math.min(used * HEADROOM, memoryBytes ?? Number.MAX_SAFE_INTEGER));
}
