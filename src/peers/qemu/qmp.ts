/**
 * A connection to a QEMU monitor: greeting and negotiation, commands answered in any order, events. It lives as long
 * as its stream; monitor.ts connects again, qmp-commands.ts knows what the commands mean. QEMU may be hostile or broken:
 * what it sends is bounded and checked, and a connection that breaks the protocol is ended.
 */

import { createConnection, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { deferred } from '../../sys/deferred.ts';
import { Listeners } from '../../sys/listeners.ts';
import { holdersOf, type PeerCredentials, peerOf } from '../../sys/unix-peers.ts';
import { QmpConnectionError, QmpError, QmpTimeoutError } from './errors.ts';
import { LineSplitter, LineTooLongError } from './lines.ts';
import {
  encodeQmpRequest,
  parseQmpLine,
  type QemuVersion,
  type QmpEvent,
  type QmpMessage,
} from './qmp-wire.ts';

/** Many times the longest answer that is known, the 300 KiB of query-qmp-schema. */
export const QMP_LINE_BYTES_MAX = 8 * 2 ** 20;
/** Commands that QEMU queues of one monitor. More would wait in the socket, where they cannot be called off any more. */
const COMMANDS_IN_FLIGHT_MAX = 8;
const COMMAND_TIMEOUT_MS = 10_000;
const GREETING_TIMEOUT_MS = 5_000;
/** QEMU greets at once; after so long it is worth a look whether another program has its monitor. */
const SILENCE_MS = 500;

export type QmpArguments = Readonly<Record<string, unknown>>;

export interface ExecuteOptions {
  /** Counted from the call. Default: 10 s. */
  readonly timeoutMs?: number;
}

/** Whatever takes commands for a QEMU. */
export interface QmpExecutor {
  /**
   * @throws QmpError when QEMU refuses, QmpTimeoutError when it does not answer in time, QmpConnectionError
   * when the connection is lost meanwhile
   */
  execute(command: string, args?: QmpArguments, options?: ExecuteOptions): Promise<unknown>;
}

interface QmpConnectOptions {
  readonly greetingTimeoutMs?: number;
  /** Says why QEMU may not have greeted yet; nothing if it is worth waiting on. */
  readonly explainSilence?: () => Promise<string | undefined>;
}

interface PendingCommand {
  readonly command: string;
  readonly timer: NodeJS.Timeout;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Connects to the monitor that listens on a Unix socket. @throws QmpConnectionError */
export async function connectQmp(path: string, options: QmpConnectOptions = {}): Promise<QmpConnection> {
  const socket = createConnection(path);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
  } catch (cause) {
    socket.destroy();
    const code = (cause as NodeJS.ErrnoException).code;
    const advice = ADVICE[code ?? ''] ?? (cause as Error).message;
    throw new QmpConnectionError(`cannot connect to the QEMU monitor at ${path}: ${advice}`, { cause });
  }
  return QmpConnection.over(socket, { explainSilence: () => holderOf(path), ...options });
}

/** QEMU lets further clients of a monitor wait in silence until the first one leaves. */
async function holderOf(path: string): Promise<string | undefined> {
  const [holder] = await holdersOf(path);
  if (holder === undefined) return undefined;
  return (
    `the QEMU monitor at ${path} takes one client at a time, and ${holder.command} (process ${holder.pid}) is connected; ` +
    'ask that program, end it, or start QEMU with a second -qmp'
  );
}

const ADVICE: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket; start QEMU with -qmp unix:PATH,server=on,wait=off',
  ECONNREFUSED: 'no process listens there; the QEMU that did is gone',
  EACCES: 'permission denied; use the account that QEMU runs as',
};

export class QmpConnection implements QmpExecutor {
  readonly version: QemuVersion;
  readonly #end = deferred<QmpConnectionError>();
  /** Settles with the reason when the connection ended; never rejects. */
  readonly ended = this.#end.promise;
  readonly #stream: Duplex;
  readonly #pending = new Map<number, PendingCommand>();
  /** Commands that timed out and whose answers are still to come. */
  readonly #abandoned = new Set<number>();
  readonly #waiting: { readonly id: number; readonly line: string }[] = [];
  readonly #listeners = new Listeners<[event: QmpEvent]>();
  #inFlight = 0;
  #nextId = 1;
  #failure: QmpConnectionError | undefined;

  private constructor(stream: Duplex, version: QemuVersion) {
    this.#stream = stream;
    this.version = version;
  }

