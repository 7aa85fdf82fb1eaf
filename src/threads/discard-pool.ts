/**
 * The discarding threads of a daemon, as its main thread keeps them: one that leads, one that watches it, one that helps it
 * from the first time on that two guests had much at once, and one more for each guest whose file keeps a thread, as long as
 * it does.
 */
import { availableParallelism } from 'node:os';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { deferred } from '../sys/deferred.ts';
import {
  CONTROL_WORDS,
  type DiscardNews,
  type DiscardThreadData,
  LEADER_WORD,
  stopDiscarding,
} from './discard-link.ts';
import { workerUrl } from './worker-url.ts';

/** Guests beyond so many that keep a thread each hold up the others; each thread costs some MiB. */
const THREADS_MAX = 32;

interface DiscardPoolListener {
  /** Memory of some guest could not be given back. */
  failed(message: string): void;
  died(error: Error): void;
}

export class DiscardPool {
  readonly control = new SharedArrayBuffer(CONTROL_WORDS * 4);
  readonly #listener: DiscardPoolListener;
  readonly #exits = new Set<Promise<void>>();
  #started = 0;
  readonly #ready = deferred();
  #closing = false;
  /** Hands a port to each data-plane thread, at the other end of which the new thread is. */
  #connect: (ports: MessagePort[]) => void = () => {};
  readonly #peers: number;
  readonly #watched: boolean;
  /** The first thread's ports, until it is started. */
  #first: MessagePort[] | undefined;

  /** For so many data-plane threads. Without `watched` the thread that leads has none that watches it. */
  constructor(peers: number, listener: DiscardPoolListener, watched = true) {
    this.#peers = peers;
    this.#watched = watched;
    this.#listener = listener;
    new Int32Array(this.control)[LEADER_WORD] = 1;
  }

  /**
   * Returns the ports of the first thread for each data-plane thread. Those of others go to `connect`, when the thread is
   * there. None starts before {@link start}.
   */
  prepare(connect: (ports: MessagePort[]) => void): MessagePort[] {
    this.#connect = connect;
    const { near, far } = this.#channels();
    this.#first = far;
    return near;
  }

  /** Starts the threads that are always there, once. */
  start(): void {
    const first = this.#first;
    this.#first = undefined;
    if (first === undefined || this.#closing) return;
    this.#startThread(first);
    if (this.#watched) this.#another();
  }

  /** Resolves when they run; starts them. */
  get ready(): Promise<void> {
    this.start();
    return this.#ready.promise;
  }

  /** Both ends of what connects a thread with each data-plane thread. */
  #channels(): { readonly near: MessagePort[]; readonly far: MessagePort[] } {
    const channels = Array.from({ length: this.#peers }, () => new MessageChannel());
    return { near: channels.map(({ port1 }) => port1), far: channels.map(({ port2 }) => port2) };
  }

  #startThread(ports: MessagePort[], helps = false): void {
    const workerData: DiscardThreadData = { control: this.control, number: ++this.#started, helps, ports };
    const worker = new Worker(workerUrl('../threads/discard-worker', import.meta.url), {
      workerData,
      transferList: ports,
    });
    worker.on('message', (news: DiscardNews) => {
      if ('failure' in news) this.#listener.failed(news.failure);
      else if (news.wanted === 'watcher') this.#another();
      else if (availableParallelism() > 1) this.#another(true);
    });
    const isLast = this.#started === (this.#watched ? 2 : 1);
    worker.once('online', () => {
      if (isLast) this.#ready.resolve();
    });
    worker.on('error', error => this.#listener.died(error));
    const exited = new Promise<void>(resolve => worker.once('exit', () => resolve()));
    this.#exits.add(exited);
    void exited.then(() => this.#exits.delete(exited));
  }

  #another(helps = false): void {
    if (this.#closing || this.#exits.size >= THREADS_MAX) return;
    const { near, far } = this.#channels();
    this.#startThread(far, helps);
    this.#connect(near);
  }

  /** Resolves when all threads are gone. */
  async close(): Promise<void> {
    this.#closing = true;
    stopDiscarding(this.control);
    await Promise.all(this.#exits);
  }
}
