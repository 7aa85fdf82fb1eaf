/**
 * A thread that is started before it is known what it is to begin with: Node takes as long for that as for all else that a
 * program loads meanwhile. It begins when it is told, or is gone with the process.
 */
import {
  MessageChannel,
  type MessagePort,
  type ResourceLimits,
  type Transferable,
  Worker,
  workerData,
} from 'node:worker_threads';

interface EarlyWorker {
  readonly program: string;
  readonly worker: Worker;
  /** What it begins with goes this way, so that nothing else is taken for it. */
  readonly data: MessagePort;
}

interface EarlyData {
  readonly dataPort: MessagePort;
}

let early: EarlyWorker | undefined;

/** Starts it, for the first that {@link beginEarly} asks for. */
export function startEarly(program: URL, resourceLimits: ResourceLimits): void {
  const { port1, port2 } = new MessageChannel();
  const data: EarlyData = { dataPort: port2 };
  const worker = new Worker(program, { workerData: data, transferList: [port2], resourceLimits });
  worker.unref();
  port1.unref();
  early = { program: program.href, worker, data: port1 };
}

/** Has it begin with `data`; undefined where none was started of this program, or another has taken it. */
export function beginEarly(
  program: URL,
  data: object,
  transfer: readonly Transferable[],
): Worker | undefined {
  if (early?.program !== program.href) return undefined;
  const { worker, data: port } = early;
  early = undefined;
  worker.ref();
  port.postMessage(data, [...transfer]);
  port.close();
  return worker;
}

/** What this thread begins with, however it was started. */
export async function startData<Data>(): Promise<Data> {
  const { dataPort } = workerData as Partial<EarlyData>;
  if (dataPort === undefined) return workerData as Data;
  const data = await new Promise<Data>(resolve => dataPort.once('message', resolve));
  dataPort.close();
  return data;
}
