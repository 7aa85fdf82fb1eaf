/**
 * Three embedded guests that live, for somebody who looks at a dashboard for the first time: one builds software, one
 * serves files from its cache, one works in waves and leaves free memory behind. What they do with their memory is
 * theirs; how much of it they have is the onlooker's.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { AerostatError } from '../sys/error.ts';
import { GuestChild } from './guest-child.ts';

const MIB = 2 ** 20;

export interface Role {
  readonly name: string;
  readonly memoryBytes: number;
  readonly words: readonly string[];
  readonly live: (guest: GuestChild, signal: AbortSignal) => Promise<void>;
}

const pause = (ms: number, signal: AbortSignal): Promise<void> => delay(ms, undefined, { signal });

export const ROLES: readonly Role[] = [
  {
    name: 'builder',
    memoryBytes: 512 * MIB,
    words: ['--workload', 'build', '--rate', '96M'],
    live: async () => {},
  },
  {
    name: 'files',
    memoryBytes: 512 * MIB,
    words: ['--seed', '2'],
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
    words: ['--seed', '3'],
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

export class LivingGuests {
  readonly #guests: readonly GuestChild[];
  readonly #ending = new AbortController();
  readonly #lives: readonly Promise<void>[];

  private constructor(guests: readonly GuestChild[]) {
    this.#guests = guests;
    this.#lives = guests.map((guest, at) => this.#live(guest, ROLES[at]));
  }

  /** Boots the guests on the daemon's sockets in `directory`, which are called as they are. */
  static async boot(directory: string): Promise<LivingGuests> {
    const booting = ROLES.map(({ name, memoryBytes, words }) =>
      GuestChild.start({ socketPath: join(directory, name), memoryBytes, words }),
    );
    const booted = await Promise.allSettled(booting);
    const failed = booted.find(one => one.status === 'rejected');
    const guests = booted.flatMap(one => (one.status === 'fulfilled' ? [one.value] : []));
    if (failed === undefined) return new LivingGuests(guests);
    await Promise.all(guests.map(guest => guest.close()));
    throw failed.reason;
  }

  async close(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#lives);
    await Promise.all(this.#guests.map(guest => guest.close()));
  }

  async #live(guest: GuestChild, role: Role): Promise<void> {
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
}
