/**
 * The main thread's end of a thread that blocks in poll(2): requests with answers, and what the thread tells by itself.
 * Node cannot interrupt such a thread, so every message comes with a ring of its wake-up descriptor, and the process
 * never exits without one.
 */
import { type ResourceLimits, type Transferable, Worker } from 'node:worker_threads';
import { PendingCalls } from '../sys/deferred.ts';
import { AerostatError, type ErrorCode } from '../sys/error.ts';
import { createEventFd, type OwnedFd, ring } from '../sys/fd.ts';
import { beginEarly } from './early-worker.ts';

/** The requests of a thread by name: what they take and what they give. One that is asked to close ends. */
type Requests<Names extends string> = Record<Names, { args: unknown; result: unknown }> & {
  close: { args: null; result: null };
};

export type ThreadAnswer =
  | { readonly kind: 'answer'; readonly id: number; readonly result: unknown }
  | { readonly kind: 'failure'; readonly id: number; readonly code: string; readonly message: string };

interface ThreadOptions<News> {
  /** Its program. */
  readonly program: URL;
  /**
   * What it starts with, beside an eventfd `wakeFd` that it owns and the number `bellFd` of the same one, which is open as
   * long as {@link WorkerClient.release} was not called: for threads that ring it.
   */
  readonly data: object;
  readonly transfer?: readonly Transferable[];
  /** How large its heap may become; V8's own bounds when absent. */
  readonly resourceLimits?: ResourceLimits;
  /** What it tells by itself. */
  readonly news: (message: News) => void;
  readonly died: (error: Error) => void;
  /** Why the thread does not answer any more. */
  readonly ended: string;
}

/** Stops the threads that live, for when the process exits. */
const stops = new Set<() => void>();

function stopAll(): void {
  for (const stop of stops) stop();
}

export class WorkerClient<Table extends Requests<Extract<keyof Table, string>>, News extends object> {
  readonly #wake: OwnedFd = createEventFd();
  readonly #worker: Worker;
  readonly #options: ThreadOptions<News>;
  readonly #calls = new PendingCalls();
  readonly #exited: Promise<void>;
  /** Before the ring: a thread that is woken and not told yet to stop is back in poll(2) before it is. */
  readonly #stop = (): void => {
    void this.#worker.terminate();
    if (this.#wake.open) ring(this.#wake);
  };
  #ended = false;

  constructor(options: ThreadOptions<News>) {
    this.#options = options;
    const { program, transfer = [], resourceLimits = {} } = options;
    const data = { ...options.data, wakeFd: this.#wake.duplicate().release(), bellFd: this.#wake.number };
    this.#worker =
      beginEarly(program, data, transfer) ??
      new Worker(program, {
        workerData: data,
        transferList: [...transfer],
        resourceLimits,
      });
    this.#worker.on('message', (message: ThreadAnswer | News) => this.#receive(message));
    this.#worker.on('error', error => options.died(error));
    this.#exited = new Promise(resolve => {
      this.#worker.once('exit', () => {
        this.#end();
        resolve();
      });
    });
    if (stops.size === 0) process.once('exit', stopAll);
    stops.add(this.#stop);
  }

  async ask<K extends keyof Table & string>(
    name: K,
    args: Table[K]['args'],
    transfer: readonly Transferable[] = [],
  ): Promise<Table[K]['result']> {
    if (this.#ended) throw this.#endedError();
    const id = this.#calls.number();
    // What cannot be sent (it throws) has no answer to wait for.
    this.#worker.postMessage({ id, name, args }, [...transfer]);
    ring(this.#wake);
    return this.#calls.wait(id);
  }

  /** Asks the thread to end; resolves when it is gone. */
  async close(): Promise<void> {
    await this.end();
    this.release();
  }

  /** The same, and threads that ring it may do so until {@link release}. */
  async end(): Promise<void> {
    if (!this.#ended) await this.ask('close', null).catch(() => null);
    await this.#exited;
    stops.delete(this.#stop);
    if (stops.size === 0) process.removeListener('exit', stopAll);
  }

  /** Idempotent. */
  release(): void {
    this.#wake.close();
  }

  #receive(message: ThreadAnswer | News): void {
    if ('kind' in message && message.kind === 'answer') {
      this.#calls.answer(message.id, message.result);
    } else if ('kind' in message && message.kind === 'failure') {
      this.#calls.refuse(message.id, new AerostatError(message.code as ErrorCode, message.message));
    } else {
      this.#options.news(message as News);
    }
  }

  #end(): void {
    this.#ended = true;
    this.#calls.refuseAll(this.#endedError());
  }

  #endedError(): AerostatError {
    return new AerostatError('AEROSTAT_THREAD_ENDED', this.#options.ended);
  }
}
