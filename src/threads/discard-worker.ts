/**
 * The thread that gives acknowledged memory back to the host, for all guests of the daemon, so that the
 * threads that talk to guests do not wait for the kernel. It sleeps until somebody marks something, lets a
 * little gather so that runs grow, and then goes round the regions, one claim each, until nothing is pending that
 * should not wait for neighbours: a guest that gives away much cannot keep the others waiting for more than a claim.
 */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { PatientDiscarder } from '../memory/patient-discarder.ts';
import { type DiscardUnits, PendingDiscards } from '../memory/pending-discards.ts';
import { punchHole } from '../sys/file.ts';
import { type DiscardThreadData, GATHER_MS, type RegionToDrain, STOPPED, WAKE_WORD } from './discard-link.ts';

interface DrainedRegion {
  readonly discarder: PatientDiscarder;
  /** A failure is reported once a region: the guest goes on, and its counter says how often. */
  failed: boolean;
}

const { control, ports } = workerData as DiscardThreadData;
const wake = new Int32Array(control);
let regions: DrainedRegion[] = [];

function open({ shared, units, unitBytes, fd, fileOffset }: RegionToDrain): DrainedRegion {
  // The region's owner keeps the descriptor open until it has closed the set, after which nothing is claimed.
  const discard: DiscardUnits = (start, count) => {
    punchHole({ number: fd }, fileOffset + start * unitBytes, count * unitBytes);
  };
  const pending = new PendingDiscards(shared, units, unitBytes);
  return { discarder: new PatientDiscarder(pending, unitBytes, discard), failed: false };
}

function takeNewRegions(): void {
  for (const port of ports as MessagePort[]) {
    for (
      let received = receiveMessageOnPort(port);
      received !== undefined;
      received = receiveMessageOnPort(port)
    ) {
      regions.push(open(received.message as RegionToDrain));
    }
  }
  regions = regions.filter(({ discarder }) => !discarder.pending.closed);
}

/** One claim of every region; whether there may be more. */
function sweep(): boolean {
  let more = false;
  for (const region of regions) {
    const result = region.discarder.discardSome();
    more ||= result.more;
    if (result.failure !== undefined && !region.failed) {
      region.failed = true;
      parentPort?.postMessage({ failure: result.failure.message });
    }
  }
  return more;
}

while (Atomics.load(wake, WAKE_WORD) !== STOPPED) {
  // Asleep until a marker sets the word to 1; whatever it marked before that is seen below. Where something was left
  // to wait, there is work as it is.
  if (regions.some(({ discarder }) => discarder.waiting)) Atomics.compareExchange(wake, WAKE_WORD, 0, 1);
  else Atomics.wait(wake, WAKE_WORD, 0);
  if (Atomics.load(wake, WAKE_WORD) === STOPPED) break;
  Atomics.wait(wake, WAKE_WORD, 1, GATHER_MS);
  Atomics.compareExchange(wake, WAKE_WORD, 1, 0);
  // Each time round: a guest that keeps this thread busy without end keeps no other from coming or going.
  do takeNewRegions();
  while (sweep() && Atomics.load(wake, WAKE_WORD) !== STOPPED);
}
for (const port of ports as MessagePort[]) port.close();
parentPort?.close();
