/** The main thread's end of a data-plane thread. */
import type { MessagePort } from 'node:worker_threads';
import type { GuestEvent } from '../control/contract.ts';
import { type ThreadAnswer, WorkerClient } from '../threads/worker-client.ts';
import { DATA_THREAD_HEAP, dataThreadProgram } from './early-thread.ts';
import type { LogRecord } from './options.ts';
import type { DataThreadRequests, FromDataThread, KeeperPlace } from './worker-protocol.ts';

interface DataThreadListener {
  event(event: GuestEvent): void;
  log(record: LogRecord): void;
  died(error: Error): void;
}

/** Drains its guests when it is closed. */
export type DataThread = WorkerClient<DataThreadRequests, Exclude<FromDataThread, ThreadAnswer>>;

export const startDataThread = (
  discardControl: SharedArrayBuffer,
  discardPort: MessagePort,
  listener: DataThreadListener,
  keeper?: KeeperPlace,
): DataThread =>
  new WorkerClient({
    program: dataThreadProgram(),
    data: { discardControl, discardPort, keeper },
    transfer: [discardPort],
    resourceLimits: DATA_THREAD_HEAP,
    news: message => {
      if (message.kind === 'event') listener.event(message.event);
      else listener.log(message.record);
    },
    died: error => listener.died(error),
    ended: 'the data-plane thread has ended; restart the daemon',
  });
