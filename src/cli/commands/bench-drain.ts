/** `aerostat bench drain`: how fast a host of a fleet is empty, beside a plain copy of the same bytes. */
import { Command, Option } from 'commander';
import { ownCommandLine } from '../../sys/own-program.ts';
import type { CliContext } from '../context.ts';
import { type BenchChoice, commandLine, measure, wholeNumber } from '../measure.ts';
import { durationOption, list, sizeOption, withVerbose } from '../options.ts';
import { parseRate } from '../rate.ts';

const EXAMPLES = `
Examples:
  aerostat bench drain                                  four guests of 256 MiB at 10 Gbit/s
  aerostat bench drain --guests 10 --memory 1G --json drain.json
  aerostat bench drain --bandwidth 1gbit --concurrency 4,1

Agents, machines and a server of NATS run in a network namespace of their own, whose loopback is as fast as --bandwidth
says. It needs nats-server, iproute2 (tc) and util-linux (unshare), and a system that lets its users have namespaces.`;

interface DrainBenchChoice extends BenchChoice {
  readonly guests: number;
  readonly memory: number;
  readonly bandwidth: string;
  readonly concurrency?: readonly string[];
  readonly period: number;
  readonly runs: number;
}

/** What a host takes at a time, and one after the other. */
const CONCURRENCY = ['4', '1'];

/** Of a guest's memory; the rest is its kernel's. */
const USED_SHARE = 0.85;

export function drainBenchCommand(context: CliContext): Command {
  const command = new Command('drain')
    .description('drain a host of a fleet, and say how long it took, beside a plain copy of the same bytes')
    .addOption(new Option('--guests <number>', 'how many').argParser(wholeNumber).default(4))
    .addOption(
      sizeOption('--memory <size>', 'of each guest, most of it in use').default(256 * 2 ** 20, '256M'),
    )
    .option('--bandwidth <rate>', 'of the network', '10gbit')
    .addOption(
      new Option(
        '--concurrency <list>',
        'how many guests leave at a time, each number by itself (default: 4,1)',
      ).argParser(list),
    )
    .addOption(durationOption('--period <duration>', 'of the fleet', 60_000).default(2000, '2s'))
    .addOption(new Option('--runs <number>', 'how often, each').argParser(wholeNumber).default(1))
    .option('--report <file>', 'write an HTML report')
    .option('--json <file>', 'write the result there as JSON too')
    .addHelpText('after', EXAMPLES)
    .action((choice: DrainBenchChoice, self: Command) => run(context, choice, self));
  return withVerbose(command);
}

async function run(context: CliContext, choice: DrainBenchChoice, self: Command): Promise<void> {
  const { benchDrain } = await import('../../bench/drain/drain.ts');
  const { guests, memory, bandwidth, concurrency, period, runs } = choice;
  const options = {
    aerostat: ownCommandLine(),
    guests,
    memoryBytes: memory,
    usedShare: USED_SHARE,
    bytesPerSecond: parseRate(bandwidth),
    concurrency: (concurrency ?? CONCURRENCY).map(wholeNumber),
    periodMs: period,
    runs,
    signal: context.interrupt,
  };
  await measure(context, choice, commandLine('aerostat bench drain', self), progress =>
    benchDrain({ ...options, progress }),
  );
}
