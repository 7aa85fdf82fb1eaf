/**
 * The model held to reality: short traces on real guests and, with what was measured of these guests, in the model; what
 * both say of recalls, kills and reclaimed memory, side by side. How guests play is play.ts's.
 */

import { dirname } from 'node:path';
import { ours } from '../../../policy/anchors/ours.ts';
import type { PolicyMemory } from '../../../policy/types.ts';
import { MIB } from '../../../policy/units.ts';
import type { Pace } from '../../../sim/policy/guests.ts';
import { type Outcome, runPolicy, START_MS } from '../../../sim/policy/run.ts';
import { makeShortTrace, SETTLED_S } from '../../../sim/policy/short-traces.ts';
import type { Trace } from '../../../sim/policy/trace.ts';
import type { BenchRow, Measured } from '../../report.ts';
import { quantile } from '../figures.ts';
import { type Calibrated, Calibration } from './calibrate.ts';
import { EmbeddedPlayer, type EmbeddedStart } from './guests.ts';
import { type DaemonStart, RealHost } from './host.ts';
import { LinuxPlayer } from './linux-guest.ts';
import { type Beginning, Play, type Played } from './play.ts';
import type { Scale } from './scale.ts';

export { SHORT_TRACE_NAMES } from '../../../sim/policy/short-traces.ts';

export const REAL_KINDS = ['embedded', 'linux'] as const;
type RealKind = (typeof REAL_KINDS)[number];

/** What each kind plays unless something else is asked for. */
const REAL_TRACES: Readonly<Record<RealKind, readonly string[]>> = {
  embedded: ['burst', 'deep-burst', 'boot-storm', 'saw-tooth', 'host-burst'],
  linux: ['burst', 'boot-storm', 'host-burst'],
};

const SCALES: Readonly<Record<RealKind, Scale>> = {
  embedded: { size: 16, speed: 4 },
  // A kernel alone uses more than a sixteenth of what the trace's programs do.
  linux: { size: 8, speed: 4 },
};

const MODEL_STEP_S = 1 / 16;
/** Statistics come at some moment of each second, of which nothing is known: the model is asked at several. */
const PHASES = [0, 0.25, 0.5, 0.75];
const STATISTICS_MS = 1000;

