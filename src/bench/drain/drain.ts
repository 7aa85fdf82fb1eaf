/**
 * How fast a host of a fleet is empty: agents, machines and a server of NATS, all real, in a network namespace whose
 * loopback is as fast as the network that is modelled. The floor, in the same run and over the same link, is a plain copy of
 * the bytes that the guests held. What happens in the namespace is world.ts's.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { missingPrograms } from '../../peers/programs.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import { Mailbox } from '../mailbox.ts';
import { type BenchRow, type Measured, type Spread, spreadOf } from '../report.ts';
import type { DrainRole, RoleTimes } from './processor-time.ts';

export interface DrainWorldOptions {
  /** `aerostat`, as a command line. */
  readonly aerostat: readonly [program: string, ...words: string[]];
  readonly guests: number;
  readonly memoryBytes: number;
  /** Share of its memory that a guest uses, (0, 1). */
  readonly usedShare: number;
  readonly bytesPerSecond: number;
  readonly periodMs: number;
}

export interface DrainBenchOptions extends DrainWorldOptions {
  /** How many guests leave at a time, each measured by itself. */
  readonly concurrency: readonly number[];
  readonly runs: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

export type ToDrainWorld = DrainWorldOptions & { readonly concurrency: number };

export interface Drained {
  readonly kind: 'drained';
  /** From the order until the host reports no guest. */
  readonly elapsedMs: number;
  /** What the host held for its guests when the order was given. */
  readonly bytes: number;
  /** What processes of each role took of a processor meanwhile. */
  readonly times: RoleTimes;
  /** For how long of it the link had next to nothing to carry. */
  readonly idleMs: number;
  /** The floor, and what both of its ends took of a processor. */
  readonly copyMs: number;
  readonly copyCpuMs: number;
}

export type FromDrainWorld = Drained | { readonly kind: 'failed'; readonly message: string };

/** tc's own: what a network card would have queued. */
const BURST = '4mb';
const LATENCY = '20ms';

/** All that is started in there ends with it: its first process is the namespace's. */
const NAMESPACE = [
  '--user',
  '--map-root-user',
  '--net',
  '--pid',
  '--fork',
  '--kill-child',
  '--mount-proc',
] as const;

/** @throws MissingPeerError; AerostatError when a guest does not get there */
export async function benchDrain(options: DrainBenchOptions): Promise<Measured> {
  const missing = missingPrograms('nats-server', 'tc', 'ip', 'unshare');
  if (missing !== undefined) throw missing;
  const { concurrency, runs, signal, progress, ...world } = options;
  const all = new Map<number, Drained[]>(concurrency.map(count => [count, []]));
  let done = 0;
  for (let run = 0; run < runs; run++) {
    for (const count of concurrency) {
      signal.throwIfAborted();
      progress(done++, runs * concurrency.length, `${count} at a time`);
      all.get(count)?.push(await drainOnce({ ...world, concurrency: count }, signal));
    }
  }
  const rows = concurrency.map(count => rowOf(options, count, all.get(count) ?? []));
  const ratios = Object.fromEntries(rows.map(row => [`drain.${row.case}.toFloor`, Number(row.toFloor)]));
  return {
    rows,
    ratios: { 'drain.toFloor': Math.min(...Object.values(ratios)), ...ratios },
    notes: [
      `The floor is a plain copy of what the guests held, over the same link of ${(options.bytesPerSecond / 1.25e8).toFixed(2)} Gbit/s (tc, token bucket).`,
      'CPU times are per guest: of the machine that leaves, of the one that is started and awaits it, of agents and NATS, and of both ends of the plain copy.',
      'drain.toFloor is that of the concurrency that did best; aerostat drains 8 at a time unless drains of [fleet] says another number.',
    ],
  };
}

function rowOf(
  { guests, memoryBytes, bytesPerSecond }: DrainBenchOptions,
  count: number,
  drained: readonly Drained[],
): BenchRow {
  const figure = (of: (one: Drained) => number): Spread => spreadOf(drained.map(of));
  const bytes = figure(one => one.bytes);
  const perGuest = (role: DrainRole): Spread => figure(one => one.times[role] / guests);
  return {
    case: `at${count}`,
    scenario: `${guests} guests of ${memoryBytes / 2 ** 20} MiB, ${count} at a time`,
    peer: 'embedded',
    elapsedMs: figure(one => one.elapsedMs),
    floorMs: figure(one => one.copyMs),
    linkMs: (bytes.median / bytesPerSecond) * 1000,
    bytes: bytes.median,
    linkIdleMs: figure(one => one.idleMs),
    sourceCpuMs: perGuest('sourceCpuMs'),
    destinationCpuMs: perGuest('destinationCpuMs'),
    fleetCpuMs: perGuest('fleetCpuMs'),
    copyCpuMs: figure(one => one.copyCpuMs / guests),
    // Of each run by itself: both sides had the same machine.
    toFloor: figure(one => one.elapsedMs / one.copyMs).median,
  };
}

async function drainOnce(order: ToDrainWorld, signal: AbortSignal): Promise<Drained> {
  const rate = `${Math.round(order.bytesPerSecond * 8)}bit`;
  const shaped = `ip link set lo up && tc qdisc add dev lo root tbf rate ${rate} burst ${BURST} latency ${LATENCY} && exec "$@"`;
  const world = fileURLToPath(workerUrl('./world', import.meta.url));
  const child = spawn('unshare', [...NAMESPACE, 'sh', '-c', shaped, 'sh', process.execPath, world], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const mailbox = new Mailbox<FromDrainWorld>('the world of the drain', signal);
  child.on('message', (message: FromDrainWorld) => mailbox.put(message));
  child.once('error', error => mailbox.end(error.message));
  const ended = new Promise<void>(resolve => {
    child.once('exit', () => {
      mailbox.end('it ended; does this system let its users have network namespaces?');
      resolve();
    });
  });
  try {
    child.send(order, () => {});
    return await mailbox.next('drained');
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
}
