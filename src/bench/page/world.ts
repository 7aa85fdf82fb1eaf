/** A daemon and its guests, each in a process of its own, for as long as a part of `bench page` needs them. */
import { setTimeout as delay } from 'node:timers/promises';
import type { DeviceGuestStatus } from '../../control/contract.ts';
import { defined } from '../../sys/defined.ts';
import { AerostatError } from '../../sys/error.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import { PeerProcess } from '../peer-process.ts';
import { PageDaemon } from './daemon.ts';
import type { FromPageGuests, ToPageGuests } from './guests.ts';
import type { Place } from './view.ts';

/** A guest that makes no progress for this long never will. */
const STALL_MS = 120_000;
/** Seldom enough to be no load beside what is measured. */
const LOOK_MS = 50;

interface PageWorldOptions {
  /** Names of the guests. */
  readonly guests: readonly string[];
  /** Of each guest. */
  readonly memoryBytes: number;
  /** Further options of the daemon. */
  readonly words?: readonly string[];
  readonly signal: AbortSignal;
}

export class PageWorld {
  readonly daemon: PageDaemon;
  readonly #guests: PeerProcess<ToPageGuests, FromPageGuests>;

  private constructor(daemon: PageDaemon, signal: AbortSignal) {
    this.daemon = daemon;
    this.#guests = new PeerProcess(workerUrl('./guests', import.meta.url), { signal });
  }

  static async start({ guests, memoryBytes, words = [], signal }: PageWorldOptions): Promise<PageWorld> {
    const world = new PageWorld(await PageDaemon.start({ guests, words }), signal);
    try {
      const socketPaths = guests.map(name => world.daemon.socketOf(name));
      await world.tell({ kind: 'boot', socketPaths, memoryBytes });
      return world;
    } catch (error) {
      await world.close();
      throw error;
    }
  }

  place(guest?: string): Place {
    const { origin, token } = this.daemon;
    return { origin, token, ...defined({ guest }) };
  }

  /** Resolves when the guests have done it. */
  async tell(message: ToPageGuests): Promise<void> {
    this.#guests.send(message);
    await this.#guests.hear('done');
  }

  /** Sets a guest's target, and waits until guest and host have come to it. */
  async reach(name: string, targetBytes: number, signal: AbortSignal): Promise<DeviceGuestStatus> {
    const { control } = this.daemon;
    await control.change(name, { targetBytes, force: true });
    for (const deadline = Date.now() + STALL_MS; ; ) {
      const guest = await control.guest(name);
      if (typeof guest.progress?.drainedMs === 'number') return guest;
      if (Date.now() > deadline)
        throw new AerostatError('AEROSTAT_BENCH', `${name} does not come to its target`);
      await delay(LOOK_MS, undefined, { signal });
    }
  }

  async close(): Promise<void> {
    await this.#guests.end();
    await this.daemon.close();
  }
}
