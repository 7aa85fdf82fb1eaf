/**
 * The threads that host guests: data-plane threads with the guests that each serves, and the threads that discard for all of
 * them. The process that owns them steers them by {@link GuestThreads.control} from its main thread, which touches no guest
 * memory. Where guests' sockets come from, and when guests come and go, is the owner's: a daemon's or a machine's.
 */

import { setTimeout as delay } from 'node:timers/promises';
import type { DeviceGuestStatus, GuestEvent } from '../control/contract.ts';
import { UnknownGuestError } from '../control/errors.ts';
import type { Control } from '../control/operations.ts';
import { deferred } from '../sys/deferred.ts';
import { AerostatError } from '../sys/error.ts';
import { Listeners } from '../sys/listeners.ts';
import { DiscardPool } from '../threads/discard-pool.ts';
import { type DataThread, startDataThread } from './data-thread.ts';
import { type DeviceMigration, deviceMigration } from './device-migration.ts';
import { MapSurvey } from './map-survey.ts';
import type { GuestOptions, LogRecord } from './options.ts';
import { leastLoaded } from './placement.ts';
import { threadsControl } from './threads-control.ts';
import type { GuestSocket, KeeperPlace } from './worker-protocol.ts';

export interface GuestThreadsOptions {
  /** Data-plane threads; each costs some 10 MiB. */
  readonly threads: number;
  readonly log: (record: LogRecord) => void;
  /** What keeps the guests, if anything does. */
  readonly keeper?: KeeperPlace | undefined;
  /** How long after the first guests the threads that discard start, which want a processor as these do. Default: at once. */
  readonly discardsAfterMs?: number;
  /** There is never a second guest, which one that keeps the discarding thread would hold up: no thread watches that one. */
  readonly oneGuest?: boolean;
}

/** A busy machine takes a second. */
const REHEARSAL_MS_MAX = 5000;

interface HostedGuest {
  readonly thread: DataThread;
  survey: MapSurvey;
}

export class GuestThreads {
  /** Of the guests that are hosted here. They cannot be migrated by it. */
  readonly control: Control<DeviceGuestStatus>;
  readonly deviceMigration: DeviceMigration = deviceMigration(name => this.threadOf(name));
  readonly #failure = deferred<Error>();
  /** Settles with the reason when a thread died, after which some guest is not served; never rejects. */
  readonly failed = this.#failure.promise;
  readonly #log: (record: LogRecord) => void;
  readonly #threads: readonly DataThread[];
  readonly #discarding: DiscardPool;
  /** In the order in which they came. */
  readonly #guests = new Map<string, HostedGuest>();
  /** Threads of guests that were left to another process. */
  readonly #former = new Map<string, DataThread>();
  readonly #listeners = new Listeners<[event: GuestEvent]>();
  /** Guests that are on their way to their threads. */
  #opening = 0;
  readonly #discardsAfterMs: number;
  #discardTimer: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;

