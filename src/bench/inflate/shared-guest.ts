/**
 * The guest's side of `bench inflate` for profile `shared`, in a thread of its own: it brings its memory into the scenario's
 * state and does nothing then. When it is asked, it says how much time it had on a processor meanwhile; afterwards it takes
 * the floor: the time of a bare loop that punches the very frames that the host held, in memory of the same state.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { FRAME_HELD, FRAME_PAGES } from '../../balloon/shared-frames.ts';
import { SharedGuest } from '../../embedded/shared-guest.ts';
import { gpaOf } from '../../memory/page.ts';
import { InvariantError } from '../../sys/error.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { ownThreadId, timesOfThread } from '../../sys/thread-times.ts';
import { openMemory } from './backings.ts';
import type { FrameState, FromSharedGuest, SharedGuestData, ToSharedGuest } from './shared-protocol.ts';
import { firstPages, type Runs, writePassNs } from './write-pass.ts';

const data = workerData as SharedGuestData;
if (parentPort === null) throw new InvariantError('a guest without a bench');
const port = parentPort;
const tell = (message: FromSharedGuest): void => port.postMessage(message);
const thread = ownThreadId();

const guest = await SharedGuest.start({
  ...data,
  memory: openMemory(data.backing, data.memoryBytes),
  waitMsMax: 50,
});
const { kernel, memory, driver } = guest;
const { frames } = kernel.table;

/** Runs of frames whose word is `word`. */
function runsOf(word: number): [frame: number, count: number][] {
  const runs: [number, number][] = [];
  for (let frame = 0; frame < frames; frame++) {
    if (kernel.frames.wordOf(frame) !== word) continue;
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === frame) last[1]++;
    else runs.push([frame, 1]);
  }
  return runs;
}

/** One word of each page: the host backs it from then on. */
function touch(frame: number, count: number): void {
  for (let page = frame * FRAME_PAGES; page < (frame + count) * FRAME_PAGES; page++)
    memory.setU32(gpaOf(page), 1);
}

function state(): FrameState {
  const { interrupts, configReads } = driver.counters;
  return {
    held: runsOf(FRAME_HELD).reduce((sum, [, count]) => sum + count, 0),
    woken: interrupts + configReads,
    ranMs: timesOfThread(thread)?.ranMs ?? Number.NaN,
    memoryFd: memory.regions[0].backing.file?.fd.number ?? -1,
  };
}

/** A word into each page of so many frames that are not held; in runs that no window's boundary cuts. */
function write(frames: number): number {
  if (!data.touched) return Number.NaN;
  const runs: Runs = Array.from({ length: kernel.table.frames }, (_, frame) => frame)
    .filter(frame => kernel.frames.wordOf(frame) !== FRAME_HELD)
    .map(frame => [frame * FRAME_PAGES, FRAME_PAGES]);
  return writePassNs(memory.regions[0], firstPages(runs.slice(1), frames * FRAME_PAGES));
}

/** What is used already is part of the first frame. */
function prepare(): void {
  if (data.touched) touch(1, frames - 1);
}

function floor(runs: readonly [frame: number, count: number][]): number {
  if (data.touched) for (const [frame, count] of runs) touch(frame, count);
  const [{ backing }] = memory.regions;
  const startedMs = monotonicMs();
  for (const [frame, count] of runs) backing.discard(gpaOf(frame * FRAME_PAGES), gpaOf(count * FRAME_PAGES));
  return monotonicMs() - startedMs;
}

let held = runsOf(FRAME_HELD);
port.on('message', (question: ToSharedGuest) => {
  const { ask } = question;
  if (ask === 'touch') {
    prepare();
    tell({ kind: 'state', state: state() });
  } else if (ask === 'state') {
    const answer = state();
    if (answer.held > 0) held = runsOf(FRAME_HELD);
    tell({ kind: 'state', state: answer });
  } else if (ask === 'write') tell({ kind: 'written', writeNs: write(question.frames) });
  else if (ask === 'floor') tell({ kind: 'floor', ms: floor(held), runs: held.length });
  else void guest.close().then(() => port.close());
});
prepare();
tell({ kind: 'state', state: state() });
