/**
 * Three embedded guests that live, for a person who sees the dashboard for the first time: one serves files from its
 * cache, one works in waves and leaves free memory behind, one builds software and moves to another host now and then.
 * What they do with their memory is theirs; how much of it they have is keeper.ts's, until the onlooker says otherwise.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { combinedControl } from '../control/combined-control.ts';
import { hostedControl } from '../control/hosted-control.ts';
import type { Control } from '../control/operations.ts';
import type { GuestProcess } from '../embedded/guest-process.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { AerostatError } from '../sys/error.ts';
import type { VmOptions } from '../vm/options.ts';
import { keepTargets } from './keeper.ts';
import { MigratingGuest } from './migrating-guest.ts';

const MIB = 2 ** 20;

/** Starts an embedded guest in a process of its own. */
export type StartGuest = (options: {
  readonly socketPath: string;
  readonly memoryBytes: number;
  readonly seed: number;
}) => Promise<GuestProcess>;

/** A guest on the daemon's device. */
interface Role {
  readonly name: string;
  readonly memoryBytes: number;
  readonly seed: number;
  readonly live: (guest: GuestProcess, signal: AbortSignal) => Promise<void>;
}

const pause = (ms: number, signal: AbortSignal): Promise<void> => delay(ms, undefined, { signal });

const ROLES: readonly Role[] = [
  {
    name: 'files',
    memoryBytes: 512 * MIB,
    seed: 2,
    live: async (guest, signal) => {
      await guest.tell({ do: 'use', bytes: 60 * MIB });
      for (let megabytes = 48; ; megabytes = megabytes === 192 ? 48 : megabytes + 48) {
        await guest.tell({ do: 'cache', bytes: megabytes * MIB });
        await pause(5000, signal);
      }
    },
  },
  {
    name: 'waves',
    memoryBytes: 256 * MIB,
    seed: 3,
    live: async (guest, signal) => {
      for (;;) {
        for (let step = 0; step < 4; step++) {
          await guest.tell({ do: 'use', bytes: 24 * MIB });
          await pause(1500, signal);
        }
        await pause(4000, signal);
        await guest.tell({ do: 'free' });
        await pause(6000, signal);
      }
    },
  },
];

const TRAVELLER: VmOptions & { readonly name: string } = {
  name: 'traveller',
  memoryBytes: 256 * MIB,
  workloads: [{ kind: 'build' }],
  pagesPerSecondMax: (24 * MIB) / PAGE_SIZE,
};
/** Between two journeys; one takes some seconds. */
const AT_HOME_MS = 25_000;

/** Names of the guests that need a socket of the daemon, which is called as they are. */
export const DEVICE_NAMES: readonly string[] = ROLES.map(({ name }) => name);
export const LIVING_GUEST_NAMES: readonly string[] = [...DEVICE_NAMES, TRAVELLER.name];
/** All of their memory together. */
export const LIVING_GUEST_BYTES: number =
  ROLES.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0) + TRAVELLER.memoryBytes;

export class LivingGuests {
  /** Of all of them, wherever they are. */
  readonly control: Control;
  readonly #guests: readonly GuestProcess[];
  readonly #traveller: MigratingGuest;
  readonly #ending = new AbortController();
  readonly #lives: readonly Promise<void>[];

  private constructor(
    daemon: Control,
    version: string,
    guests: readonly GuestProcess[],
    traveller: MigratingGuest,
    isKept: boolean,
  ) {
    this.#guests = guests;
    this.#traveller = traveller;
    const routes = DEVICE_NAMES.map(name => ({ name, control: daemon, remoteName: name }));
    this.control = {
      ...hostedControl(combinedControl([...routes, traveller.route]), version),
      daemon: () => daemon.daemon(),
    };
    this.#lives = [
      ...guests.map((guest, at) => this.#live(guest, ROLES[at])),
      this.#travel(),
      ...(isKept ? [keepTargets(this.control, this.#ending.signal)] : []),
    ];
  }

  /**
   * Boots the guests, two of them on the daemon's sockets in `directory`. `start` starts the process of a guest. `kept`: their
   * targets are moved from here; else a policy moves them.
   */
  static async boot(
    directory: string,
    daemon: { readonly control: Control; readonly version: string },
    start: StartGuest,
    { kept = true } = {},
  ): Promise<LivingGuests> {
    const booting = ROLES.map(({ name, memoryBytes, seed }) =>
      start({ socketPath: join(directory, name), memoryBytes, seed }),
    );
    const [traveller, ...booted] = await Promise.allSettled([MigratingGuest.start(TRAVELLER), ...booting]);
    const guests = booted.flatMap(one => (one.status === 'fulfilled' ? [one.value] : []));
    const failed = [traveller, ...booted].find(one => one.status === 'rejected');
    if (traveller.status === 'fulfilled' && failed === undefined) {
      return new LivingGuests(daemon.control, daemon.version, guests, traveller.value, kept);
    }
    await Promise.all(guests.map(guest => guest.close()));
    if (traveller.status === 'fulfilled') await traveller.value.close();
    throw failed?.reason;
  }

  async close(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#lives);
    await Promise.all(this.#guests.map(guest => guest.close()));
    await this.#traveller.close();
  }

  async #live(guest: GuestProcess, role: Role): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      try {
        return await role.live(guest, signal);
      } catch (error) {
        if (signal.aborted) return;
        // Short of memory, its processes die; it begins again, as people's guests do.
        if (!(error instanceof AerostatError) || error.code === 'AEROSTAT_GUEST_ENDED') return;
        await pause(1000, signal).catch(() => {});
      }
    }
  }

  async #travel(): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      await pause(AT_HOME_MS, signal).catch(() => {});
      // The onlooker may have sent it somewhere.
      if (!signal.aborted) await this.#traveller.travel().catch(() => {});
    }
  }
}
