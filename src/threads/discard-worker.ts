/**
 * A thread that gives acknowledged memory back to the host, so that the threads that talk to guests do not wait for the
 * kernel. One of these threads leads: it sleeps until something is marked, lets a little gather so that runs grow, and then
 * goes round the guests, one claim for each of their regions, until nothing is pending that should not wait for neighbours:
 * a guest that gives away much cannot keep the others waiting for more than a claim.
 *
 * A call on a guest's file can take long: the front-end may hold the file's lock, or a disk be slow. So another thread
 * watches the leader while it works. When the leader gets nothing done for a while, though it had a processor or did not want
 * one, the watcher leads; the former leader stays with the guest that keeps it, and ends after that if there is another watcher. A guest has one of the threads at
 * a time.
 *
 * Where guests are left when the leader has begun with one, a helper goes round the lanes beside it: guests have files of
 * their own, so that the kernel lets two calls run at once. It never leads, and a guest that keeps it keeps it alone.
 */

import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { ArrivingMemory } from '../memory/arriving-memory.ts';
import type { DiscardUnits } from '../memory/discard-claims.ts';
import { HugeUnits } from '../memory/huge-units.ts';
import { PatientDiscarder } from '../memory/patient-discarder.ts';
import { PendingDiscards } from '../memory/pending-discards.ts';
import { CLAIM_BYTES_MAX } from '../memory/pending-state.ts';
import { OwnedFd, ring } from '../sys/fd.ts';
import { punchHole, sealAgainstShrinking } from '../sys/file.ts';
import { monotonicMs } from '../sys/monotonic.ts';
import { ownThreadId, type ThreadTimes, timesOfThread } from '../sys/thread-times.ts';
import {
  ASLEEP,
  BUSY_WORD,
  type DiscardNews,
  type DiscardThreadData,
  GATHER_MS,
  HELP_WORD,
  HELPER_WORD,
  HURRY,
  LANE_CLOSED,
  LANE_FILES,
  LANE_FILES_MAX,
  LANE_LOCK,
  LANE_SEALING,
  type LaneMessage,
  LEADER_THREAD_WORD,
  LEADER_WORD,
  type LinkMessage,
  PROGRESS_WORD,
  type RegionMessage,
  SEALING_ASKED,
  SEALING_DONE,
  STOPPED,
  WAKE_WORD,
  WATCHERS_WORD,
  WORK,
} from './discard-link.ts';
import { LaneTurns } from './lane-turns.ts';

/** A leader that gets nothing done for so long is left to the guest that keeps it. */
const STUCK_MS = 20;
/**
 * A leader that had less of a processor in the second half of that, and wants one, waits for it as other threads of a busy host
 * do: another thread would wait as long, and starting one takes more than that.
 */
const STARVED_MS = 1;

interface DrainedRegion {
  readonly discarder: PatientDiscarder;
  readonly pending: PendingDiscards;
  readonly unitBytes: number;
  /** A failure is logged once a region: the guest goes on, and its counter says how often. */
  failed: boolean;
}

interface Lane {
  readonly words: Int32Array;
  readonly bell: OwnedFd;
  /** While its guest's pages come from elsewhere. */
  readonly arriving: ArrivingMemory | undefined;
  readonly turns: LaneTurns<DrainedRegion>;
}

const { control, number, helps = false, ports } = workerData as DiscardThreadData;
const words = new Int32Array(control);
/** By the data-plane thread's port and the number that it gave the guest. */
const lanes = new Map<string, Lane>();
const tell = (news: DiscardNews): void => parentPort?.postMessage(news);
const stopped = (): boolean => Atomics.load(words, WAKE_WORD) === STOPPED;
/** Something was left to gather when the lanes were gone round last. */
let gathering = false;
const leads = (): boolean => Atomics.load(words, LEADER_WORD) === number;
const threadId = ownThreadId();

function openLane(name: string, { control: shared, wakeFd, arriving }: LaneMessage): void {
  // Not closed here: it is the main thread's, which closes it when all discarding threads have ended.
  lanes.set(name, {
    words: new Int32Array(shared),
    bell: new OwnedFd(wakeFd),
    arriving: arriving && new ArrivingMemory(arriving),
    turns: new LaneTurns(monotonicMs),
  });
}