  /** Negotiates over a connected stream, which it then owns. @throws QmpConnectionError */
  static over(stream: Duplex, options: QmpConnectOptions = {}): Promise<QmpConnection> {
    const timeoutMs = options.greetingTimeoutMs ?? GREETING_TIMEOUT_MS;
    return new Promise((resolve, reject) => {
      let connection: QmpConnection | undefined;
      const fail = (message: string, cause?: unknown) => {
        const reason = new QmpConnectionError(message, { cause });
        clearTimeout(timer);
        clearTimeout(silence);
        stream.destroy();
        if (connection === undefined) reject(reason);
        else connection.#fail(reason);
      };
      const timer = setTimeout(() => {
        fail(`the QEMU monitor sent no greeting within ${timeoutMs} ms; is another program connected to it?`);
      }, timeoutMs);
      const silence = setTimeout(() => {
        options.explainSilence?.().then(
          why => {
            if (why !== undefined && connection === undefined) fail(why);
          },
          () => {}, // Told after the whole time, without a reason.
        );
      }, SILENCE_MS);
      const greet = (message: QmpMessage | undefined) => {
        if (message?.kind !== 'greeting') return fail('what listens there is not a QEMU monitor in QMP mode');
        clearTimeout(timer);
        clearTimeout(silence);
        connection = new QmpConnection(stream, message.version);
        const negotiated = connection.execute('qmp_capabilities', {}, { timeoutMs });
        negotiated.then(
          () => resolve(connection!),
          error => {
            fail(`the QEMU monitor refused to leave its negotiation: ${(error as Error).message}`, error);
            reject(error);
          },
        );
      };
      const splitter = new LineSplitter(QMP_LINE_BYTES_MAX);
      stream.on('data', (chunk: Buffer) => {
        try {
          splitter.push(chunk, line => {
            if (stream.destroyed || line === '') return;
            if (connection === undefined) greet(parseQmpLine(line));
            else connection.#receive(parseQmpLine(line));
          });
        } catch (error) {
          if (!(error instanceof LineTooLongError)) throw error; // A listener's.
          fail(`the QEMU monitor broke the protocol: ${(error as Error).message}`, error);
        }
      });
      stream.once('error', error =>
        fail(`the connection to the QEMU monitor broke: ${error.message}`, error),
      );
      stream.once('close', () => fail('QEMU closed the connection to its monitor; it may have ended'));
    });
  }

  get open(): boolean {
    return this.#failure === undefined;
  }

  /** The process that listens there; undefined where it cannot be told. */
  get peer(): PeerCredentials | undefined {
    return this.#stream instanceof Socket && this.open ? peerOf(this.#stream) : undefined;
  }

  execute(command: string, args: QmpArguments = {}, options: ExecuteOptions = {}): Promise<unknown> {
    const { timeoutMs = COMMAND_TIMEOUT_MS } = options;
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      const id = this.#nextId++;
      const line = encodeQmpRequest({ command, arguments: args, id });
      const timer = setTimeout(() => this.#expire(id, timeoutMs), timeoutMs);
      this.#pending.set(id, { command, timer, resolve, reject });
      this.#waiting.push({ id, line });
      this.#sendWaiting();
    });
  }

  /** Calls `listener` for every event until the returned function is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    return this.#listeners.add(listener);
  }

  /** Ends the connection; what is outstanding is rejected. QEMU goes on. Idempotent. */
  close(): void {
    this.#fail(new QmpConnectionError('the connection to the QEMU monitor was closed'));
  }

  #sendWaiting(): void {
    while (this.#inFlight < COMMANDS_IN_FLIGHT_MAX) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#inFlight++;
      this.#stream.write(next.line);
    }
  }

  #expire(id: number, timeoutMs: number): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    this.#pending.delete(id);
    const waiting = this.#waiting.findIndex(request => request.id === id);
    if (waiting >= 0) this.#waiting.splice(waiting, 1);
    else this.#abandoned.add(id);
    pending.reject(new QmpTimeoutError(pending.command, timeoutMs));
  }

  #receive(message: QmpMessage | undefined): void {
    if (message === undefined || message.kind === 'greeting') {
      this.#fail(new QmpConnectionError('the QEMU monitor broke the protocol: it sent no QMP message'));
    } else if (message.kind === 'event') {
      this.#listeners.emit(message.event);
    } else if (message.id === undefined && message.kind === 'error') {
      // Every command of ours carries an id; an answer without one is to a line that QEMU could not read.
      this.#fail(new QmpConnectionError(`the QEMU monitor lost the thread: ${message.description}`));
    } else {
      this.#answer(typeof message.id === 'number' ? message.id : 0, message);
    }
  }

  #answer(id: number, message: QmpMessage & { kind: 'return' | 'error' }): void {
    const pending = this.#pending.get(id);
    if (pending !== undefined || this.#abandoned.delete(id)) {
      this.#inFlight--;
      this.#sendWaiting();
    }
    // Not ours any more: the answer to a command that timed out.
    if (pending === undefined) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (message.kind === 'return') pending.resolve(message.value);
    else pending.reject(new QmpError(pending.command, message.errorClass, message.description));
  }

  #fail(reason: QmpConnectionError): void {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    this.#stream.destroy();
    this.#waiting.length = 0;
    for (const { command, timer, reject } of this.#pending.values()) {
      clearTimeout(timer);
      reject(new QmpConnectionError(`${command} was not answered: ${reason.message}`, { cause: reason }));
    }
    this.#pending.clear();
    this.#abandoned.clear();
    this.#listeners.clear();
    this.#end.resolve(reason);
  }
}
