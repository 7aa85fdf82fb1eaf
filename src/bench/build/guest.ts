/**
 * The guest of `bench build`, in a thread of its own: it builds, frees all that the build used, does nothing for a while, and
 * builds again. Every page is checked by who wrote it, so a lost one ends the measurement.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { EmbeddedGuest } from '../../embedded/embedded-guest.ts';
import { Build } from '../../guest/workloads/build.ts';
import { PAGE_SIZE } from '../../memory/page.ts';
import { defined } from '../../sys/defined.ts';
import { InvariantError } from '../../sys/error.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { ownThreadId, timesOfThread } from '../../sys/thread-times.ts';
import type { BuildGuestData, FromBuildGuest, ToBuildGuest } from './protocol.ts';

/** How often it is looked whether the compilers are done. */
const LOOK_MS = 5;
/** Compilers at once, and what each uses at its largest on average, as a share of memory. */
const JOBS = 4;
const WORKING_SHARE = 1 / 16;

const data = workerData as BuildGuestData;
if (parentPort === null) throw new InvariantError('a guest without a bench');
const port = parentPort;
const tell = (message: FromBuildGuest): void => port.postMessage(message);
const thread = ownThreadId();
const ranMs = (): number => timesOfThread(thread)?.ranMs ?? Number.NaN;

const machine = await EmbeddedGuest.start({
  socketPath: data.socketPath,
  memoryBytes: data.memoryBytes,
  profile: data.profile,
  lends: data.lends,
  seed: data.seed,
  coverage: 'whole',
  ...defined({ pagesPerSecondMax: data.pagesPerSecond }),
});
const { guest, processor, reactor, memory } = machine;

const sleep = (ms: number): Promise<void> => new Promise(resolve => void reactor.schedule(ms, resolve));

// Rejects with what a page lost; it is looked at by each build.
const over = machine.ended.then(() => {
  throw new InvariantError('the guest ended in the middle of a build');
});

async function build(): Promise<void> {
  tell({ kind: 'building' });
  const startedMs = monotonicMs();
  const ranBefore = ranMs();
  const workingPages = Math.floor((memory.size * WORKING_SHARE) / PAGE_SIZE);
  const workload = guest.start({ kind: 'build', jobs: JOBS, workingPages });
  if (!(workload instanceof Build)) throw new InvariantError('a build that is none');
  processor.wake();
  // A guest that found a page wrong has ended.
  while (workload.finished < data.compilers) await Promise.race([sleep(LOOK_MS), over]);
  const elapsedMs = monotonicMs() - startedMs;
  tell({ kind: 'built', elapsedMs, ranMs: ranMs() - ranBefore, killed: workload.killed });
  guest.verify();
  workload.stop();
}

port.once('message', (_: ToBuildGuest) => {
  void run().finally(() => port.close());
});
tell({ kind: 'ready', memoryFd: memory.regions[0].backing.file?.fd.number ?? -1 });

async function run(): Promise<void> {
  try {
    for (let turn = 0; turn < data.builds; turn++) {
      await build();
      await sleep(data.pauseMs);
    }
    tell({ kind: 'done' });
  } finally {
    await machine.close();
  }
}
