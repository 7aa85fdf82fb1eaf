/** `aerostat bench build`: what automatic reclaim brings the host, and costs the guest, while the guest builds. */
import { Command, Option } from 'commander';
import type { CliContext } from '../context.ts';
import { type BenchChoice, commandLine, measure, wholeNumber } from '../measure.ts';
import { durationOption, guestMemoryOption, numberFromZero, sizeOption, withVerbose } from '../options.ts';

const EXAMPLES = `
Examples:
  aerostat bench build
  aerostat bench build --memory 4G --pace 256M --runs 3 --json build.json
  aerostat bench build --memory 256M --compilers 4 --builds 1 --pause 6s --pace 32M

Cases:
  none           no reclaim
  reporting      the guest reports its free pages (the standard's feature), two seconds after they are free
  shared, none   the allocator that the host shares (profile shared), no reclaim
  shared         the host takes what is free in it, every five seconds
  shared, 2 s    every two seconds

Each case builds at the pace of compilers, for the mean footprint, and as fast as it can, for the slowdown. The same seed
gives the same compilers.`;

interface BuildChoice extends BenchChoice {
  readonly memory: number;
  readonly seed: number;
  readonly runs: number;
  readonly builds: number;
  readonly compilers: number;
  readonly pause: number;
  readonly pace: number;
}

export function buildBenchCommand(context: CliContext): Command {
  const command = new Command('build')
    .description('build in a guest under automatic reclaim: its mean footprint on the host, and the slowdown')
    .addOption(guestMemoryOption().default(2 ** 30, '1G'))
    .addOption(new Option('--seed <number>', 'of the guest').argParser(numberFromZero).default(1))
    .addOption(new Option('--builds <number>', 'one after the other').argParser(wholeNumber).default(2))
    .addOption(
      new Option('--compilers <number>', 'that a build runs, four at once').argParser(wholeNumber).default(8),
    )
    .addOption(durationOption('--pause <duration>', 'nothing happens after a build').default(10_000, '10s'))
    .addOption(
      sizeOption('--pace <size>', 'memory that compilers use in a second').default(64 * 2 ** 20, '64M'),
    )
    .addOption(new Option('--runs <number>', 'how often').argParser(wholeNumber).default(3))
    .option('--report <file>', 'write an HTML report')
    .option('--json <file>', 'write the result there as JSON too')
    .addHelpText('after', EXAMPLES)
    .action((choice: BuildChoice, self: Command) => run(context, choice, self));
  return withVerbose(command);
}

async function run(context: CliContext, choice: BuildChoice, self: Command): Promise<void> {
  const { benchBuild } = await import('../../bench/build/build.ts');
  const { memory: memoryBytes, pause: pauseMs, pace: paceBytes, seed, runs, builds, compilers } = choice;
  const words = commandLine('aerostat bench build', self);
  await measure(context, choice, words, progress =>
    benchBuild({
      memoryBytes,
      seed,
      runs,
      builds,
      compilers,
      pauseMs,
      paceBytes,
      signal: context.interrupt,
      progress,
    }),
  );
}
