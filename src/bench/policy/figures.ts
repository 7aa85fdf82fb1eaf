/** Outcomes of policies as rows of figures, sums over traces, and which policy surpasses which. */

import { GIB } from '../../policy/units.ts';
import { type Outcome, WARM_UP_S } from '../../sim/policy/run.ts';
import type { Character, Trace } from '../../sim/policy/trace.ts';
import type { BenchRow } from '../report.ts';

/** One policy's way through one trace. */
export interface Run {
  readonly trace: Trace;
  readonly character: Character;
  readonly outcome: Outcome;
}

export interface Group {
  readonly name: string;
  readonly of: (run: Run) => boolean;
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))];
}

const perhaps = (values: readonly number[], share: number): number | null =>
  values.length === 0 ? null : quantile(values, share);

const once = (value: number) => ({ min: value, median: value, max: value });

const sumOf = (outcomes: readonly Outcome[], of: (outcome: Outcome) => number): number =>
  outcomes.reduce((sum, outcome) => sum + of(outcome), 0);

function figuresOf(outcomes: readonly Outcome[], guests: number) {
  const recalls = outcomes.flatMap(({ recallS }) => recallS);
  const settles = outcomes.flatMap(({ settleS }) => settleS);
  const decisions = sumOf(outcomes, outcome => outcome.decisions);
  const decideMs = sumOf(outcomes, outcome => outcome.decideMs);
  const mean = (of: (outcome: Outcome) => number) => sumOf(outcomes, of) / outcomes.length;
  return {
    elapsedMs: once(decideMs),
    kills: sumOf(outcomes, outcome => outcome.kills),
    stallS: sumOf(outcomes, outcome => outcome.stallS),
    stallMostS: Math.max(...outcomes.map(({ stallMostS }) => stallMostS)),
    refaults: Math.round(sumOf(outcomes, outcome => outcome.refaults)),
    underReserveS: sumOf(outcomes, outcome => outcome.underReserveS),
    hostSwappedGiB: Math.max(...outcomes.map(({ hostSwappedMost }) => hostSwappedMost)) / GIB,
    recallP50S: perhaps(recalls, 0.5),
    recallP99S: perhaps(recalls, 0.99),
    recallMaxS: perhaps(recalls, 1),
    settleMaxS: perhaps(settles, 1),
    reversalsPerHour: mean(outcome => outcome.reversalsPerHour),
    reclaimedGiBh: sumOf(outcomes, outcome => outcome.reclaimedGiBh),
    neededGiBh: sumOf(outcomes, outcome => outcome.neededGiBh),
    unneededGiBh: sumOf(outcomes, outcome => outcome.unneededGiBh),
    movedGiB: sumOf(outcomes, outcome => outcome.movedBytes) / GIB,
    fairness: mean(outcome => outcome.fairness),
    belowFairMeanPercent: 100 * mean(outcome => outcome.belowFairMean),
    belowFairMostPercent: 100 * Math.max(...outcomes.map(({ belowFairMost }) => belowFairMost)),
    reservationS: outcomes.reduce<number | null>((found, { reservationS }) => reservationS ?? found, null),
    violations: sumOf(outcomes, outcome => outcome.violations),
    decideUsPerGuest: decisions === 0 ? 0 : (decideMs * 1000) / decisions / guests,
  };
}

export function rowOf({ trace, outcome }: Run, best: Outcome | undefined): BenchRow {
  const toOracle =
    best === undefined || best.reclaimedGiBh < 0.05 ? null : outcome.reclaimedGiBh / best.reclaimedGiBh;
  return {
    case: outcome.policy,
    scenario: trace.name,
    peer: 'model',
    group: 'trace',
    ...figuresOf([outcome], trace.guests.length),
    toOracle,
  };
}

export function groupRow(group: string, policy: string, runs: readonly Run[]): BenchRow {
  const own = runs.filter(({ outcome }) => outcome.policy === policy);
  const guests = own.reduce((sum, { trace }) => sum + trace.guests.length, 0) / own.length;
  return {
    case: policy,
    scenario: group,
    peer: 'model',
    group: 'sum',
    ...figuresOf(
      own.map(({ outcome }) => outcome),
      guests,
    ),
  };
}

/** Amounts of memory that differ by less than this part are the same, and stalls by less of the guests' time. */
const SAME_SHARE = 0.005;
const SAME_OF_TIME = 0.001;

interface Worth {
  readonly reclaimed: number;
  /** Seconds, of so many that guests lived. */
  readonly stall: number;
  readonly lived: number;
}

/** Whether `one` is at least as good as `other` in both, and better in one. */
export function dominates(one: Worth, other: Worth): boolean {
  const more = (a: Worth, b: Worth) =>
    a.reclaimed - b.reclaimed > SAME_SHARE * Math.max(a.reclaimed, b.reclaimed);
  const longer = (a: Worth, b: Worth) => a.stall - b.stall > SAME_OF_TIME * Math.max(a.lived, b.lived);
  return !more(other, one) && !longer(one, other) && (more(one, other) || longer(other, one));
}

const worthOf = (runs: readonly Run[]): Worth => ({
  reclaimed: runs.reduce((sum, { outcome }) => sum + outcome.reclaimedGiBh, 0),
  stall: runs.reduce((sum, { outcome }) => sum + outcome.stallS, 0),
  lived: runs.reduce((sum, { trace }) => sum + trace.guests.length * (trace.seconds - WARM_UP_S), 0),
});

/** How many policies surpass ours in both over all `runs`, how many it surpasses, and on how many traces one does. */
export function paretoOf(runs: readonly Run[], ours: string, oracle: string): Record<string, number> {
  const of = (name: string, among: readonly Run[]) =>
    worthOf(among.filter(({ outcome }) => outcome.policy === name));
  const others = [...new Set(runs.map(({ outcome }) => outcome.policy))].filter(
    name => name !== ours && name !== oracle,
  );
  if (others.length === 0) return {};
  const mine = of(ours, runs);
  const traces = [...new Set(runs.map(({ trace }) => trace))];
  const beaten = traces.filter(trace => {
    const here = runs.filter(run => run.trace === trace);
    return others.some(name => dominates(of(name, here), of(ours, here)));
  });
  return {
    'pareto.dominatedBy': others.filter(name => dominates(of(name, runs), mine)).length,
    'pareto.dominates': others.filter(name => dominates(mine, of(name, runs))).length,
    'pareto.tracesWhereDominated': beaten.length,
    'pareto.traces': traces.length,
  };
}
