/** What the commands under `aerostat bench` share: their options, and how a measurement is shown and written. */
import { accessSync, constants, existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import type { ChartPlan } from '../bench/html.ts';
import type { Measured } from '../bench/report.ts';
import { readVersion } from '../sys/version.ts';
import { renderBench } from './bench-table.ts';
import { type CliContext, printLine } from './context.ts';
import { stepBar } from './progress.ts';
import { formatSize } from './size.ts';
import { UsageError } from './usage.ts';

export interface BenchChoice {
  readonly json?: string;
  readonly report?: string;
}

/** The words of a command and the options that it was given, so that a report says what made it. */
export function commandLine(words: string, command: Command): string {
  const options = command.options.flatMap(({ attributeName, long, negate }) => {
    const name = attributeName.call(command.options.find(option => option.long === long));
    if (command.getOptionValueSource(name) !== 'cli' || name === 'json' || name === 'report') return [];
    const value = command.getOptionValue(name) as unknown;
    // --touched and --no-touched are two options of one name.
    if (typeof value === 'boolean') return value === negate ? [] : [long ?? ''];
    const isSize = name === 'memory' || name === 'balloon' || name === 'hostPageSize';
    const text = isSize ? formatSize(value as number) : String(value);
    return [`${long} ${text}`];
  });
  return [words, ...options].join(' ');
}

export function pick<Name extends string>(
  what: string,
  asked: readonly string[] | undefined,
  known: readonly Name[],
): readonly Name[] | undefined {
  return asked?.map(name => {
    const found = known.find(one => one === name);
    if (found === undefined) throw new UsageError(`${name} is no ${what}; there are ${known.join(', ')}`);
    return found;
  });
}

export function wholeNumber(text: string): number {
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('it is a whole number of at least 1.');
}

/** A measurement of minutes is not to be lost because its report has no place. */
function checkPlace(option: string, path: string | undefined): void {
  if (path === undefined) return;
  const directory = dirname(path);
  if (!existsSync(directory))
    throw new UsageError(`${option} ${path}: there is no directory ${directory}; make it first`);
  try {
    accessSync(existsSync(path) ? path : directory, constants.W_OK);
  } catch {
    throw new UsageError(`${option} ${path} may not be written; choose another place`);
  }
}

/** Shows how far it is, prints the table, and writes the report where one is wanted. */
export async function measure(
  context: CliContext,
  { json, report }: BenchChoice,
  words: string,
  run: (progress: (done: number, total: number, what: string) => void) => Promise<Measured>,
  charts: readonly ChartPlan[] = [],
  /** What is printed of it; the reports have all. */
  shown: (measured: Measured) => Measured = all => all,
): Promise<void> {
  checkPlace('--json', json);
  checkPlace('--report', report);
  const { benchReport, writeReport } = await import('../bench/report.ts');
  const bar = await stepBar(context);
  let measured: Measured;
  try {
    measured = await run(bar.update);
  } finally {
    bar.stop();
  }
  printLine(context.stdout, renderBench(shown(measured)).join('\n'));
  const result = benchReport(words, readVersion(), measured);
  if (json !== undefined) writeReport(json, result);
  if (report !== undefined) {
    const { writeHtmlReport } = await import('../bench/html.ts');
    writeHtmlReport(report, result, charts);
  }
}
