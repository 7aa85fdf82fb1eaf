/** `aerostat bench migrate`: what free pages are worth to a migration, and how fast the copying itself is. */
import { Command, Option } from 'commander';
import type { Load } from '../../bench/migrate/migrate.ts';
import type { CliContext } from '../context.ts';
import { parseDuration } from '../duration.ts';
import { type BenchChoice, commandLine, measure, pick, wholeNumber } from '../measure.ts';
import { list, sizeOption, value, withVerbose } from '../options.ts';
import { parseRate } from '../rate.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat bench migrate --channels none,hint
  aerostat bench migrate --memory 2G --load dirty-500M --channels hint
  aerostat bench migrate --memory 2G --load dirty-500M --channels hint --postcopy
  aerostat bench migrate --loopback
  aerostat bench migrate --peer qemu
  aerostat bench migrate --peer qemu --postcopy --memory 1G --used 50% --load dirty-300M`;

interface MigrateBenchChoice extends BenchChoice {
  readonly memory: number;
  readonly used: string;
  readonly load: string;
  readonly bandwidth: string;
  readonly connections: number;
  readonly downtimeLimit: number;
  readonly channels?: readonly string[];
  readonly postcopy?: number;
  readonly runs: number;
  readonly loopback?: boolean;
  readonly peer?: 'qemu';
}

/** What `--loopback` has no use for. */
const OF_GUESTS = [
  'memory',
  'used',
  'load',
  'bandwidth',
  'connections',
  'downtimeLimit',
  'channels',
  'peer',
  'postcopy',
];
/** Connections of the case with several beside QEMU's. */
const PEER_CONNECTIONS = 4;
/**
 * Beside QEMU, which stops a guest as soon as the rest fits into this time, and sends the rest without regard to a limit of
 * bandwidth: what ours needs anyway.
 */
const PEER_DOWNTIME_MS = 50;

export function migrateBenchCommand(context: CliContext): Command {
  const command = new Command('migrate')
    .description(
      'move the embedded guest between two processes, with every way of naming free pages and none',
    )
    .addOption(sizeOption('--memory <size>', 'memory of the guest, all of it touched').default(2 ** 33, '8G'))
    .option('--used <percent>', 'how much of it the guest needs', '10%')
    .option('--load <load>', 'what the guest does: idle, dirty-RATE (bytes a second, as 500M), build', 'idle')
    .option('--bandwidth <rate>', 'of the network', '10gbit')
    .addOption(new Option('--connections <number>', 'TCP connections').argParser(wholeNumber).default(1))
    .addOption(
      new Option(
        '--downtime-limit <time>',
        'how long the guest may stand still; with --peer, 50ms unless said',
      )
        .argParser(value(parseDuration))
        .default(300, '300ms'),
    )
    .option('--channels <list>', 'ways of naming free pages (default: none and all)', list)
    .addOption(
      new Option(
        '--postcopy [rounds]',
        'have the guest run at its destination at once, or after so many rounds, and get its memory there',
      )
        .argParser(parseRounds)
        .preset('0'),
    )
    .addOption(
      new Option('--runs <number>', 'how often each case has its turn').argParser(wholeNumber).default(3),
    )
    .addOption(
      new Option(
        '--loopback',
        'memory alone, as fast as it goes, beside a plain copy of the same bytes; and a guest that has nothing',
      ).conflicts(OF_GUESTS),
    )
    .addOption(
      new Option(
        '--peer <peer>',
        "our migration and QEMU's instead, in turn: a guest with hints, as fast as it goes and at that bandwidth, and half as much memory that is full, over one connection and over four; with --postcopy a guest that writes (--load dirty-RATE)",
      )
        .choices(['qemu'])
        .conflicts(['connections', 'channels']),
    )
    .option('--report <file>', 'write an HTML report, and its charts as SVG beside it')
    .option('--json <file>', 'write the result there as JSON too')
    .addHelpText('after', EXAMPLES)
    .action((choice: MigrateBenchChoice, self: Command) => {
      const words = commandLine('aerostat bench migrate', self);
      if (choice.loopback === true) return loopback(context, choice, words);
      if (choice.peer !== undefined) return besideQemu(context, choice, words, self);
      return guests(context, choice, words);
    });
  return withVerbose(command);
}

async function loopback(context: CliContext, choice: MigrateBenchChoice, words: string): Promise<void> {
  const { LOOPBACK_DEFAULTS, measureLoopback } = await import('../../bench/migrate/loopback.ts');
  const { interrupt: signal } = context;
  const { runs } = choice;
  await measure(context, choice, words, progress =>
    measureLoopback({ ...LOOPBACK_DEFAULTS, runs, signal, progress }),
  );
}

async function besideQemu(
  context: CliContext,
  choice: MigrateBenchChoice,
  words: string,
  command: Command,
): Promise<void> {
  if (choice.postcopy !== undefined) return postcopyBesideQemu(context, choice, words);
  if (command.getOptionValueSource('load') !== 'default') {
    throw new UsageError('beside QEMU a guest has a load with --postcopy alone; leave --load out');
  }
  const asked = command.getOptionValueSource('downtimeLimit') !== 'default';
  const { PEER_MIGRATE_CHARTS, benchMigrateBesideQemu } = await import('../../bench/migrate/beside-qemu.ts');
  const options = {
    memoryBytes: choice.memory,
    usedShare: parsePercent(choice.used),
    bytesPerSecond: parseRate(choice.bandwidth),
    connections: PEER_CONNECTIONS,
    downtimeMsMax: asked ? choice.downtimeLimit : PEER_DOWNTIME_MS,
    runs: choice.runs,
    signal: context.interrupt,
  };
  await measure(
    context,
    choice,
    words,
    progress => benchMigrateBesideQemu({ ...options, progress }),
    PEER_MIGRATE_CHARTS,
  );
}

async function postcopyBesideQemu(
  context: CliContext,
  choice: MigrateBenchChoice,
  words: string,
): Promise<void> {
  if (choice.postcopy !== 0)
    throw new UsageError('beside QEMU the guest runs there at once: write --postcopy');
  const load = parseLoad(choice.load);
  if (load.kind !== 'dirty')
    throw new UsageError('beside QEMU the guest of --postcopy writes: --load dirty-300M');
  const { benchPostcopyBesideQemu } = await import('../../bench/migrate/postcopy-beside-qemu.ts');
  const options = {
    memoryBytes: choice.memory,
    usedShare: parsePercent(choice.used),
    load,
    bytesPerSecond: parseRate(choice.bandwidth),
    connections: choice.connections,
    downtimeMsMax: choice.downtimeLimit,
    runs: choice.runs,
    signal: context.interrupt,
  };
  await measure(context, choice, words, progress => benchPostcopyBesideQemu({ ...options, progress }));
}

async function guests(context: CliContext, choice: MigrateBenchChoice, words: string): Promise<void> {
  const { BENCH_CHANNELS, MIGRATE_CHARTS, benchMigrate } = await import('../../bench/migrate/migrate.ts');
  const options = {
    memoryBytes: choice.memory,
    usedShare: parsePercent(choice.used),
    load: parseLoad(choice.load),
    bytesPerSecond: parseRate(choice.bandwidth),
    connections: choice.connections,
    downtimeMsMax: choice.downtimeLimit,
    postcopyAfterRound: choice.postcopy,
    channels: pick('channel', choice.channels, BENCH_CHANNELS) ?? BENCH_CHANNELS,
    runs: choice.runs,
    signal: context.interrupt,
  };
  await measure(context, choice, words, progress => benchMigrate({ ...options, progress }), MIGRATE_CHARTS);
}

/** 0 for at once. */
function parseRounds(text: string): number {
  if (/^\d{1,4}$/.test(text)) return Number(text);
  throw new UsageError(`${text} is no number of rounds; write --postcopy, or --postcopy 2`);
}

function parsePercent(text: string): number {
  const match = /^(\d{1,2}(?:\.\d+)?)%?$/.exec(text);
  if (match !== null && Number(match[1]) > 0) return Number(match[1]) / 100;
  throw new UsageError(`${text} is no share of memory; write 10%`);
}

function parseLoad(text: string): Load {
  if (text === 'idle' || text === 'build') return { kind: text };
  const rate = /^dirty-(.+)$/.exec(text)?.[1];
  if (rate !== undefined) return { kind: 'dirty', bytesPerSecond: parseRate(rate) };
  throw new UsageError(`${text} is no load; there are idle, build, and dirty-RATE, for example dirty-500M`);
}
