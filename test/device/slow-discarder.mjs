// Discards as a daemon's thread does, but each punch takes 5 ms more: a file system that is slow, or a lock that is held.
import { workerData } from 'node:worker_threads';
import { PendingDiscards } from '../../dist/memory/pending-discards.js';
import { punchHole } from '../../dist/sys/file.js';

const { shared, units, unitBytes, fd, control } = workerData;
const words = new Int32Array(control);
const pending = new PendingDiscards(shared, units, unitBytes);
pending.onNews = () => {
  Atomics.add(words, 1, 1);
  Atomics.notify(words, 1);
};
while (Atomics.load(words, 0) === 0) {
  const { more } = pending.discardSome((start, count) => {
    Atomics.wait(words, 0, 0, 5);
    punchHole({ number: fd }, start * unitBytes, count * unitBytes);
    Atomics.add(words, 2, 1);
  });
  if (!more) Atomics.wait(words, 0, 0, 1);
}
