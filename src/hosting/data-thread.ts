/** The main thread's end of a data-plane thread. */
import type { MessagePort } from 'node:worker_threads';
import type { GuestEvent } from '../control/contract.ts';
import { type ThreadAnswer, WorkerClient } from '../threads/worker-client.ts';
import { workerUrl } from '../threads/worker-url.ts';
import type { LogRecord } from './options.ts';
import type { DataThreadRequests, FromDataThread, KeeperPlace } from './worker-protocol.ts';

interface DataThreadListener {
  event(event: GuestEvent): void;
  log(record: LogRecord): void;
  died(error: Error): void;
}

/**
 * Its heap for what was just made, answers and events: rings and lists live in memory of their own. Left to itself that heap
 * grows towards V8's bound of 48 MiB while a hundred guests are looked at.
 */
const YOUNG_MIB_MAX = 8;

/** Drains its guests when it is closed. */
export type DataThread = WorkerClient<DataThreadRequests, Exclude<FromDataThread, ThreadAnswer>>;

export const startDataThread = (
  discardControl: SharedArrayBuffer,
  discardPort: MessagePort,
  listener: DataThreadListener,
  keeper?: KeeperPlace,
): DataThread =>
  new WorkerClient({
    program: workerUrl('./data-worker', import.meta.url),
    data: { discardControl, discardPort, keeper },
    transfer: [discardPort],
    youngMibMax: YOUNG_MIB_MAX,
    news: message => {
      if (message.kind === 'event') listener.event(message.event);
      else listener.log(message.record);
    },
    died: error => listener.died(error),
    ended: 'the data-plane thread has ended; restart the daemon',
  });