  /** Starts them; a guest may be opened at once. */
  constructor({ threads, log, keeper, discardsAfterMs = 0, oneGuest = false }: GuestThreadsOptions) {
    this.#log = log;
    this.#discardsAfterMs = discardsAfterMs;
    const listens = {
      failed: (failure: string) =>
        log({ level: 'error', message: `memory could not be given back: ${failure}` }),
      died: (error: Error) => this.#threadDied('discarding', error),
    };
    this.#discarding = new DiscardPool(threads, listens, !oneGuest);
    const first = this.#discarding.prepare(ports => {
      ports.forEach((port, index) => {
        // A thread that ends meanwhile needs no further discarding thread.
        this.#threads[index].ask('addDiscardPort', { port }, [port]).catch(() => port.close());
      });
    });
    const listener = {
      event: (event: GuestEvent) => this.#emit(event),
      log,
      died: (error: Error) => this.#threadDied('data-plane', error),
    };
    this.#threads = first.map(port => startDataThread(this.#discarding.control, port, listener, keeper));
    this.control = threadsControl(this);
  }

  /** Starts the threads that discard, if the first guests have not; resolves when they run. */
  get ready(): Promise<void> {
    return this.#discarding.ready;
  }

  /** Has each thread take over a guest that is none, so that it does so faster when it matters; takes a part of a second. */
  async rehearse(): Promise<void> {
    const patience = delay(REHEARSAL_MS_MAX, undefined, { ref: false }).then(() => {
      throw new AerostatError('AEROSTAT_THREAD_ENDED', 'it does not come to its end');
    });
    patience.catch(() => {});
    try {
      await Promise.race([Promise.all(this.#threads.map(thread => thread.ask('rehearse', null))), patience]);
    } catch (error) {
      this.#log({
        level: 'warn',
        message: `guests will wait longer, for a rehearsal failed: ${(error as Error).message}`,
      });
    }
  }

  /** All data-plane threads. */
  get all(): readonly DataThread[] {
    return this.#threads;
  }

  /** Names of the guests, in the order in which they came. */
  get names(): readonly string[] {
    return [...this.#guests.keys()];
  }

  /** The thread that serves a guest. @throws UnknownGuestError */
  threadOf(name: string): DataThread {
    return this.#guest(name).thread;
  }

  /** What was seen of a guest's memory. @throws UnknownGuestError */
  surveyOf(name: string): MapSurvey {
    return this.#guest(name).survey;
  }

  #guest(name: string): HostedGuest {
    const guest = this.#guests.get(name);
    if (guest === undefined) throw new UnknownGuestError(name, this.names);
    return guest;
  }

  /**
   * Hosts another guest, in the thread that has fewest. All or nothing: when it throws, the guest is unknown here, its name is
   * free and the socket is the caller's still.
   * @throws AerostatError AEROSTAT_OPTIONS when the name is taken; what the guest's thread throws
   */
  async open(options: GuestOptions, socket: GuestSocket): Promise<void> {
    const { name } = options;
    if (this.#guests.has(name)) {
      throw new AerostatError(
        'AEROSTAT_OPTIONS',
        `two guests are called ${name}; give them different --name`,
      );
    }
    const loads = [...this.#guests.values()].map(guest => guest.thread);
    // One that was left goes back to the thread that has what is left of it.
    const thread = this.#former.get(name) ?? leastLoaded(this.#threads, loads);
    this.#guests.set(name, { thread, survey: new MapSurvey() });
    this.#opening++;
    try {
      await thread.ask('openGuest', { options, socket });
    } catch (error) {
      this.#guests.delete(name);
      throw error;
    } finally {
      // Guests wait for a processor, and for what they give back nothing does so soon.
      this.#opening--;
      if (this.#opening === 0) this.#discardSoon();
    }
  }

  #discardSoon(): void {
    if (this.#discardsAfterMs === 0) this.#discarding.start();
    else this.#discardTimer ??= setTimeout(() => this.#discarding.start(), this.#discardsAfterMs);
  }

  /** Sends a guest away; resolves when its socket is closed. Does nothing for a guest that is unknown. */
  async dismiss(name: string): Promise<void> {
    if (!this.#guests.has(name)) return;
    await this.threadOf(name).ask('closeGuest', { name });
    this.#guests.delete(name);
  }

  /**
   * Leaves a guest to another process. Returns what is kept of it: descriptors, which are the caller's, by their numbers.
   * When it rejects the guest goes on here.
   */
  async leave(name: string): Promise<(readonly [number: number, fd: number])[]> {
    const { thread } = this.#guest(name);
    const kept = await thread.ask('leaveGuest', { name });
    this.#guests.delete(name);
    this.#former.set(name, thread);
    return kept;
  }

  /** For benchmarks: milliseconds that decoding lists took, of a guest whose options have it timed. */
  decodeMs(name: string): Promise<number> {
    return this.threadOf(name).ask('decodeMs', { name });
  }

  /** Calls `listener` for every event until the returned function is called. */
  subscribe(listener: (event: GuestEvent) => void): () => void {
    return this.#listeners.add(listener);
  }

  /** Drains what is pending, closes the guests' sockets and ends the threads; safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearTimeout(this.#discardTimer);
    // Guests that go have what they gave away discarded.
    if (this.#guests.size > 0) this.#discarding.start();
    // Guests first: what they gave away is discarded before the thread that does it ends.
    await Promise.all(this.#threads.map(thread => thread.end()));
    await this.#discarding.close();
    for (const thread of this.#threads) thread.release();
  }

  #emit(event: GuestEvent): void {
    const guest = this.#guests.get(event.guest);
    // What was seen of a guest's memory went with it.
    if (event.type === 'disconnected' && guest !== undefined) guest.survey = new MapSurvey();
    this.#listeners.emit(event);
  }

  #threadDied(which: string, error: Error): void {
    const message = `a ${which} thread died: ${error.message}`;
    this.#log({ level: 'error', message, error });
    this.#failure.resolve(
      new AerostatError('AEROSTAT_THREAD_ENDED', `${message}; restart the daemon`, { cause: error }),
    );
  }
}
