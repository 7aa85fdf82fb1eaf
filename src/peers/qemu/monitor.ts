/**
 * A QEMU monitor that is reached again whenever it was lost: what a program that lives longer than a QEMU
 * holds on to. Commands never wait for a QEMU that is not there: they try once, at once, and fail.
 */

import { Listeners } from '../../sys/listeners.ts';
import { QmpConnectionError } from './errors.ts';
import {
  connectQmp,
  type ExecuteOptions,
  type QmpArguments,
  type QmpConnection,
  type QmpExecutor,
} from './qmp.ts';
import type { QemuVersion, QmpEvent } from './qmp-wire.ts';

const RECONNECT_MS = 1000;

export interface QmpMonitorOptions {
  /** How long to leave a monitor alone that could not be reached. Default: 1 s. */
  readonly reconnectMs?: number;
}

/** Null when the monitor was reached, else why it is gone. Told when it changes. */
type ConnectionListener = (lost: QmpConnectionError | null) => void;

export class QmpMonitor implements QmpExecutor {
  readonly path: string;
  readonly #reconnectMs: number;
  readonly #eventListeners = new Listeners<[event: QmpEvent]>();
  readonly #connectionListeners = new Listeners<Parameters<ConnectionListener>>();
  #connection: QmpConnection | undefined;
  #attempt: Promise<QmpConnection> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  /** Begins to connect; {@link onConnection} tells when that succeeded. */
  constructor(path: string, { reconnectMs = RECONNECT_MS }: QmpMonitorOptions = {}) {
    this.path = path;
    this.#reconnectMs = reconnectMs;
    this.#connect().catch(() => {}); // Tried again later; commands tell.
  }

  get connected(): boolean {
    return this.#connection?.open === true;
  }

  /** Of the QEMU at the other end, while it is connected. */
  get version(): QemuVersion | undefined {
    return this.#connection?.version;
  }

  /** The process at the other end, while it is connected. */
  get pid(): number | undefined {
    return this.#connection?.peer?.pid;
  }

  async execute(command: string, args?: QmpArguments, options?: ExecuteOptions): Promise<unknown> {
    const connection = await this.#connect();
    return connection.execute(command, args, options);
  }

  /** Calls `listener` for every event of every connection, until the returned function is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    return this.#eventListeners.add(listener);
  }

  onConnection(listener: ConnectionListener): () => void {
    return this.#connectionListeners.add(listener);
  }

  /** Lets go of the monitor for good. Idempotent. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#eventListeners.clear();
    this.#connectionListeners.clear();
    this.#connection?.close();
  }

  async #connect(): Promise<QmpConnection> {
    if (this.#closed) throw new QmpConnectionError(`the monitor at ${this.path} was closed`);
    if (this.#connection?.open) return this.#connection;
    // Calls during an attempt share its outcome.
    this.#attempt ??= this.#open().finally(() => {
      this.#attempt = undefined;
    });
    return this.#attempt;
  }

  async #open(): Promise<QmpConnection> {
    clearTimeout(this.#retry);
    let connection: QmpConnection;
    try {
      connection = await connectQmp(this.path);
    } catch (error) {
      this.#retryLater();
      throw error;
    }
    if (this.#closed) {
      connection.close();
      throw new QmpConnectionError(`the monitor at ${this.path} was closed`);
    }
    this.#connection = connection;
    connection.onEvent(event => {
      this.#eventListeners.emit(event);
    });
    this.#connectionListeners.emit(null);
    void connection.ended.then(reason => {
      this.#connectionListeners.emit(reason);
      this.#retryLater();
    });
    return connection;
  }

  #retryLater(): void {
    if (this.#closed) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      this.#connect().catch(() => {}); // It arranges the next attempt itself.
    }, this.#reconnectMs).unref();
  }
}
