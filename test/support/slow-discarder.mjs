// A thread that gives memory back slowly, so that a test can do something in the middle of a discard. It runs the
// compiled code, as the daemon's own thread does.
import { workerData } from 'node:worker_threads';
import { PendingDiscards } from '../../dist/memory/pending-discards.js';
import { punchHole } from '../../dist/sys/file.js';

/** Words of the control buffer: the discard has begun, it is over, it may soon come to its end. */
const BEGUN = 0;
const OVER = 1;
const MAY_END = 2;
/** Long enough that who does not wait is sure to be caught. */
const SLOWNESS_MS = 50;

const { shared, units, unitBytes, fd, control } = workerData;
const words = new Int32Array(control);

new PendingDiscards(shared, units, unitBytes).discardSome((start, count) => {
  Atomics.store(words, BEGUN, 1);
  Atomics.notify(words, BEGUN);
  Atomics.wait(words, MAY_END, 0);
  Atomics.wait(words, OVER, 0, SLOWNESS_MS);
  punchHole({ number: fd }, start * unitBytes, count * unitBytes);
  Atomics.store(words, OVER, 1);
});
