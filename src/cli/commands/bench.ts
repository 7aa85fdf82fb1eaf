/** `aerostat bench`: measurements, each a command of its own; what they measure is src/bench's. */
import { Command, InvalidArgumentError, Option } from 'commander';
import type { Measured } from '../../bench/report.ts';
import { renderBench } from '../bench-table.ts';
import { type CliContext, printLine } from '../context.ts';
import { sizeOption, withVerbose } from '../options.ts';
import { stepBar } from '../progress.ts';
import { formatSize } from '../size.ts';
import { UsageError } from '../usage.ts';
import { readVersion } from '../version.ts';

const EXAMPLES = `
Examples:
  aerostat bench linux --memory 8G --balloon 7G
  aerostat bench linux --memory 2G --balloon 1G --touched --json result.json

Ratios come from medians of one run; absolute times say as much about the machine as about Aerostat.`;

interface BenchChoice {
  readonly json?: string;
  readonly rounds: number;
}

interface LinuxChoice extends BenchChoice {
  readonly memory: number;
  readonly balloon: number;
  readonly touched?: boolean;
}

export function benchCommand(context: CliContext): Command {
  return new Command('bench')
    .description('measure, and print a table')
    .addHelpText('after', EXAMPLES)
    .addCommand(linuxCommand(context));
}

function linuxCommand(context: CliContext): Command {
  const command = new Command('linux')
    .description('inflate a real Linux guest in each way of giving its memory back, in turn')
    .addOption(sizeOption('--memory <size>', 'memory of the guest').default(8 * 2 ** 30, '8G'))
    .addOption(sizeOption('--balloon <size>', 'what is inflated').default(7 * 2 ** 30, '7G'))
    .option('--touched', 'also when the guest used all of that memory and freed it')
    .action(async (choice: LinuxChoice) => {
      const { memory, balloon, touched = false, rounds } = choice;
      if (balloon >= memory) {
        throw new UsageError(`a guest of ${formatSize(memory)} cannot give away ${formatSize(balloon)}`);
      }
      const words = [
        `aerostat bench linux --memory ${formatSize(memory)} --balloon ${formatSize(balloon)}`,
        ...(touched ? ['--touched'] : []),
        `--rounds ${rounds}`,
      ];
      await measure(context, choice, words.join(' '), async progress => {
        const { benchLinux } = await import('../../bench/linux.ts');
        return benchLinux({
          memoryBytes: memory,
          balloonBytes: balloon,
          touched,
          rounds,
          signal: context.interrupt,
          progress,
        });
      });
    });
  return withBench(command, 3);
}

function withBench(command: Command, rounds: number): Command {
  const parseRounds = (text: string) => {
    if (/^[1-9]\d{0,3}$/.test(text)) return Number(text);
    throw new InvalidArgumentError('it is a whole number of at least 1.');
  };
  return withVerbose(
    command
      .addOption(
        new Option('--rounds <number>', 'how often each case has its turn')
          .argParser(parseRounds)
          .default(rounds),
      )
      .option('--json <file>', 'write the result there as JSON too'),
  );
}

/** Shows how far it is, prints the table, and writes the report where one is wanted. */
async function measure(
  context: CliContext,
  { json }: BenchChoice,
  words: string,
  run: (progress: (done: number, total: number, what: string) => void) => Promise<Measured>,
): Promise<void> {
  const { benchReport, writeReport } = await import('../../bench/report.ts');
  const bar = await stepBar(context);
  let measured: Measured;
  try {
    measured = await run(bar.update);
  } finally {
    bar.stop();
  }
  printLine(context.stdout, renderBench(measured).join('\n'));
  if (json !== undefined) writeReport(json, benchReport(words, readVersion(), measured));
}
