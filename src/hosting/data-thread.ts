/** The main thread's end of a data-plane thread. */
import type { MessagePort } from 'node:worker_threads';
import type { GuestEvent } from '../control/contract.ts';
import type { ThreadOperation } from '../control/operations.ts';
import { type ThreadAnswer, WorkerClient } from '../threads/worker-client.ts';
import { workerUrl } from '../threads/worker-url.ts';
import type { LogRecord } from './options.ts';
import type { DataThreadRequests, FromDataThread, RequestName } from './worker-protocol.ts';

export interface DataThreadListener {
  event(event: GuestEvent): void;
  log(record: LogRecord): void;
  died(error: Error): void;
}

export class DataThread {
  readonly #thread: WorkerClient<DataThreadRequests, Exclude<FromDataThread, ThreadAnswer>>;

  constructor(discardControl: SharedArrayBuffer, discardPort: MessagePort, listener: DataThreadListener) {
    this.#thread = new WorkerClient({
      program: workerUrl('./data-worker', import.meta.url),
      data: { discardControl, discardPort },
      transfer: [discardPort],
      news: message => {
        if (message.kind === 'event') listener.event(message.event);
        else listener.log(message.record);
      },
      died: error => listener.died(error),
      ended: 'the data-plane thread has ended; restart the daemon',
    });
  }

  ask<K extends RequestName>(
    name: K,
    args: DataThreadRequests[K]['args'],
  ): Promise<DataThreadRequests[K]['result']> {
    return this.#thread.ask(name, args);
  }

  /** Asks the thread of the guest called `name` for an operation. */
  askGuest(operation: ThreadOperation, name: string, args: object | undefined): Promise<unknown> {
    // The table of operations says which arguments belong to which.
    return this.#thread.ask(operation, { name, args } as DataThreadRequests[ThreadOperation]['args']);
  }

  /** Another thread discards for its guests, too. */
  async addDiscardPort(port: MessagePort): Promise<void> {
    await this.#thread.ask('addDiscardPort', { port }, [port]);
  }

  /** Lets the thread drain its guests and end. Discarding threads may ring it until {@link release}. */
  async end(): Promise<void> {
    await this.#thread.end(() => this.ask('close', null));
  }

  release(): void {
    this.#thread.release();
  }
}
