/**
 * The main thread's end of a data-plane thread: requests with answers, and what the thread tells by itself.
 * Such a thread blocks in poll(2), where Node cannot interrupt it, so every message comes with a ring of its
 * wake-up descriptor, and the process never exits without one.
 */
import { type MessagePort, Worker } from 'node:worker_threads';
import { AerostatError, type ErrorCode } from '../sys/error.ts';
import { createEventFd, type OwnedFd, ring } from '../sys/fd.ts';
import type { GuestEvent } from './control.ts';
import type { LogRecord } from './options.ts';
import type {
  DataThreadData,
  DataThreadRequest,
  DataThreadRequests,
  FromDataThread,
  RequestName,
} from './worker-protocol.ts';
import { workerUrl } from './worker-url.ts';

export interface DataThreadListener {
  event(event: GuestEvent): void;
  log(record: LogRecord): void;
  died(error: Error): void;
}

interface Pending {
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
}

export class DataThread {
  readonly #wake: OwnedFd = createEventFd();
  readonly #worker: Worker;
  readonly #listener: DataThreadListener;
  readonly #pending = new Map<number, Pending>();
  readonly #exited: Promise<void>;
  #nextId = 1;
  #ended = false;

  constructor(discardControl: SharedArrayBuffer, discardPort: MessagePort, listener: DataThreadListener) {
    this.#listener = listener;
    const workerData: DataThreadData = {
      wakeFd: this.#wake.duplicate().release(),
      discardControl,
      discardPort,
    };
    this.#worker = new Worker(workerUrl('./data-worker', import.meta.url), {
      workerData,
      transferList: [discardPort],
    });
    this.#worker.on('message', (message: FromDataThread) => this.#receive(message));
    this.#worker.on('error', error => listener.died(error));
    this.#exited = new Promise(resolve => {
      this.#worker.once('exit', () => {
        this.#end();
        resolve();
      });
    });
    process.once('exit', this.#wakeAtExit);
  }

  ask<K extends RequestName>(
    name: K,
    args: DataThreadRequests[K]['args'],
  ): Promise<DataThreadRequests[K]['result']> {
    if (this.#ended) return Promise.reject(threadEnded());
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#worker.postMessage({ id, name, args } as DataThreadRequest);
      ring(this.#wake);
    });
  }

  /** Lets the thread drain its guests and end. */
  async close(): Promise<void> {
    if (!this.#ended) await this.ask('close', null).catch(() => null);
    await this.#exited;
    process.removeListener('exit', this.#wakeAtExit);
    this.#wake.close();
  }

  #receive(message: FromDataThread): void {
    switch (message.kind) {
      case 'event':
        this.#listener.event(message.event);
        return;
      case 'log':
        this.#listener.log(message.record);
        return;
      case 'answer':
        this.#take(message.id)?.resolve(message.result as never);
        return;
      case 'failure':
        this.#take(message.id)?.reject(new AerostatError(message.code as ErrorCode, message.message));
        return;
    }
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  #end(): void {
    this.#ended = true;
    for (const { reject } of this.#pending.values()) reject(threadEnded());
    this.#pending.clear();
  }

  readonly #wakeAtExit = (): void => {
    if (this.#wake.open) ring(this.#wake);
  };
}

const threadEnded = (): AerostatError =>
  new AerostatError('AEROSTAT_THREAD_ENDED', 'the data-plane thread has ended; restart the daemon');
