/**
 * What the micro benchmarks share: how a result of tinybench becomes a spread, and what a benchmark does when it is
 * run as a program. What is measured and how its table looks is each one's own.
 */
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import type { Bench } from 'tinybench';
import { benchReport, type Measured, type Spread, writeReport } from '../src/bench/report.ts';

/** Nothing but our own code takes part. */
export const NO_PEER = 'none';

/** Milliseconds that one call of a task took. */
export function spreadOfTask(bench: Bench, name: string): Spread {
  const result = bench.getTask(name)?.result;
  if (result === undefined || !('latency' in result)) throw new Error(`${name} did not finish`);
  const { min, p50, max } = result.latency;
  return { min, median: p50, max };
}

/**
 * Measures when the module at `url` is the program that was started; `--json FILE` writes the report. The program
 * runs in the project's directory.
 */
export async function runAsProgram(
  url: string,
  name: string,
  measure: () => Promise<Measured>,
): Promise<void> {
  if (url !== pathToFileURL(process.argv[1]).href) return;
  const { values } = parseArgs({ options: { json: { type: 'string' } } });
  const measured = await measure();
  if (values.json === undefined) return;
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
  writeReport(values.json, benchReport(`npm run bench:micro -- ${name}`, version, measured));
}
