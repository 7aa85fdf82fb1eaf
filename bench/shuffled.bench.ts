/**
 * What could make the discarding of shuffled memory faster, where the kernel waits for its own records of pages: the same
 * memory is touched anew in a shuffled order for each case, and given back in one punch (`bare`), in claims of 16 MiB as the
 * discarding thread makes them, the same with a second thread that asks for the next two claims ahead or takes half of them,
 * and page by page, in the order of the list, of addresses, and of the host's page frames. Each case is paired with the bare
 * punch of its turn. Prints a table: below 1.00 a case is faster than the bare punch. `cpu` is what the punching thread had of
 * a processor: on a machine that has other work, it says more than the time that passed; what the second thread had is not in
 * it.
 */
import { Worker } from 'node:worker_threads';
import { type BenchRow, type Measured, type Spread, spreadOf } from '../src/bench/report.ts';
import { PAGE_SIZE } from '../src/memory/page.ts';
import { punchHole } from '../src/sys/file.ts';
import { monotonicMs } from '../src/sys/monotonic.ts';
import { ownThreadId, timesOfThread } from '../src/sys/thread-times.ts';
import { workerUrl } from '../src/threads/worker-url.ts';
import { NO_PEER, runAsProgram } from './micro.ts';
import { ShuffledMemory, STRETCH_BYTES } from './shuffled-memory.ts';
import { type Ahead, DONE_WORD, PUNCHED_WORD, type ThreadWork } from './shuffled-thread.ts';

const BYTES = 2 ** 30;
const TURNS = 7;
const STRETCHES = BYTES / STRETCH_BYTES;

const words = new Int32Array(new SharedArrayBuffer(8));

/** Until all of the memory is the host's. */
interface Sample {
  readonly ms: number;
  readonly cpuMs: number;
}

/** Undefined where this machine does not let it be measured. */
type Case = (memory: ShuffledMemory, thread: Worker) => Sample | undefined;

const bare: Case = ({ fd, bytes }) => timed(() => punchHole(fd, 0, bytes));

const claims: Case = ({ fd }) =>
  timed(() => {
    for (let stretch = 0; stretch < STRETCHES; stretch++)
      punchHole(fd, stretch * STRETCH_BYTES, STRETCH_BYTES);
  });

/** The other thread is told of each claim; its last one may end after ours. */
const beside =
  (ahead: Ahead): Case =>
  ({ fd, address }, thread) => {
    for (const word of [PUNCHED_WORD, DONE_WORD]) Atomics.store(words, word, 0);
    const work: ThreadWork = { ahead, fd: fd.number, address, stretches: STRETCHES };
    return timed(() => {
      thread.postMessage(work);
      const step = ahead === 'punch' ? 2 : 1;
      for (let stretch = 0; stretch < STRETCHES; stretch += step) {
        punchHole(fd, stretch * STRETCH_BYTES, STRETCH_BYTES);
        Atomics.store(words, PUNCHED_WORD, stretch + 1);
        Atomics.notify(words, PUNCHED_WORD);
      }
      if (ahead === 'punch') Atomics.wait(words, DONE_WORD, 0);
    });
  };

const pageByPage =
  (order: (memory: ShuffledMemory) => Uint32Array | undefined): Case =>
  memory => {
    const pages = order(memory);
    return (
      pages &&
      timed(() => {
        for (const page of pages) punchHole(memory.fd, page * PAGE_SIZE, PAGE_SIZE);
      })
    );
  };

const CASES: Readonly<Record<string, Case>> = {
  bare,
  claims,
  'claims, mincore ahead': beside('mincore'),
  'claims, page table read ahead': beside('pagemap'),
  'claims, populated ahead': beside('populate'),
  'claims, two threads': beside('punch'),
  'pages by list': pageByPage(({ pages }) => pages),
  'pages by address': pageByPage(({ pages }) => pages.slice().sort()),
  'pages by frame': pageByPage(memory => memory.byFrame()),
};
const NAMES = Object.keys(CASES);

const threadId = ownThreadId();
const ranMs = (): number => timesOfThread(threadId)?.ranMs ?? Number.NaN;

function timed(work: () => void): Sample {
  const ranBeforeMs = ranMs();
  const startedMs = monotonicMs();
  work();
  const ms = monotonicMs() - startedMs;
  return { ms, cpuMs: ranMs() - ranBeforeMs };
}

async function sample(name: string, thread: Worker): Promise<Sample | undefined> {
  const memory = new ShuffledMemory(BYTES);
  try {
    const taken = CASES[name](memory, thread);
    // A thread that goes ahead may be at its last stretch, in memory that is about to be unmapped.
    if (name.includes('ahead')) Atomics.wait(words, DONE_WORD, 0);
    return taken;
  } finally {
    memory.close();
    // Finalizers unmap what is closed.
    await new Promise(resolve => setImmediate(resolve));
  }
}

async function measure(): Promise<Measured> {
  const thread = new Worker(workerUrl('./shuffled-thread', import.meta.url), { workerData: words.buffer });
  await new Promise(resolve => thread.once('message', resolve));
  const samples = new Map<string, Sample[]>(NAMES.map(name => [name, []]));
  const pairs = new Map<string, Sample[]>(NAMES.map(name => [name, []]));
  for (let turn = 0; turn < TURNS; turn++) {
    const taken = new Map<string, Sample>();
    for (let index = 0; index < NAMES.length; index++) {
      // Every turn begins with another case, so that none always follows the same one.
      const name = NAMES[(turn + index) % NAMES.length];
      const one = await sample(name, thread);
      if (one !== undefined) taken.set(name, one);
    }
    const base = taken.get('bare') ?? { ms: Number.NaN, cpuMs: Number.NaN };
    for (const [name, one] of taken) {
      samples.get(name)?.push(one);
      pairs.get(name)?.push({ ms: one.ms / base.ms, cpuMs: one.cpuMs / base.cpuMs });
    }
  }
  await thread.terminate();
  const had = NAMES.filter(name => samples.get(name)?.length === TURNS);
  const spread = (
    of: ReadonlyMap<string, readonly Sample[]>,
    name: string,
    figure: keyof Sample = 'ms',
  ): Spread => spreadOf((of.get(name) ?? []).map(one => one[figure]));
  console.table(
    had.map(name => {
      const toBare = spread(pairs, name);
      return {
        case: name,
        'median ms': spread(samples, name).median.toFixed(0),
        'to bare': toBare.median.toFixed(2),
        from: toBare.min.toFixed(2),
        to: toBare.max.toFixed(2),
        'cpu ms': spread(samples, name, 'cpuMs').median.toFixed(0),
        'cpu to bare': spread(pairs, name, 'cpuMs').median.toFixed(2),
      };
    }),
  );
  return {
    rows: had.map(
      (name): BenchRow => ({
        case: name,
        scenario: '1 GiB of shuffled memory',
        peer: NO_PEER,
        elapsedMs: spread(samples, name),
        toBare: spread(pairs, name),
        cpuMs: spread(samples, name, 'cpuMs'),
        cpuToBare: spread(pairs, name, 'cpuMs'),
      }),
    ),
    ratios: Object.fromEntries(had.slice(1).map(name => [`${name}.toBare`, spread(pairs, name).median])),
  };
}

await runAsProgram(import.meta.url, 'shuffled', measure);
