/**
 * What the worst known guests cost their neighbour: an honest guest and a hostile one on one data-plane thread of a
 * daemon in a process of its own. The honest one clocks each of its buffers, and the API is asked for its status all the
 * while; first beside a guest that rests, then beside the same guest while it plays, and last beside it while it takes as
 * much of the processors for itself as it did to play. The last tells what the daemon makes of a hostile guest apart from
 * what the machine's processors do, where the two guests' processes and the daemon have to share them.
 */

import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { DeviceGuestStatus } from '../../control/contract.ts';
import type { Control } from '../../control/operations.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import type { ChartPlan } from '../html.ts';
import { PageDaemon } from '../page/daemon.ts';
import { PeerProcess } from '../peer-process.ts';
import { type BenchRow, type Measured, round, spreadOf } from '../report.ts';
import { HOSTILE } from './inputs/messages.ts';
import { HOSTILE_INPUTS, type HostileInput } from './inputs.ts';
import type {
  FromHonest,
  FromHostile,
  HonestData,
  HostileData,
  Service,
  ToHonest,
  ToHostile,
} from './protocol.ts';

export const INPUT_NAMES: readonly string[] = HOSTILE_INPUTS.map(({ name }) => name);

export interface NeighbourBenchOptions {
  readonly inputs: readonly string[];
  /** How long the honest guest is watched beside each, resting and playing. */
  readonly seconds: number;
  readonly runs: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

/** How the neighbour fared in one run. */
interface Sample {
  readonly idle: Service;
  readonly beside: Service;
  readonly working: Service;
  readonly apiIdleMs: number;
  readonly apiBesideMs: number;
  readonly rounds: number;
  readonly residentMiB: number;
  /** How the daemon took it: null where it went on. */
  readonly ended: string | null;
}

const NEIGHBOUR = 'neighbour';
const SCENARIO = 'kick to used';
/** How often the API is asked. */
const ASK_MS = 20;
/** Answers of the API before any is clocked. */
const REHEARSALS = 20;
const MIB = 2 ** 20;

/** Guests are dealt out to the daemon's threads in turn: so many in between bring these two to the same one. */
function guestsOnOneThread(): string[] {
  const threads = Math.ceil(availableParallelism() / 2);
  return [HOSTILE, ...Array.from({ length: threads - 1 }, (_, index) => `between${index}`), NEIGHBOUR];
}

export async function benchNeighbour(options: NeighbourBenchOptions): Promise<Measured> {
  const { inputs, runs, signal, progress } = options;
  const chosen = HOSTILE_INPUTS.filter(({ name }) => inputs.includes(name));
  const samples = new Map<HostileInput, Sample[]>();
  const notes: string[] = [];
  let done = 0;
  for (let run = 0; run < runs; run++) {
    for (const input of chosen) {
      signal.throwIfAborted();
      progress(done++, runs * chosen.length, input.name);
      const sample = await measureInput(input, options);
      if (typeof sample !== 'string') samples.set(input, [...(samples.get(input) ?? []), sample]);
      else if (run === 0) notes.push(`${input.name} was not played: ${sample}`);
    }
  }
  progress(runs * chosen.length, runs * chosen.length, 'done');
  for (const [input, taken] of samples) {
    const ended = taken.find(sample => sample.ended !== null)?.ended;
    if (ended) notes.push(`${input.name}: ${ended}`);
  }
  return { ...figuresOf(samples), notes };
}

/** Plays one input at a daemon of its own; why not, where this machine cannot play it. */
async function measureInput(
  { name, profile }: HostileInput,
  { seconds, signal }: NeighbourBenchOptions,
): Promise<Sample | string> {
  const words = profile === undefined ? [] : ['--profile', profile];
  const daemon = await PageDaemon.start({ guests: guestsOnOneThread(), words });
  const honestData: HonestData = { socketPath: daemon.socketOf(NEIGHBOUR) };
  const honest = new PeerProcess<ToHonest, FromHonest>(workerUrl('./honest-peer', import.meta.url), {
    args: [JSON.stringify(honestData)],
    signal,
  });
  const hostileData: HostileData = {
    socketPath: daemon.socketOf(HOSTILE),
    input: name,
    api: daemon.origin,
    token: daemon.token,
  };
  const hostile = new PeerProcess<ToHostile, FromHostile>(workerUrl('./hostile-peer', import.meta.url), {
    args: [JSON.stringify(hostileData)],
    signal,
  });
  try {
    await honest.hear('ready');
    const ready = await hostile.hear('ready', 'unplayable');
    if (ready.kind === 'unplayable') return ready.message;
    // Rehearsed, as the honest guest is: the first answer takes longer than all others.
    for (let time = 0; time < REHEARSALS; time++) await daemon.control.guest(NEIGHBOUR);
    const idle = await watch(honest, daemon.control, seconds);
    hostile.send('play');
    const beside = await watch(honest, daemon.control, seconds);
    hostile.send('rest');
    const { rounds, refused } = await hostile.hear('rested');
    hostile.send('work');
    const working = await watch(honest, daemon.control, seconds);
    hostile.send('rest');
    await hostile.hear('rested');
    return {
      idle: idle.service,
      beside: beside.service,
      working: working.service,
      apiIdleMs: idle.apiWorstMs,
      apiBesideMs: beside.apiWorstMs,
      rounds,
      residentMiB: daemon.ended ? 0 : Math.round(daemon.residentBytes() / MIB),
      ended: daemon.ended
        ? 'the daemon ended'
        : beside.service.lost !== null
          ? `the neighbour: ${beside.service.lost}`
          : refused,
    };
  } finally {
    await Promise.all([honest.end(), hostile.end()]);
    await daemon.close();
  }
}

interface Watched {
  readonly service: Service;
  readonly apiWorstMs: number;
}

/** Lets the honest guest exchange buffers for so long, and asks the API for its status meanwhile. */
async function watch(
  honest: PeerProcess<ToHonest, FromHonest>,
  control: Control<DeviceGuestStatus>,
  seconds: number,
): Promise<Watched> {
  honest.send({ measureMs: seconds * 1000 });
  let measuring = true;
  const heard = honest.hear('measured').finally(() => {
    measuring = false;
  });
  let apiWorstMs = 0;
  while (measuring) {
    const askedMs = monotonicMs();
    // A daemon that is gone shows in what the guest says.
    await Promise.race([control.guest(NEIGHBOUR).catch(() => {}), heard.catch(() => {})]);
    apiWorstMs = Math.max(apiWorstMs, monotonicMs() - askedMs);
    await delay(ASK_MS);
  }
  return { service: (await heard).service, apiWorstMs };
}

/** Of a guest that lost its device nothing is known but how long it waited. */
const rateOf = ({ pages, tookMs, lost }: Service): number => (lost === null ? (pages * 1000) / tookMs : 0);

function figuresOf(samples: ReadonlyMap<HostileInput, readonly Sample[]>): Measured {
  const rows: BenchRow[] = [];
  let worstMs = 0;
  let worstIdleMs = 0;
  let apiWorstMs = 0;
  let leastShare = Number.POSITIVE_INFINITY;
  let leastFairShare = Number.POSITIVE_INFINITY;
  for (const [input, taken] of samples) {
    const shares = taken.map(({ idle, beside }) => rateOf(beside) / rateOf(idle));
    const share = spreadOf(shares);
    const fairShare = spreadOf(taken.map(({ working, beside }) => rateOf(beside) / rateOf(working)));
    // Of several runs the median: one hiccup of the machine is none of the guest's.
    const of = (figure: (sample: Sample) => number) => round(spreadOf(taken.map(figure)).median);
    worstMs = Math.max(
      worstMs,
      of(({ beside }) => beside.worstMs),
    );
    worstIdleMs = Math.max(
      worstIdleMs,
      of(({ idle }) => idle.worstMs),
    );
    apiWorstMs = Math.max(
      apiWorstMs,
      of(({ apiBesideMs }) => apiBesideMs),
    );
    leastShare = Math.min(leastShare, share.median);
    leastFairShare = Math.min(leastFairShare, fairShare.median);
    rows.push({
      case: input.name,
      scenario: SCENARIO,
      peer: 'hostile guest',
      elapsedMs: {
        min: Math.min(...taken.map(({ beside }) => beside.minMs)),
        median: of(({ beside }) => beside.medianMs),
        max: Math.max(...taken.map(({ beside }) => beside.worstMs)),
      },
      worstMs: of(({ beside }) => beside.worstMs),
      p99Ms: of(({ beside }) => beside.p99Ms),
      idleWorstMs: of(({ idle }) => idle.worstMs),
      throughputShare: round(share.median),
      shareBesideWork: round(fairShare.median),
      apiIdleWorstMs: of(({ apiIdleMs }) => apiIdleMs),
      apiWorstMs: of(({ apiBesideMs }) => apiBesideMs),
      rounds: of(({ rounds }) => rounds),
      daemonMiB: of(({ residentMiB }) => residentMiB),
    });
  }
  const ratios = {
    'neighbour.worstMs': worstMs,
    'neighbour.idleWorstMs': worstIdleMs,
    'neighbour.apiWorstMs': apiWorstMs,
    'neighbour.throughputShare': leastShare,
    'neighbour.shareBesideWork': leastFairShare,
  };
  return { rows, ratios: rows.length === 0 ? {} : ratios };
}

export const NEIGHBOUR_CHARTS: readonly ChartPlan[] = [
  { title: 'The longest that the neighbour waited', figures: [['worstMs', 'worst']], unit: 'ms' },
  {
    title: 'Throughput beside a hostile guest',
    figures: [['throughputShare', 'share']],
    unit: 'of that beside a resting one',
  },
];
