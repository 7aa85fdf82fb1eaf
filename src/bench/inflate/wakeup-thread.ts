/** One thread of the chain that `wakeups.ts` measures: asleep until it is its turn, then it wakes the next one. */
import { parentPort, workerData } from 'node:worker_threads';
import { InvariantError } from '../../sys/error.ts';

export interface WakeupThreadData {
  /** A word for each thread of the chain and one behind them, on which the one that began it sleeps. */
  readonly words: SharedArrayBuffer;
  readonly index: number;
  /** How often it is to be its turn. */
  readonly turns: number;
}

if (parentPort === null) throw new InvariantError('a thread without a bench');
const { words, index, turns } = workerData as WakeupThreadData;
const chain = new Int32Array(words);
parentPort.postMessage('ready');
for (let turn = 1; turn <= turns; turn++) {
  while (Atomics.load(chain, index) < turn) Atomics.wait(chain, index, turn - 1);
  Atomics.store(chain, index + 1, turn);
  Atomics.notify(chain, index + 1);
}
parentPort.close();
