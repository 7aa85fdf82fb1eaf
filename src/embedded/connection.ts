/**
 * The guest's connection over time: when its back-end is lost it is looked for, until it, or another in its place, is
 * there. Rings go on where they stopped, and the driver tells the new device of the balloon.
 */
import type { BalloonDriver } from '../driver/balloon-driver.ts';
import type { Scheduler } from '../driver/scheduler.ts';
import type { Timer } from '../sys/poll.ts';
import type { GuestEventName } from './options.ts';

/** Between two attempts, which cost little: a daemon that is started anew is there within a second. */
const RETRY_MS_MIN = 20;
const RETRY_MS_MAX = 1000;

/** What a transport needs beside the driver's side of it: the front-end of vhost-user, or a simulated one. */
interface ReconnectingTransport {
  readonly description: string;
  readonly connected: boolean;
  onDisconnect(listener: (reason: Error) => void): () => void;
  reconnect(target: string, bases: ReadonlyMap<number, number>): Promise<void>;
}

interface ConnectionOptions {
  readonly transport: ReconnectingTransport;
  readonly driver: BalloonDriver;
  readonly scheduler: Scheduler;
  /** Where a device that was lost is looked for; undefined: nowhere, there is but one. */
  readonly socketPath: string | undefined;
  readonly onEvent: (event: GuestEventName, message: string) => void;
}

export class DeviceConnection {
  /** Times that a back-end took the place of one that was lost. */
  reconnections = 0;
  /** The driver is to run whenever there is a device. */
  driverWanted = true;
  readonly #options: ConnectionOptions;
  /** Where the rings go on. */
  #bases: ReadonlyMap<number, number> = new Map();
  #retry: Timer | undefined;
  #searching = false;
  readonly #waiting = new Set<() => void>();
  #closed = false;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    options.transport.onDisconnect(reason => this.#lost(reason));
  }

  /** A device is looked for, or learns what the last one knew. The driver is to be left alone. */
  get searching(): boolean {
    return this.#searching;
  }

  /** Resolves when no device is looked for any more. */
  found(): Promise<void> {
    return this.#searching ? new Promise(resolve => this.#waiting.add(resolve)) : Promise.resolve();
  }

  close(): void {
    this.#closed = true;
    this.#retry?.cancel();
  }

  #lost(reason: Error): void {
    // What an attempt meets is the attempt's.
    if (this.#closed || this.#searching) return;
    const { driver, socketPath, onEvent } = this.#options;
    if (socketPath === undefined) {
      onEvent('disconnected', reason.message);
      return;
    }
    this.#searching = true;
    this.#bases = driver.deviceLost();
    onEvent('disconnected', reason.message);
    this.#attemptIn(RETRY_MS_MIN);
  }

  #attemptIn(delayMs: number): void {
    this.#retry = this.#options.scheduler.schedule(delayMs, () => void this.#attempt(delayMs));
  }

  async #attempt(delayMs: number): Promise<void> {
    const { driver, transport, socketPath, onEvent } = this.#options;
    try {
      // It may be there already, and the guest lack the memory for its driver.
      if (!transport.connected && socketPath !== undefined)
        await transport.reconnect(socketPath, this.#bases);
      await this.#startDriver();
    } catch {
      if (this.#closed) return;
      // A device that was there for a moment may have served the rings.
      if (!transport.connected) this.#bases = driver.deviceLost();
      this.#attemptIn(Math.min(RETRY_MS_MAX, delayMs * 2));
      return;
    }
    this.#searching = false;
    this.reconnections++;
    onEvent('reconnected', `${transport.description} is back`);
    // It may have been lost again before its event was handled.
    if (!transport.connected) {
      this.#lost(new Error(`${transport.description} is gone again`));
      return;
    }
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  /** A driver that ran goes on; one that was starting, or has given its device up, starts anew. */
  async #startDriver(): Promise<void> {
    const { driver } = this.#options;
    if (driver.state === 'running') return driver.deviceReplaced();
    if (!this.driverWanted) return;
    if (driver.state === 'broken') await driver.remove();
    if (driver.state === 'new' || driver.state === 'removed') await driver.probe();
  }
}
