/**
 * Memory policies side by side: every policy on every trace in virtual time, and what became of guests and host. The
 * traces and the model are sim/policy's; here outcomes become rows, sums and the ratios that the project's aims name.
 */
import { OURS } from '../../policy/anchors/ours.ts';
import { CONTENDERS, type Contender, ORACLE_NAME } from '../../sim/policy/policies.ts';
import { type Outcome, WARM_UP_S } from '../../sim/policy/run.ts';
import { characterOf, type Trace } from '../../sim/policy/trace.ts';
import { makeTrace, TRACE_NAMES } from '../../sim/policy/traces.ts';
import type { ChartPlan } from '../html.ts';
import type { BenchRow, Measured } from '../report.ts';
import { type Group, groupRow, paretoOf, quantile, type Run, rowOf } from './figures.ts';
import { readTraceFile } from './trace-file.ts';

export const POLICY_NAMES: readonly string[] = CONTENDERS.map(({ name }) => name);
export { TRACE_NAMES } from '../../sim/policy/traces.ts';

const REPORTING_ONLY = 'reporting only';

export interface PolicyBenchOptions {
  readonly seed: number;
  readonly policies: readonly string[];
  readonly traces: readonly string[];
  /** Files with traces, in place of these. */
  readonly files?: readonly string[];
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

/** Sums over traces that have something in common. */
export const GROUPS: readonly Group[] = [
  { name: 'all traces', of: () => true },
  { name: 'overcommitted by a fifth or more', of: ({ character }) => character.overcommit >= 1.2 },
  { name: 'room for all', of: ({ character }) => character.fits },
];
const [, OVERCOMMITTED] = GROUPS;

export const POLICY_CHARTS: readonly ChartPlan[] = [
  {
    title: 'Reclaimed against stalled',
    scenarios: [OVERCOMMITTED.name],
    x: ['reclaimedGiBh', 'memory that the host needed back and got, GiB-hours (more is better)'],
    y: ['stallS', 'seconds that programs stood still (less is better)'],
    marked: OURS,
    logarithmic: true,
  },
  {
    title: 'Out-of-memory kills',
    scenarios: GROUPS.map(({ name }) => name),
    figures: [['kills', 'kills']],
    unit: 'programs killed',
  },
  {
    title: 'Time until a burst has its memory',
    scenarios: [GROUPS[0].name],
    figures: [
      ['recallP50S', 'median'],
      ['recallP99S', '99 of 100'],
    ],
    unit: 's',
    logarithmic: true,
  },
];

export async function benchPolicy(options: PolicyBenchOptions): Promise<Measured> {
  const { seed, signal, progress } = options;
  const contenders = CONTENDERS.filter(({ name }) => options.policies.includes(name));
  const { files } = options;
  const names = TRACE_NAMES.filter(one => options.traces.includes(one));
  const traces = files?.map(readTraceFile) ?? names.map(name => makeTrace(name, seed));
  const total = traces.length * contenders.length;
  const runs: Run[] = [];
  for (const trace of traces) {
    const character = characterOf(trace);
    for (const contender of contenders) {
      progress(runs.length, total, `${contender.name} on ${trace.name}`);
      // A run is some hundred milliseconds; between two of them one can stop it.
      await new Promise(resolve => setImmediate(resolve));
      signal.throwIfAborted();
      runs.push({ trace, character, outcome: contender.run(trace, { now: () => performance.now() }) });
    }
  }
  progress(total, total, 'done');
  return measuredOf(runs, contenders, seed);
}

export function measuredOf(runs: readonly Run[], contenders: readonly Contender[], seed: number): Measured {
  const each = runs.map(run => rowOf(run, oracleOn(runs, run.trace)));
  const sums = GROUPS.flatMap(group => {
    const inGroup = runs.filter(group.of);
    return inGroup.length === 0 ? [] : contenders.map(({ name }) => groupRow(group.name, name, inGroup));
  });
  const hours = runs.reduce((sum, { trace }) => sum + (trace.guests.length * trace.seconds) / 3600, 0);
  return {
    rows: [...sums, ...each],
    ratios: ratiosOf(runs, contenders),
    notes: [
      `Seed ${seed}; ${Math.round(hours)} guest-hours in virtual time, the first ${WARM_UP_S} s of each trace not counted.`,
      'Times in MS columns are what the decisions of a run cost; everything else is of the model.',
    ],
  };
}

/** The printed table: sums for all policies, or every trace where few were asked for. */
export function shownOf(measured: Measured, traces: number): Measured {
  const names = new Set(GROUPS.map(({ name }) => name));
  const isSum = ({ scenario, group }: BenchRow) => names.has(scenario) && group === 'sum';
  const rows = measured.rows
    .filter(row => traces <= 3 || isSum(row))
    .map(({ group: _, ...row }) => row as BenchRow);
  return { ...measured, rows };
}

const oracleOn = (runs: readonly Run[], trace: Trace): Outcome | undefined =>
  runs.find(run => run.trace === trace && run.outcome.policy === ORACLE_NAME)?.outcome;

function ratiosOf(runs: readonly Run[], contenders: readonly Contender[]): Record<string, number> {
  const mine = runs.filter(({ outcome }) => outcome.policy === OURS);
  if (mine.length === 0) return {};
  const ratios: Record<string, number> = {};
  const feasible = mine.filter(({ character }) => character.feasible);
  const interval = (contenders.find(({ name }) => name === OURS)?.periodMs ?? 1000) / 1000;
  const recalls = feasible.flatMap(({ outcome }) => outcome.recallS);
  if (recalls.length > 0) ratios['recall.p99ToInterval'] = quantile(recalls, 0.99) / interval;
  ratios.kills = feasible.reduce((sum, { outcome }) => sum + outcome.kills, 0);
  ratios['host.underReserveMostS'] = Math.max(...feasible.map(({ outcome }) => outcome.underReserveS));
  ratios.floorViolations = mine.reduce((sum, { outcome }) => sum + outcome.violations, 0);
  const efficiencies = mine.flatMap(({ trace, outcome }) => {
    const best = oracleOn(runs, trace);
    return best === undefined || best.reclaimedGiBh < 0.05
      ? []
      : [outcome.reclaimedGiBh / best.reclaimedGiBh];
  });
  if (efficiencies.length > 0) ratios.reclaimedToOracle = Math.min(...efficiencies);
  const fitting = mine.filter(({ character }) => character.fits);
  if (fitting.length > 0) {
    const balloons = ({ outcome }: Run) => outcome.reclaimedGiBh + outcome.unneededGiBh;
    ratios['reclaimedGiBh.whereThereIsRoom'] = fitting.reduce((sum, run) => sum + balloons(run), 0);
    const plain = runs.filter(
      ({ character, outcome }) => character.fits && outcome.policy === REPORTING_ONLY,
    );
    const stalls = (of: readonly Run[]) => of.reduce((sum, { outcome }) => sum + outcome.stallS, 0);
    if (plain.length > 0) ratios.stallToReportingOnly = (stalls(fitting) + 1) / (stalls(plain) + 1);
  }
  return { ...ratios, ...paretoOf(runs.filter(OVERCOMMITTED.of), OURS, ORACLE_NAME) };
}
