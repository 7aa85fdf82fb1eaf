/**
 * The daemon's main thread: opens the guests' sockets, starts the data-plane and discarding threads, and is the
 * {@link Control} that others steer by. It touches no guest memory itself.
 */
import { unlinkSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { DaemonStatus, DeviceGuestStatus, GuestEvent } from '../control/contract.ts';
import { UnknownGuestError } from '../control/contract.ts';
import { readHost } from '../control/host.ts';
import { noMigrations } from '../control/no-migrations.ts';
import { type Control, handlersOf, THREAD_OPERATIONS, type ThreadOperation } from '../control/operations.ts';
import { DataThread } from '../hosting/data-thread.ts';
import { openGuestSocket } from '../hosting/guest-socket.ts';
import { MapSurvey } from '../hosting/map-survey.ts';
import { offer } from '../hosting/offer.ts';
import type { Daemon, DaemonOptions, DeviceMoves, GuestOptions } from '../hosting/options.ts';
import { AerostatError } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { monotonicMs } from '../sys/poll.ts';
import { readVersion } from '../sys/version.ts';
import { DiscardPool } from '../threads/discard-pool.ts';
import { leastLoaded } from './placement.ts';

/**
 * More data-plane threads than cores gain nothing, and each costs some 10 MiB; a core is left to the guests.
 */
const dataThreadCount = (guests: number): number =>
  Math.max(1, Math.min(guests, Math.ceil(availableParallelism() / 2)));

class RunningDaemon implements Daemon {
  readonly version: string = readVersion();
  readonly control: Control<DeviceGuestStatus>;
  readonly moves: DeviceMoves = {
    balloon: async name => this.#home(name).ask('balloon', { name }),
    save: async name => this.#home(name).ask('saveDevice', { name }),
    load: async (name, saved) => void (await this.#home(name).ask('loadDevice', { name, saved })),
    follow: async (name, followed) =>
      void (await this.#home(name).ask('followFreePages', { name, followed })),
    freePages: async (name, step) => void (await this.#home(name).ask('freePages', { name, step })),
  };
  readonly failed: Promise<Error>;
  #fail: (error: Error) => void = () => {};
  readonly #options: DaemonOptions;
  readonly #startedMs = monotonicMs();
  readonly #startedAtMs = Date.now();
  readonly #threads: DataThread[] = [];
  readonly #guests: GuestOptions[] = [];
  /** Which thread serves which guest. */
  readonly #homes = new Map<string, DataThread>();
  readonly #surveys = new Map<string, MapSurvey>();
  readonly #listeners = new Set<(event: GuestEvent) => void>();
  readonly #sockets = new Set<string>();
  #discarding: DiscardPool | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: DaemonOptions) {
    this.#options = options;
    this.control = this.#makeControl();
    this.failed = new Promise(resolve => {
      this.#fail = resolve;
    });
  }

  async open(guest: GuestOptions): Promise<void> {
    checkOptions([...this.#guests, guest]);
    await this.#openGuest(guest);
  }

  async dismiss(name: string): Promise<void> {
    if (!this.#homes.has(name)) return;
    await this.#home(name).ask('closeGuest', { name });
    this.#homes.delete(name);
    this.#surveys.delete(name);
    const index = this.#guests.findIndex(guest => guest.name === name);
    const [{ socketPath }] = this.#guests.splice(index, 1);
    // Now, and not when the daemon ends: by then somebody else may listen there.
    if (socketPath !== undefined) this.#unlink(socketPath);
  }

  async start(): Promise<void> {
    const { guests } = this.#options;
    checkOptions(guests);
    try {
      this.#startThreads(dataThreadCount(guests.length));
      for (const guest of guests) await this.#openGuest(guest);
      await this.#discarding?.ready;
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  #startThreads(count: number): void {
    const discarding = new DiscardPool(count, {
      failed: failure =>
        this.#options.log({ level: 'error', message: `memory could not be given back: ${failure}` }),
      died: error => this.#threadDied('discarding', error),
    });
    this.#discarding = discarding;
    const first = discarding.start(ports => {
      ports.forEach((port, index) => {
        // A thread that ends meanwhile needs no further discarding thread.
        this.#threads[index].addDiscardPort(port).catch(() => port.close());
      });
    });
    for (const port of first) {
      this.#threads.push(
        new DataThread(discarding.control, port, {
          event: event => this.#emit(event),
          log: record => this.#options.log(record),
          died: error => this.#threadDied('data-plane', error),
        }),
      );
    }
  }

  async #openGuest(options: GuestOptions): Promise<void> {
    const { name, socketPath } = options;
    // Guests that were dismissed leave room on their thread.
    const thread = leastLoaded(this.#threads, this.#homes.values());
    const socket = openGuestSocket(options);
    this.#guests.push(options);
    if (socketPath !== undefined) this.#sockets.add(socketPath);
    this.#homes.set(name, thread);
    try {
      await thread.ask('openGuest', { options, socket });
    } catch (error) {
      // As if it had never been asked for: the name and the path are free again. What was inherited is its giver's.
      this.#homes.delete(name);
      this.#guests.splice(this.#guests.indexOf(options), 1);
      if (socketPath !== undefined) {
        this.#unlink(socketPath);
        new OwnedFd(socket.fd).close();
      }
      throw error;
    }
  }

  #threadDied(which: string, error: Error): void {
    const message = `a ${which} thread died: ${error.message}`;
    this.#options.log({ level: 'error', message, error });
    this.#fail(
      new AerostatError('AEROSTAT_THREAD_ENDED', `${message}; restart the daemon`, { cause: error }),
    );
  }

  #emit(event: GuestEvent): void {
    // What was seen of a guest's memory went with it.
    if (event.type === 'disconnected') this.#surveys.delete(event.guest);
    for (const listener of this.#listeners) listener(event);
  }

  #home(name: string): DataThread {
    const thread = this.#homes.get(name);
    if (thread === undefined) throw new UnknownGuestError(name, [...this.#homes.keys()]);
    return thread;
  }

  #survey(name: string): MapSurvey {
    const survey = this.#surveys.get(name) ?? new MapSurvey();
    this.#surveys.set(name, survey);
    return survey;
  }

  #makeControl(): Control<DeviceGuestStatus> {
    return {
      ...handlersOf<ThreadOperation, DeviceGuestStatus>(
        THREAD_OPERATIONS,
        operation => async (name, args) => this.#home(name).askGuest(operation, name, args),
      ),
      ...noMigrations(name => void this.#home(name)),
      daemon: () => this.#status(),
      host: () => readHost(),
      guests: async () => {
        const lists = await Promise.all(this.#threads.map(thread => thread.ask('guests', null)));
        const byName = new Map(lists.flat().map(guest => [guest.name, guest]));
        // In the order of the command line, whichever thread serves them.
        return [...this.#homes.keys()].flatMap(name => byName.get(name) ?? []);
      },
      samples: async () => {
        const samples = await Promise.all(this.#threads.map(thread => thread.ask('samples', null)));
        return Object.assign({}, ...samples);
      },
      map: async (name, options = {}) => {
        const sources = await this.#home(name).ask('mapSources', { name });
        return this.#survey(name).draw(name, sources, options);
      },
      subscribe: listener => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
    };
  }

  async #status(): Promise<DaemonStatus> {
    const threads = await Promise.all(this.#threads.map(thread => thread.ask('thread', null)));
    const cpu = process.cpuUsage();
    return {
      version: this.version,
      pid: process.pid,
      startedAtMs: this.#startedAtMs,
      uptimeMs: monotonicMs() - this.#startedMs,
      residentBytes: process.memoryUsage.rss(),
      cpuUserMs: cpu.user / 1e3,
      cpuSystemMs: cpu.system / 1e3,
      gcPauseMaxMs: Math.max(0, ...threads.map(thread => thread.gcPauseMaxMs)),
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    // Guests first: what they gave away is discarded before the thread that does it ends.
    await Promise.all(this.#threads.map(thread => thread.end()));
    await this.#discarding?.close();
    for (const thread of this.#threads) thread.release();
    for (const path of this.#sockets) this.#unlink(path);
  }

  #unlink(path: string): void {
    this.#sockets.delete(path);
    try {
      unlinkSync(path);
    } catch {
      // Somebody else removed it; all that matters is that it is gone.
    }
  }
}

function checkOptions(guests: readonly GuestOptions[]): void {
  const names = new Set<string>();
  for (const { name, profile, without } of guests) {
    if (names.has(name)) throw optionError(`two guests are called ${name}; give them different --name`);
    names.add(name);
    offer(profile, without);
  }
}

const optionError = (message: string): AerostatError => new AerostatError('AEROSTAT_OPTIONS', message);

/** Starts the daemon; resolves when every guest's socket listens. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const daemon = new RunningDaemon(options);
  await daemon.start();
  return daemon;
}
