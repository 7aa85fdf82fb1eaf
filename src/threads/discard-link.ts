/**
 * How a data-plane thread reaches the thread that discards: regions go over a message port, "something is
 * pending" through one word of shared memory, which costs a system call only when the other thread sleeps.
 */
import type { MessagePort } from 'node:worker_threads';
import type { PageAccount } from '../device/page-account.ts';
import { FileBacking } from '../memory/backing.ts';

/** Index of the word that wakes: 0 asleep or about to be, 1 work, {@link STOPPED} the end. */
export const WAKE_WORD = 0;
export const STOPPED = 2;

/**
 * How long pending memory gathers before it is discarded. Ten milliseconds of a fast guest are some 8000
 * pages, enough for runs of megabytes; a host that waits for memory does not notice them.
 */
export const GATHER_MS = 10;

export interface DiscardThreadData {
  /** One word, see {@link WAKE_WORD}. */
  readonly control: SharedArrayBuffer;
  /** One port for each data-plane thread. */
  readonly ports: readonly MessagePort[];
}

export interface RegionToDrain {
  readonly shared: SharedArrayBuffer;
  readonly units: number;
  readonly unitBytes: number;
  /** Descriptors are the process's: the number is as good here as there. Its owner keeps it open. */
  readonly fd: number;
  readonly fileOffset: number;
}

export class DiscardLink {
  readonly #wake: Int32Array;
  readonly #port: MessagePort;

  constructor(control: SharedArrayBuffer, port: MessagePort) {
    this.#wake = new Int32Array(control);
    this.#port = port;
  }

  /** From now on the thread drains `account`, until its pending set is closed. */
  add({ region, pending }: PageAccount): void {
    // Memory that is no file cannot come over vhost-user.
    if (!(region.backing instanceof FileBacking)) return;
    const { fd, fileOffset, discardUnit } = region.backing;
    const message: RegionToDrain = {
      shared: pending.shared,
      units: pending.units,
      unitBytes: discardUnit,
      fd: fd.number,
      fileOffset,
    };
    this.#port.postMessage(message);
    // There is nothing to discard yet, but what waits at the port is kept in memory, and so are regions that have gone.
    this.wake();
  }

  /** Something was marked. */
  wake(): void {
    if (Atomics.compareExchange(this.#wake, WAKE_WORD, 0, 1) === 0) Atomics.notify(this.#wake, WAKE_WORD);
  }
}

export function stopDiscarding(control: SharedArrayBuffer): void {
  const wake = new Int32Array(control);
  Atomics.store(wake, WAKE_WORD, STOPPED);
  Atomics.notify(wake, WAKE_WORD);
}
