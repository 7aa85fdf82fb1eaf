/**
 * What every benchmark gives: rows with minimum, median and maximum, ratios between medians of one run, and
 * the machine that they were taken on. Ratios matter; absolute times are the machine's.
 */
import { writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';

export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

export function spreadOf(samples: readonly number[]): Spread {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { min: sorted[0], median, max: sorted[sorted.length - 1] };
}

export interface BenchRow {
  /** What was measured, for example a discard mode or a profile. */
  readonly case: string;
  /** On what state of memory. */
  readonly scenario: string;
  /** Against or with whom, for example `linux-uml`. */
  readonly peer: string;
  readonly elapsedMs: Spread;
  /** Further figures; spreads for what varies, medians or counts for the rest. */
  readonly [figure: string]: Spread | number | string | null;
}

export interface BenchReport {
  readonly tool: 'aerostat';
  readonly version: string;
  readonly command: string;
  /** ISO 8601. */
  readonly date: string;
  readonly host: {
    readonly cpu: string;
    readonly cores: number;
    readonly memoryBytes: number;
    readonly kernel: string;
    readonly node: string;
  };
  readonly rows: readonly BenchRow[];
  /** By the names that the project's goals have. */
  readonly ratios: Readonly<Record<string, number>>;
  /** What a reader of the rows has to know. */
  readonly notes: readonly string[];
}

export interface Measured {
  readonly rows: readonly BenchRow[];
  readonly ratios: Readonly<Record<string, number>>;
  readonly notes?: readonly string[];
}

export function benchReport(
  command: string,
  version: string,
  { rows, ratios, notes = [] }: Measured,
): BenchReport {
  const [cpu] = cpus();
  return {
    tool: 'aerostat',
    version,
    command,
    date: new Date().toISOString(),
    host: {
      cpu: cpu?.model ?? 'unknown',
      cores: cpus().length,
      memoryBytes: totalmem(),
      kernel: release(),
      node: process.versions.node,
    },
    rows,
    ratios: Object.fromEntries(Object.entries(ratios).map(([name, value]) => [name, round(value)])),
    notes,
  };
}

export function writeReport(path: string, report: BenchReport): void {
  writeFileSync(path, `${JSON.stringify(report, undefined, 2)}\n`);
}

/** Four significant digits: more would claim what a noisy machine cannot tell. */
export const round = (value: number): number => Number(value.toPrecision(4));
