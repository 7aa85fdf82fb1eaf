/** `aerostat bench page`: what an open page costs. */

import { Command, Option } from 'commander';
import { PAGE_SIZE } from '../../memory/page.ts';
import type { CliContext } from '../context.ts';
import { type BenchChoice, commandLine, measure, pick, wholeNumber } from '../measure.ts';
import { list, sizeOption, withVerbose } from '../options.ts';
import { formatSize } from '../size.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat bench page
  aerostat bench page --parts guests --guests 400
  aerostat bench page --parts map,inflate --memory 2G --no-browser

The browser is Debian's chromium, driven by the package playwright-core; where one of them is missing, a client asks
the daemon for what the page asks for.`;

interface PageChoice extends BenchChoice {
  readonly parts?: readonly string[];
  readonly guests: number;
  readonly seconds: number;
  readonly memory: number;
  readonly balloon?: number;
  readonly runs: number;
  readonly browser: boolean;
}

/** Of a guest's memory, unless a size is given. */
const BALLOON_SHARE = 7 / 8;

export function pageBenchCommand(context: CliContext): Command {
  const command = new Command('page')
    .description(
      'what the page and the metrics cost: with many guests, on a large map, and beside an inflation',
    )
    .option('--parts <list>', 'guests, map, inflate (default: all)', list)
    .addOption(new Option('--guests <number>', 'guests on the page').argParser(wholeNumber).default(100))
    .addOption(
      new Option('--seconds <number>', 'how long they are watched, with and without a page')
        .argParser(wholeNumber)
        .default(20),
    )
    .addOption(sizeOption('--memory <size>', 'memory of the guest with the map').default(2 ** 33, '8G'))
    .addOption(sizeOption('--balloon <size>', 'what it gives away (default: seven eighths)'))
    .addOption(
      new Option('--runs <number>', 'how often each case of the inflation has its turn')
        .argParser(wholeNumber)
        .default(7),
    )
    .option('--no-browser', 'let a client ask for what the page asks for, and draw nothing')
    .option('--report <file>', 'write an HTML report, and its charts as SVG beside it')
    .option('--json <file>', 'write the result there as JSON too')
    .addHelpText('after', EXAMPLES)
    .action((choice: PageChoice, self: Command) => run(context, choice, self));
  return withVerbose(command);
}

async function run(context: CliContext, choice: PageChoice, self: Command): Promise<void> {
  const { PAGE_CHARTS, PAGE_PARTS, benchPage } = await import('../../bench/page/page.ts');
  const {
    memory,
    balloon = Math.floor((memory * BALLOON_SHARE) / PAGE_SIZE) * PAGE_SIZE,
    guests,
    seconds,
    runs,
    browser,
  } = choice;
  if (balloon >= memory)
    throw new UsageError(`a guest of ${formatSize(memory)} cannot give away ${formatSize(balloon)}`);
  const options = {
    parts: pick('part', choice.parts, PAGE_PARTS) ?? PAGE_PARTS,
    guests,
    seconds,
    memoryBytes: memory,
    balloonBytes: balloon,
    runs,
    browser,
    signal: context.interrupt,
  };
  const words = commandLine('aerostat bench page', self);
  await measure(context, choice, words, progress => benchPage({ ...options, progress }), PAGE_CHARTS);
}
