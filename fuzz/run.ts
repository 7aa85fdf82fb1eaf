/**
 * `npm run fuzz`: feeds every target with mutations of its corpus for a while, and says what it found.
 *
 *   npm run fuzz -- --time 60                         all targets, a share of the time each
 *   npm run fuzz -- --target page-bitmap --seed 7     one target, the same inputs as last time
 *   npm run fuzz -- --target NAME --input FILE        one input, to look at what was found
 */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { INPUT_MS_MAX } from './engine/campaign.ts';
import { reproduction, writeCrash } from './engine/corpus.ts';
import { TARGETS } from './engine/targets.ts';
import { FuzzThread } from './engine/thread.ts';
import { threadCpuMs } from './engine/thread-time.ts';

const TIME_S_DEFAULT = 60;

const USAGE = `usage: npm run fuzz -- [--time SECONDS] [--target NAME …] [--seed N]
       npm run fuzz -- --target NAME --input FILE
targets: ${[...TARGETS.keys()].join(', ')} (default: all, for ${TIME_S_DEFAULT} s)`;

interface Options {
  readonly names: readonly string[];
  readonly seed: number;
  readonly timeMs: number;
  readonly input: string | undefined;
}

function options(): Options {
  const values = valuesGiven();
  if (values.help) {
    console.log(USAGE);
    process.exit();
  }
  const names = values.target ?? [...TARGETS.keys()];
  for (const name of names) {
    if (!TARGETS.has(name)) fail(`no target is called ${name}; there are ${[...TARGETS.keys()].join(', ')}`);
  }
  if (values.input !== undefined && names.length !== 1) fail('--input needs the --target that it is for');
  const seconds = Number(values.time ?? TIME_S_DEFAULT);
  if (!(seconds > 0)) fail(`--time ${values.time} is no number of seconds`);
  const seed = Number(values.seed ?? randomInt(2 ** 31));
  if (!Number.isSafeInteger(seed) || seed < 0) fail(`--seed ${values.seed} is no whole number`);
  return { names, seed, timeMs: seconds * 1000, input: values.input };
}

function valuesGiven() {
  try {
    return parseArgs({
      options: {
        time: { type: 'string' },
        target: { type: 'string', multiple: true },
        seed: { type: 'string' },
        input: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (error) {
    return fail((error as Error).message);
  }
}

function fail(message: string): never {
  console.error(`fuzz: ${message}`);
  process.exit(2);
}

/** Gives one input to a target; what it throws is shown as it is. */
function tryInput(name: string, path: string): void {
  const input = new Uint8Array(readFileSync(path));
  const started = threadCpuMs();
  TARGETS.get(name)?.(input);
  const tookMs = threadCpuMs() - started;
  console.log(`${name} takes ${path} (${input.length} bytes) in ${tookMs.toFixed(1)} ms`);
  if (tookMs > INPUT_MS_MAX) process.exitCode = 1;
}

async function fuzz({ names, seed, timeMs }: Options): Promise<void> {
  console.log(`seed ${seed}, ${names.length} targets, ${timeMs / 1000} s`);
  const thread = new FuzzThread();
  const shareMs = timeMs / names.length;
  let found = 0;
  for (const name of names) {
    const started = performance.now();
    const { executions, slowestMs, finding } = await thread.run({ name, seed, timeMs: shareMs });
    const perSecond = Math.round((executions * 1000) / (performance.now() - started));
    console.log(
      `${name.padEnd(20)} ${String(executions).padStart(9)} inputs  ${String(perSecond).padStart(7)}/s  slowest ${slowestMs.toFixed(1)} ms`,
    );
    if (finding === undefined) continue;
    found++;
    const path = writeCrash(name, finding.input);
    console.log(`FOUND in ${name}, ${finding.input.length} bytes: ${finding.reason}`);
    console.log(`  ${reproduction(name, path)}`);
  }
  await thread.close();
  console.log(found === 0 ? 'nothing found' : `${found} found; seed ${seed}`);
  if (found > 0) process.exitCode = 1;
}

const chosen = options();
if (chosen.input === undefined) await fuzz(chosen);
else tryInput(chosen.names[0], chosen.input);
