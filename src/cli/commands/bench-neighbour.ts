/** `aerostat bench neighbour`: what the worst known guests cost the guest next door. */
import { Command, Option } from 'commander';
import type { CliContext } from '../context.ts';
import { type BenchChoice, commandLine, measure, pick, wholeNumber } from '../measure.ts';
import { list, withVerbose } from '../options.ts';

const EXAMPLES = `
Examples:
  aerostat bench neighbour
  aerostat bench neighbour --inputs long-chains,huge-range --seconds 3
  aerostat bench neighbour --runs 3 --json neighbour.json

Inputs:
  long-chains        chains of 2048 segments that each span 500 regions
  full-ring          a ring that is always full, and kicks without end
  huge-range         one range of 12 TiB of sparse memory, given and taken back
  alternating-lists  lists of 1 MiB whose pages alternate between 500 regions
  alternating-bits   bitmaps of 1 MiB in which every other page is named
  reports            reports of used memory, again and again
  single-pages       single pages that were used, given and taken back at once
  pause              a pause after 1 GiB of single pages that were used
  maps               maps of 12 TiB of sparse memory, asked for over the API
  regions            500 regions that come and go
  callers            front-ends that connect and hang up
  busy-file          memory whose file is being written, under its lock
  locked-file        memory that is given and taken back while its file is locked
  shrinking-file     memory whose file shrinks while it is handed over
  empty-pool         memory of huge pages that the host does not have
  blocking-doorbell  a doorbell that is full, and waits when it is rung

Times are of the neighbour, from its kick until its buffer is back; API times are of its status. THROUGHPUT SHARE is of
what the neighbour does beside a guest that rests. SHARE BESIDE WORK is of what it does beside one that takes the same
processor time for itself: where guests and daemon share a few processors, that part is not the daemon's doing.`;

interface NeighbourChoice extends BenchChoice {
  readonly inputs?: readonly string[];
  readonly seconds: number;
  readonly runs: number;
}

export function neighbourBenchCommand(context: CliContext): Command {
  const command = new Command('neighbour')
    .description('serve an honest guest beside a hostile one, which plays the worst inputs that are known')
    .option('--inputs <list>', 'which of them (default: all)', list)
    .addOption(
      new Option(
        '--seconds <number>',
        'how long the honest guest is watched beside each, while it rests, plays and works for itself',
      )
        .argParser(wholeNumber)
        .default(5),
    )
    .addOption(
      new Option('--runs <number>', 'how often each input has its turn').argParser(wholeNumber).default(1),
    )
    .option('--report <file>', 'write an HTML report, and its charts as SVG beside it')
    .option('--json <file>', 'write the result there as JSON too')
    .addHelpText('after', EXAMPLES)
    .action((choice: NeighbourChoice, self: Command) => run(context, choice, self));
  return withVerbose(command);
}

async function run(context: CliContext, choice: NeighbourChoice, self: Command): Promise<void> {
  const { INPUT_NAMES, NEIGHBOUR_CHARTS, benchNeighbour } = await import(
    '../../bench/neighbour/neighbour.ts'
  );
  const options = {
    inputs: pick('input', choice.inputs, INPUT_NAMES) ?? INPUT_NAMES,
    seconds: choice.seconds,
    runs: choice.runs,
    signal: context.interrupt,
  };
  const words = commandLine('aerostat bench neighbour', self);
  await measure(
    context,
    choice,
    words,
    progress => benchNeighbour({ ...options, progress }),
    NEIGHBOUR_CHARTS,
  );
}
