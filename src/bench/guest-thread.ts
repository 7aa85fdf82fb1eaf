/** A guest of a benchmark in a thread of its own, as the benchmark sees it: what it is told, and what it says in turn. */
import { Worker } from 'node:worker_threads';
import { Mailbox } from './mailbox.ts';

/** One that is done ends in this time, or is ended. */
const END_MS_MAX = 2000;

export class GuestThread<To, From extends { readonly kind: string }> {
  readonly #worker: Worker;
  readonly #mailbox: Mailbox<From>;
  readonly #exited: Promise<void>;

  /** `program` is what the thread runs. Nothing more is waited for once `signal` aborts. */
  constructor(program: URL, data: unknown, signal: AbortSignal) {
    this.#worker = new Worker(program, { workerData: data });
    this.#mailbox = new Mailbox('the guest', signal);
    this.#worker.on('message', (message: From) => this.#mailbox.put(message));
    this.#worker.on('error', ({ message }) => this.#mailbox.end(message));
    this.#exited = new Promise(resolve => {
      this.#worker.once('exit', () => {
        this.#mailbox.end();
        resolve();
      });
    });
  }

  /** Whether it says nothing any more. */
  get over(): boolean {
    return this.#mailbox.over;
  }

  tell(message: To): void {
    this.#worker.postMessage(message);
  }

  /** @throws as {@link Mailbox.next} does */
  next<Kind extends From['kind']>(...kinds: readonly Kind[]) {
    return this.#mailbox.next(...kinds);
  }

  /** Waits for a guest that is done, and ends one that is not. */
  async end(): Promise<void> {
    const timer = setTimeout(() => void this.#worker.terminate(), this.over ? 0 : END_MS_MAX);
    await this.#exited;
    clearTimeout(timer);
  }
}
