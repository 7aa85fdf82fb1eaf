// Discards as fast as it can what others mark, as the daemon's own thread does, until it is told to stop.
import { parentPort, workerData } from 'node:worker_threads';
import { PendingDiscards } from '../../dist/memory/pending-discards.js';
import { punchHole } from '../../dist/sys/file.js';

const { shared, units, unitBytes, pageBytes, fd, control } = workerData;
const stopped = new Int32Array(control);
const pending = new PendingDiscards(shared, units, unitBytes);

let discards = 0;
parentPort.postMessage('ready');
while (Atomics.load(stopped, 0) === 0) {
  const { more, failure } = pending.discardSome((start, count) => {
    // Late now and then, so that a guest that does not wait for it is caught.
    if (++discards % 64 === 0) Atomics.wait(stopped, 0, 0, 1);
    punchHole({ number: fd }, start * pageBytes, count * pageBytes);
  });
  if (failure !== undefined) throw failure;
  if (!more) Atomics.wait(stopped, 0, 0, 0.05);
}
parentPort.postMessage({ discards });