interface RealOptions {
  readonly seed: number;
  readonly kinds: readonly RealKind[];
  /** All of a kind unless given. */
  readonly traces?: readonly string[];
  readonly daemon: DaemonStart;
  readonly embedded: EmbeddedStart;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

interface Compared {
  readonly kind: RealKind;
  readonly trace: string;
  readonly played: Played;
  readonly model: readonly Outcome[];
}

export async function benchReality(options: RealOptions): Promise<Measured> {
  const plans = options.kinds.map(kind => ({ kind, names: options.traces ?? REAL_TRACES[kind] }));
  const total = plans.reduce((sum, { names }) => sum + names.length, 0);
  const compared: Compared[] = [];
  const notes: string[] = [];
  for (const { kind, names } of plans) {
    const traces = names.map(name => makeShortTrace(name, options.seed));
    options.progress(compared.length, total, `${kind}: guests boot`);
    const host = await startHost(kind, traces[0], options);
    try {
      const scale = SCALES[kind];
      const memoryBytes = traces[0].guests[0].memoryBytes / scale.size;
      const measured = await new Calibration(host, memoryBytes, scale).run();
      notes.push(noteOf(kind, scale, measured));
      for (const trace of traces) {
        options.progress(compared.length, total, `${kind}: ${trace.name}`);
        compared.push(await compare(kind, host, asHere(trace, measured), measured, options.signal));
      }
    } finally {
      await host.close();
    }
  }
  options.progress(total, total, 'done');
  return { rows: compared.flatMap(rowsOf), ratios: ratiosOf(compared), notes };
}

function startHost(
  kind: RealKind,
  { guests }: Trace,
  { daemon, embedded, signal }: RealOptions,
): Promise<RealHost> {
  const { size, speed } = SCALES[kind];
  const memoryBytes = guests[0].memoryBytes / size;
  return RealHost.start({
    daemon,
    names: guests.map(({ name }) => name),
    pollMs: Math.round(STATISTICS_MS / speed),
    boot: (name, socketPath) =>
      kind === 'linux'
        ? LinuxPlayer.boot(name, socketPath, { memoryBytes, directory: dirname(socketPath), signal })
        : EmbeddedPlayer.start(name, embedded({ socketPath, memoryBytes })),
  });
}

/** The trace with guests that are as fast as these. */
const asHere = (trace: Trace, { inflateBytes }: Calibrated): Trace => ({
  ...trace,
  guests: trace.guests.map(guest => ({ ...guest, inflateRate: inflateBytes })),
});

async function compare(
  kind: RealKind,
  host: RealHost,
  trace: Trace,
  measured: Calibrated,
  signal: AbortSignal,
): Promise<Compared> {
  const { pace } = measured;
  const beginning = beginningOf(trace, pace);
  const play = new Play({ host, trace, scale: SCALES[kind], measured, beginning, signal });
  const played = await play.run();
  const model = PHASES.map(phaseS =>
    runPolicy(trace, ours, { pace, phaseS, stepS: MODEL_STEP_S, warmUpS: SETTLED_S }),
  );
  return { kind, trace: trace.name, played, model };
}

/** The model's host at the moment from which the trace is played. */
function beginningOf(trace: Trace, pace: Pace): Beginning {
  let memory: PolicyMemory | undefined;
  let beginning: Beginning | undefined;
  const spy: typeof ours = {
    ...ours,
    decide(sample, settings, turns) {
      const answer = ours.decide(sample, settings, turns);
      ({ memory } = answer.memory.last);
      return answer;
    },
  };
  runPolicy({ ...trace, seconds: SETTLED_S + 4 }, spy, {
    pace,
    stepS: MODEL_STEP_S,
    warmUpS: SETTLED_S,
    onDecision: (atS, _, { balloon, cache }) => {
      if (atS < SETTLED_S || beginning !== undefined || memory === undefined) return;
      const { atMs } = memory;
      beginning = { atS, atMs, memory: structuredClone(memory), balloons: [...balloon], caches: [...cache] };
    },
  });
  if (beginning === undefined) throw new Error(`no decision on ${trace.name} after ${START_MS}`);
  return beginning;
}

const perhaps = (values: readonly number[], share: number): number | null =>
  values.length === 0 ? null : quantile(values, share);
const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;
const once = (value: number) => ({ min: value, median: value, max: value });

function rowsOf({ kind, trace, played, model }: Compared): BenchRow[] {
  const peer: string = kind;
  const recalls = model.flatMap(({ recallS }) => recallS);
  const figures = (values: readonly number[]) => ({
    recalls: values.length,
    recallP50S: perhaps(values, 0.5),
    recallP99S: perhaps(values, 0.99),
  });
  return [
    {
      case: 'real',
      scenario: trace,
      peer,
      elapsedMs: once(0),
      kills: played.kills,
      ...figures(played.recallS),
      reclaimedGiBh: played.reclaimedGiBh,
      neededGiBh: played.neededGiBh,
      decisions: played.decisions,
      lateS: played.lateS,
    },
    {
      case: 'model',
      scenario: trace,
      peer,
      elapsedMs: once(0),
      kills: mean(model.map(({ kills }) => kills)),
      ...figures(recalls),
      recalls: recalls.length / model.length,
      reclaimedGiBh: mean(model.map(({ reclaimedGiBh }) => reclaimedGiBh)),
      neededGiBh: mean(model.map(({ neededGiBh }) => neededGiBh)),
      decisions: mean(model.map(({ decisions }) => decisions)),
      lateS: null,
    },
  ];
}

/** What is real beside what the model says; recalls of all traces of a kind together, for there are few in each. */
function ratiosOf(compared: readonly Compared[]): Record<string, number> {
  const ratios: Record<string, number> = {};
  for (const kind of REAL_KINDS) {
    const own = compared.filter(one => one.kind === kind);
    if (own.length === 0) continue;
    const real = own.flatMap(({ played }) => played.recallS);
    const model = own.flatMap(one => one.model.flatMap(({ recallS }) => recallS));
    if (real.length > 0 && model.length > 0) {
      ratios[`${kind}.recallP50ToModel`] = quantile(real, 0.5) / quantile(model, 0.5);
      ratios[`${kind}.recallP99ToModel`] = quantile(real, 0.99) / quantile(model, 0.99);
    }
    ratios[`${kind}.killsBeyondModel`] = own.reduce(
      (sum, { played, model: outcomes }) => sum + played.kills - mean(outcomes.map(({ kills }) => kills)),
      0,
    );
    const reclaimed = own.map(
      ({ played, model: outcomes }) =>
        played.reclaimedGiBh / mean(outcomes.map(({ reclaimedGiBh }) => reclaimedGiBh)),
    );
    ratios[`${kind}.reclaimedToModelLeast`] = Math.min(...reclaimed);
    ratios[`${kind}.reclaimedToModelMost`] = Math.max(...reclaimed);
  }
  return ratios;
}

function noteOf(
  kind: RealKind,
  { size, speed }: Scale,
  { pace, inflateBytes, baseBytes }: Calibrated,
): string {
  const mib = (bytes: number) => `${Math.round(bytes / MIB)} MiB/s`;
  return [
    `${kind}: guests of 1/${size} of the trace's memory, ${speed} s of the trace in one.`,
    `Measured before, in the trace's units: inflates ${mib(inflateBytes)}, of page cache ${mib(pace.reclaimBytes)},`,
    `deflates ${mib(pace.deflateBytes)}, programs grow by ${mib(pace.allocateBytes)}, an order takes`,
    `${pace.orderS.toFixed(2)} s, free memory is reported after ${pace.reportS.toFixed(1)} s, a kernel uses ${Math.round((Math.max(...baseBytes) * size) / MIB)} MiB.`,
  ].join(' ');
}