function openRegion(name: string, message: RegionMessage): void {
  const { shared, units, unitBytes, hugePageBytes, fd, fileOffset } = message;
  const lane = lanes.get(name);
  if (lane === undefined) return;
  // The region's owner keeps the descriptor open until it has closed the set and no thread is in it.
  const discard: DiscardUnits = (start, count) => {
    lane.arriving?.forget(start * unitBytes, count * unitBytes);
    punchHole({ number: fd }, fileOffset + start * unitBytes, count * unitBytes);
  };
  const pending = new PendingDiscards(shared, units, unitBytes);
  pending.onNews = () => ring(lane.bell);
  pending.huge = HugeUnits.of(hugePageBytes, unitBytes, fileOffset);
  const discarder = new PatientDiscarder(pending, unitBytes, discard);
  lane.turns.regions.push({ discarder, pending, unitBytes, failed: false });
}

function takeMessages(): void {
  for (const [index, port] of (ports as MessagePort[]).entries()) {
    for (
      let received = receiveMessageOnPort(port);
      received !== undefined;
      received = receiveMessageOnPort(port)
    ) {
      const message = received.message as LinkMessage;
      const name = `${index}.${message.lane}`;
      if (message.kind === 'lane') openLane(name, message);
      else openRegion(name, message);
    }
  }
  for (const [name, lane] of lanes) {
    lane.turns.regions = lane.turns.regions.filter(({ pending }) => !pending.closed);
    if (Atomics.load(lane.words, LANE_CLOSED) !== 0) lanes.delete(name);
  }
}

/** Seals what the guest's front-end has handed over. */
function seal(lane: Lane): void {
  if (Atomics.load(lane.words, LANE_SEALING) !== SEALING_ASKED) return;
  for (let index = 0; index < LANE_FILES_MAX; index++) {
    const file = lane.words[LANE_FILES + index];
    if (file < 0) continue;
    const fd = new OwnedFd(file);
    sealAgainstShrinking(fd);
    fd.close();
  }
  Atomics.store(lane.words, LANE_SEALING, SEALING_DONE);
  ring(lane.bell);
}

/** A guest's turn; whether there may be more. */
function serve(lane: Lane): boolean {
  seal(lane);
  return lane.turns.serve(region => claim(lane, region));
}

function claim(lane: Lane, region: DrainedRegion): boolean {
  if (stopped()) return false;
  if (leads()) Atomics.add(words, PROGRESS_WORD, 1);
  const { more, failure } = region.discarder.discardSome();
  if (failure !== undefined && !region.failed) {
    region.failed = true;
    tell({ failure: failure.message });
    // The guest's status says so, too.
    ring(lane.bell);
  }
  return more;
}

/** Whether the guest is left to gather; then there is something to come back for. */
function gathers({ words: lane, turns }: Lane): boolean {
  if (Atomics.load(lane, LANE_SEALING) === SEALING_ASKED || !turns.gathers) return false;
  gathering ||= turns.outstandingBytes > 0;
  return true;
}

/** A round of all guests that have no other thread; whether there may be more. */
function sweep(): boolean {
  let more = false;
  gathering = false;
  if (severalWait()) wantHelp();
  for (const lane of lanes.values()) {
    if (gathers(lane)) continue;
    if (Atomics.compareExchange(lane.words, LANE_LOCK, 0, number) !== 0) continue;
    more = serve(lane) || more;
    if (!leads()) {
      stayWith(lane);
      return false;
    }
    Atomics.store(lane.words, LANE_LOCK, 0);
  }
  return more;
}

/** Another thread leads since this one was kept here: it ends what there is to do here, and leaves the rest to that one. */
function stayWith(lane: Lane): void {
  while (!stopped() && serve(lane)) takeMessages();
  leave(lane);
}

function leave(lane: Lane): void {
  Atomics.store(lane.words, LANE_LOCK, 0);
  // What was marked at the last moment has been passed over by the leader, as long as this thread was here.
  if (Atomics.compareExchange(words, WAKE_WORD, ASLEEP, WORK) === ASLEEP) Atomics.notify(words, WAKE_WORD);
}

const hasMuch = ({ turns }: Lane): boolean => turns.outstandingBytes >= CLAIM_BYTES_MAX;

/** Two guests or more have as much as a claim takes. */
function severalWait(): boolean {
  if (lanes.size < 2) return false;
  let found = 0;
  for (const lane of lanes.values()) if (hasMuch(lane) && ++found === 2) return true;
  return false;
}

function wantHelp(): void {
  if (Atomics.compareExchange(words, HELPER_WORD, 0, 1) === 0) tell({ wanted: 'helper' });
  if (Atomics.exchange(words, HELP_WORD, 1) === 0) Atomics.notify(words, HELP_WORD);
}

/** From sleep to sleep of the helper: as long as a guest has much, and no thread. */
function help(): void {
  Atomics.wait(words, HELP_WORD, 0);
  Atomics.store(words, HELP_WORD, 0);
  takeMessages();
  while (!stopped() && helpOut()) takeMessages();
}

