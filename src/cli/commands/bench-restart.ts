/** `aerostat bench restart`: how long guests wait while their daemon is replaced. */
import { Command, Option } from 'commander';
import type { CliContext } from '../context.ts';
import { type BenchChoice, commandLine, measure, pick, wholeNumber } from '../measure.ts';
import { list, withVerbose } from '../options.ts';

const EXAMPLES = `
Examples:
  aerostat bench restart
  aerostat bench restart --guests 20 --runs 10 --json restart.json
  aerostat bench restart --ways kill

Ways:
  upgrade   as aerostat upgrade does it: the next process is ready before it takes over, guest by guest
  kill      the daemon is killed with -9, and started again at once
  standby   the daemon is killed with -9, and another one stands by (aerostat device --standby)

STALL is the longest that one buffer of a guest took, while all of them give pages and take them back without end.`;

interface RestartChoice extends BenchChoice {
  readonly ways?: readonly string[];
  readonly guests: number;
  readonly runs: number;
}

export function restartBenchCommand(context: CliContext): Command {
  const command = new Command('restart')
    .description('replace a daemon with a keeper while its guests work, and say how long they waited')
    .option('--ways <list>', 'upgrade, kill, standby (default: all)', list)
    .addOption(new Option('--guests <number>', 'how many').argParser(wholeNumber).default(20))
    .addOption(new Option('--runs <number>', 'how often, each way').argParser(wholeNumber).default(5))
    .option('--report <file>', 'write an HTML report')
    .option('--json <file>', 'write the result there as JSON too')
    .addHelpText('after', EXAMPLES)
    .action((choice: RestartChoice, self: Command) => run(context, choice, self));
  return withVerbose(command);
}

async function run(context: CliContext, choice: RestartChoice, self: Command): Promise<void> {
  const { RESTART_WAYS, benchRestart } = await import('../../bench/restart/restart.ts');
  const { guests, runs } = choice;
  const ways = pick('way', choice.ways, RESTART_WAYS) ?? RESTART_WAYS;
  const words = commandLine('aerostat bench restart', self);
  await measure(context, choice, words, progress =>
    benchRestart({ ways, guests, runs, signal: context.interrupt, progress }),
  );
}
