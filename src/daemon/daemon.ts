/**
 * The daemon's main thread: how many threads it has, the guests that it is started with, and their sockets. Hosting them is
 * `hosting/`'s, which others steer by its {@link Control}.
 */
import { unlinkSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { DeviceGuestStatus } from '../control/contract.ts';
import type { Control } from '../control/operations.ts';
import { openGuestSocket } from '../hosting/guest-socket.ts';
import { GuestThreads, type GuestThreadsOptions } from '../hosting/guest-threads.ts';
import { offeredFeatures } from '../hosting/offered-features.ts';
import type { GuestOptions } from '../hosting/options.ts';
import { AerostatError } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { readVersion } from '../sys/version.ts';
import { type Keeping, openKeeping } from './keeping.ts';
import type { Daemon, DaemonOptions } from './options.ts';

/**
 * More data-plane threads than cores gain nothing, and each costs some 10 MiB; a core is left to the guests.
 */
const dataThreadCount = (guests: number): number =>
  Math.max(1, Math.min(guests, Math.ceil(availableParallelism() / 2)));

class RunningDaemon implements Daemon {
  readonly version: string = readVersion();
  readonly #threads: GuestThreads;
  /** Where guests' front-ends come, by the guest's name. */
  readonly #sockets = new Map<string, string>();
  #closing: Promise<void> | undefined;

  readonly #keeping: Keeping | undefined;

  constructor(options: GuestThreadsOptions, keeping: Keeping | undefined) {
    this.#keeping = keeping;
    this.#threads = new GuestThreads({ ...options, keeperFd: keeping?.number });
  }

  get control(): Control<DeviceGuestStatus> {
    return this.#threads.control;
  }

  get failed(): Promise<Error> {
    return this.#threads.failed;
  }

  /** Resolves when all threads run. */
  get ready(): Promise<void> {
    return this.#threads.ready;
  }

  /** All or nothing: when it throws, the name and the path are free again. */
  async open(options: GuestOptions): Promise<void> {
    const { name, socketPath } = options;
    checkOptions([...this.#threads.names, name], [options]);
    const socket = { ...openGuestSocket(options), kept: this.#keeping?.give(name) ?? [] };
    if (socketPath !== undefined) this.#sockets.set(name, socketPath);
    try {
      await this.#threads.open(options, socket);
    } catch (error) {
      // What was inherited is its giver's.
      if (socketPath !== undefined) {
        this.#unlink(name);
        new OwnedFd(socket.fd).close();
      }
      throw error;
    }
  }

  async dismiss(name: string): Promise<void> {
    await this.#threads.dismiss(name);
    // Now, and not when the daemon ends: by then another process may listen there.
    this.#unlink(name);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#threads.close();
    for (const name of [...this.#sockets.keys()]) this.#unlink(name);
  }

  #unlink(name: string): void {
    const path = this.#sockets.get(name);
    if (path === undefined) return;
    this.#sockets.delete(name);
    try {
      unlinkSync(path);
    } catch {
      // Another process removed it; all that matters is that it is gone.
    }
  }
}

/** @throws AerostatError AEROSTAT_OPTIONS when two of `names` are one, or a guest's profile and features do not fit */
function checkOptions(names: readonly string[], guests: readonly GuestOptions[]): void {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) throw optionError(`two guests are called ${name}; give them different --name`);
    seen.add(name);
  }
  for (const { profile, without } of guests) offeredFeatures(profile, without);
}

const optionError = (message: string): AerostatError => new AerostatError('AEROSTAT_OPTIONS', message);

/** Starts the daemon; resolves when every guest's socket listens. */
export async function startDaemon({ guests, log, keep }: DaemonOptions): Promise<Daemon> {
  checkOptions(
    guests.map(({ name }) => name),
    guests,
  );
  const keeping = keep === undefined ? undefined : await openKeeping(keep, log);
  const daemon = new RunningDaemon({ threads: dataThreadCount(guests.length), log }, keeping);
  try {
    for (const guest of guests) await daemon.open(guest);
    keeping?.forgetRest();
    await daemon.ready;
    return daemon;
  } catch (error) {
    await daemon.close();
    throw error;
  }
}