/** A turn of each guest that has much and no thread; whether there was any. */
function helpOut(): boolean {
  let helped = false;
  for (const lane of lanes.values()) {
    if (!hasMuch(lane)) continue;
    if (Atomics.compareExchange(lane.words, LANE_LOCK, 0, number) !== 0) continue;
    helped = true;
    serve(lane);
    leave(lane);
  }
  return helped;
}

const anyWaiting = (): boolean =>
  [...lanes.values()].some(({ turns }) => turns.regions.some(({ discarder }) => discarder.waiting));

/** From sleep to sleep. */
function lead(): void {
  Atomics.store(words, LEADER_THREAD_WORD, threadId);
  // Asleep until a marker sets the word; whatever it marked before that is seen below. Where something was left
  // to gather or to wait, there is work as it is.
  if (gathering || anyWaiting()) Atomics.compareExchange(words, WAKE_WORD, ASLEEP, WORK);
  else Atomics.wait(words, WAKE_WORD, ASLEEP);
  if (stopped()) return;
  if (Atomics.load(words, WAKE_WORD) === WORK) Atomics.wait(words, WAKE_WORD, WORK, GATHER_MS);
  Atomics.compareExchange(words, WAKE_WORD, WORK, ASLEEP);
  Atomics.compareExchange(words, WAKE_WORD, HURRY, ASLEEP);
  Atomics.add(words, PROGRESS_WORD, 1);
  Atomics.store(words, BUSY_WORD, 1);
  Atomics.notify(words, BUSY_WORD);
  // Each time round: a guest that keeps this thread busy without end keeps no other from coming or going.
  do {
    takeMessages();
    if (Atomics.load(words, WATCHERS_WORD) === 0) wantWatcher();
  } while (sweep() && !stopped());
  if (!leads()) return;
  Atomics.store(words, BUSY_WORD, 0);
  if (!stopped()) return;
  // Watchers are to see the end, and may have taken the leader for asleep just now.
  Atomics.store(words, BUSY_WORD, 1);
  Atomics.notify(words, BUSY_WORD);
}

/** A new leader has a watcher that starts, or asks for one, once. */
let asked = number === 1;
function wantWatcher(): void {
  if (asked) return;
  asked = true;
  tell({ wanted: 'watcher' });
}

/** Waits for half of the time after which a leader is stuck; whether this one got something done, or has nothing to do. */
function moves(progress: number): boolean {
  Atomics.wait(words, PROGRESS_WORD, progress, STUCK_MS / 2);
  return Atomics.load(words, BUSY_WORD) !== 1 || Atomics.load(words, PROGRESS_WORD) !== progress;
}

const timesOfLeader = (): ThreadTimes | undefined => timesOfThread(Atomics.load(words, LEADER_THREAD_WORD));

const starved = (before: ThreadTimes | undefined, after: ThreadTimes | undefined): boolean =>
  before !== undefined && after?.runnable === true && after.ranMs - before.ranMs < STARVED_MS;

/** Returns when this thread leads, or ends: there is another one that watches, or all end. */
function watch(): 'retires' | 'goes on' {
  asked = false;
  if (Atomics.load(words, WATCHERS_WORD) > 0) return 'retires';
  Atomics.add(words, WATCHERS_WORD, 1);
  while (!stopped() && !leads()) {
    takeMessages();
    if (Atomics.load(words, BUSY_WORD) === 0) {
      Atomics.wait(words, BUSY_WORD, 0);
      continue;
    }
    const leader = Atomics.load(words, LEADER_WORD);
    const progress = Atomics.load(words, PROGRESS_WORD);
    if (moves(progress)) continue;
    const before = timesOfLeader();
    if (moves(progress) || starved(before, timesOfLeader()) || stopped()) continue;
    if (Atomics.compareExchange(words, LEADER_WORD, leader, number) === leader) break;
  }
  Atomics.sub(words, WATCHERS_WORD, 1);
  if (stopped()) return 'goes on';
  // What the former leader had not come to yet is this one's.
  Atomics.store(words, BUSY_WORD, 0);
  if (Atomics.compareExchange(words, WAKE_WORD, ASLEEP, HURRY) === ASLEEP) Atomics.notify(words, WAKE_WORD);
  return 'goes on';
}

while (!stopped()) {
  if (helps) help();
  else if (leads()) lead();
  else if (watch() === 'retires') break;
}
for (const port of ports as MessagePort[]) port.close();
parentPort?.close();
