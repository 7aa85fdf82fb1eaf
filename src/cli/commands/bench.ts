/** `aerostat bench`: measurements, each a command of its own; what they measure is src/bench's. */
import { Command, Option } from 'commander';
import type { Scenario } from '../../bench/inflate/inflate.ts';
import { BENCH_DISCARD_MODES, type DiscardMode } from '../../control/contract.ts';
import { defined } from '../../sys/defined.ts';
import { type CliContext, printLine } from '../context.ts';
import { type BenchChoice, commandLine, measure, pick, wholeNumber } from '../measure.ts';
import { hostPageSizeOption, list, numberFromZero, sizeOption, withVerbose } from '../options.ts';
import { formatSize } from '../size.ts';
import { UsageError } from '../usage.ts';
import { buildBenchCommand } from './bench-build.ts';
import { drainBenchCommand } from './bench-drain.ts';
import { migrateBenchCommand } from './bench-migrate.ts';
import { neighbourBenchCommand } from './bench-neighbour.ts';
import { pageBenchCommand } from './bench-page.ts';
import { policyBenchCommand } from './bench-policy.ts';
import { restartBenchCommand } from './bench-restart.ts';

const EXAMPLES = `
Examples:
  aerostat bench linux --memory 8G --balloon 7G
  aerostat bench linux --memory 2G --balloon 1G --touched --json result.json
  aerostat bench inflate --peer qemu
  aerostat bench migrate --channels none,hint
  aerostat bench build
  aerostat bench drain
  aerostat bench neighbour
  aerostat bench restart
  aerostat bench page
  aerostat bench policy

Ratios come from medians of one run; absolute times say as much about the machine as about Aerostat.`;

const LINUX_EXAMPLES = `
Examples:
  aerostat bench linux
  aerostat bench linux --memory 2G --balloon 1G --touched --json result.json
  aerostat bench linux --profiles all --report report.html
  aerostat bench linux --profiles all --memory 2G --balloon 1792M
  aerostat bench linux --profiles virtio,page-chunks --runs 1 --no-touched`;

const INFLATE_EXAMPLES = `
Examples:
  aerostat bench inflate --report report.html
  aerostat bench inflate --profiles virtio,page-range --scenario touched,aged-50
  aerostat bench inflate --memory 1G --balloon 512M --runs 1
  aerostat bench inflate --profiles virtio --scenario idle --warm 4
  aerostat bench inflate --backing memfd,thp,hugetlb-2m --reserve --warm 2
  aerostat bench inflate --backing hugetlb-2m --reserve --profiles virtio,page-chunks,shared
  aerostat bench inflate --guests 8
  aerostat bench inflate --peer qemu`;

/** What says something of guests that are measured one by one, on our device alone. */
const OTHER_DEVICE = [
  'profiles',
  'scenario',
  'rings',
  'discard',
  'pfnsPerBuffer',
  'depth',
  'sort',
  'ahead',
  'naive',
  'kept',
  'warm',
  'backing',
  'hostPageSize',
];

interface LinuxChoice extends BenchChoice {
  readonly runs: number;
  readonly memory: number;
  readonly balloon: number;
  readonly touched?: boolean;
  readonly profiles?: readonly string[];
  readonly embedded: boolean;
}

export function benchCommand(context: CliContext): Command {
  return new Command('bench')
    .description('measure, and print a table')
    .addHelpText('after', EXAMPLES)
    .addCommand(linuxCommand(context))
    .addCommand(inflateCommand(context))
    .addCommand(migrateBenchCommand(context))
    .addCommand(buildBenchCommand(context))
    .addCommand(drainBenchCommand(context))
    .addCommand(neighbourBenchCommand(context))
    .addCommand(restartBenchCommand(context))
    .addCommand(pageBenchCommand(context))
    .addCommand(policyBenchCommand(context));
}

interface InflateChoice extends BenchChoice {
  readonly memory: number;
  readonly balloon: number;
  readonly profiles?: readonly string[];
  readonly scenario?: readonly string[];
  readonly rings?: readonly string[];
  readonly runs: number;
  readonly discard: DiscardMode;
  readonly pfnsPerBuffer?: number;
  readonly depth?: number;
  readonly sort?: boolean;
  readonly ahead: boolean;
  readonly naive: boolean;
  readonly kept?: boolean;
  readonly warm: number;
  readonly backing?: readonly string[];
  readonly hostPageSize?: number;
  readonly reserve?: boolean;
  readonly guests?: number;
  readonly peer?: 'qemu';
}

function inflateCommand(context: CliContext): Command {
  const command = new Command('inflate')
    .description(
      'inflate the embedded guest with every way of naming pages, beside the floor and the naive way',
    )
    .addOption(sizeOption('--memory <size>', 'memory of the guest').default(8 * 2 ** 30, '8G'))
    .addOption(sizeOption('--balloon <size>', 'what is inflated').default(7 * 2 ** 30, '7G'))
    .option('--profiles <list>', 'which ABIs (default: all)', list)
    .option('--scenario <list>', 'idle, touched, aged-PERCENT (default: idle,touched)', list)
    .option('--rings <list>', 'split, packed (default: split)', list)
    .addOption(
      new Option('--runs <number>', 'how often each case has its turn').argParser(wholeNumber).default(3),
    )
    .addOption(
      new Option('--discard <mode>', 'when pages go back to the host')
        .choices(BENCH_DISCARD_MODES)
        .default('auto'),
    )
    .addOption(
      new Option('--pfns-per-buffer <number>', 'page numbers in one list of the oldest ABI').argParser(
        wholeNumber,
      ),
    )
    .addOption(
      new Option('--depth <number>', 'buffers that may be with the device at once').argParser(wholeNumber),
    )
    .option('--sort', 'sort pages before they are listed, in every ABI')
    .option('--no-ahead', 'list the next pages only once the host has returned the last, as Linux does')
    .option('--no-naive', 'leave out the device that punches page by page')
    .option('--kept', 'each case also with its guest kept for another daemon, and what that costs')
    .addOption(
      new Option(
        '--warm <number>',
        'inflations before the one that counts: new threads compile their code first',
      )
        .argParser(numberFromZero)
        .default(0),
    )
    .addOption(
      new Option(
        '--backing <list>',
        "what the guest's memory is made of: memfd, thp, hugetlb-2m; what comes back, what is left, what was split",
      )
        .argParser(list)
        .conflicts(['rings', 'kept']),
    )
    .addOption(hostPageSizeOption())
    .option('--reserve', "with --backing hugetlb-2m: raise the host's pool for as long as it takes")
    .addOption(
      new Option(
        '--guests <number>',
        'so many guests of 1G at once, of which each gives three quarters, beside as many QEMUs',
      )
        .argParser(wholeNumber)
        .conflicts(OTHER_DEVICE),
    )
    .option('--report <file>', 'write an HTML report, and its charts as SVG beside it')
    .addOption(
      new Option('--peer <peer>', "our device and QEMU's instead, in turn, under the same driver")
        .choices(['qemu'])
        .conflicts([...OTHER_DEVICE, 'guests']),
    )
    .addHelpText('after', INFLATE_EXAMPLES)
    .action((choice: InflateChoice, self: Command) => inflate(context, choice, self));
  return withVerbose(command.option('--json <file>', 'write the result there as JSON too'));
}

async function inflate(context: CliContext, choice: InflateChoice, self: Command): Promise<void> {
  if (choice.peer !== undefined) return besideQemu(context, choice, self);
  if (choice.backing !== undefined) return onBackings(context, choice, self);
  if (choice.guests !== undefined) return manyGuests(context, choice, self);
  if (choice.reserve === true) throw new UsageError('--reserve belongs to --backing');
  const { ALL_PROFILES, MEASURED_PROFILES, INFLATE_CHARTS, benchInflate } = await import(
    '../../bench/inflate/inflate.ts'
  );
  const profiles = pick('profile', choice.profiles, ALL_PROFILES) ?? MEASURED_PROFILES;
  const rings = pick('kind of ring', choice.rings, ['split', 'packed'] as const) ?? ['split'];
  const scenarios = (choice.scenario ?? ['idle', 'touched']).map(parseScenario);
  checkBalloon(choice);
  const words = commandLine('aerostat bench inflate', self);
  await measure(
    context,
    choice,
    words,
    progress =>
      benchInflate({
        memoryBytes: choice.memory,
        balloonBytes: choice.balloon,
        profiles,
        scenarios,
        rings,
        runs: choice.runs,
        discard: choice.discard,
        naive: choice.naive,
        kept: choice.kept === true,
        warm: choice.warm,
        tuning: tuningOf(choice),
        ...defined({ hostPageBytes: choice.hostPageSize }),
        signal: context.interrupt,
        progress,
      }),
    INFLATE_CHARTS,
  );
}

async function onBackings(context: CliContext, choice: InflateChoice, self: Command): Promise<void> {
  const { ALL_PROFILES } = await import('../../bench/inflate/inflate.ts');
  const { BACKING_NAMES } = await import('../../bench/inflate/backings.ts');
  const { BACKING_CHARTS, BACKING_PROFILES, benchOnBackings } = await import(
    '../../bench/inflate/on-backings.ts'
  );
  const backings = pick('backing', choice.backing, BACKING_NAMES) ?? BACKING_NAMES;
  const profiles = pick('profile', choice.profiles, ALL_PROFILES) ?? BACKING_PROFILES;
  const scenarios = (choice.scenario ?? ['touched']).map(parseScenario);
  checkBalloon(choice);
  const options = {
    memoryBytes: choice.memory,
    balloonBytes: choice.balloon,
    backings,
    profiles,
    scenarios,
    runs: choice.runs,
    discard: choice.discard,
    warm: choice.warm,
    reserve: choice.reserve === true,
    tuning: tuningOf(choice),
    ...defined({ hostPageBytes: choice.hostPageSize }),
    signal: context.interrupt,
  };
  const words = commandLine('aerostat bench inflate', self);
  await measure(
    context,
    choice,
    words,
    progress => benchOnBackings({ ...options, progress }),
    BACKING_CHARTS,
  );
}

async function manyGuests(context: CliContext, choice: InflateChoice, self: Command): Promise<void> {
  const { benchManyGuests, MANY_GUESTS_CHARTS } = await import('../../bench/inflate/many-guests.ts');
  const memoryBytes = self.getOptionValueSource('memory') === 'cli' ? choice.memory : 2 ** 30;
  const balloonBytes = self.getOptionValueSource('balloon') === 'cli' ? choice.balloon : 0.75 * memoryBytes;
  checkBalloon({ memory: memoryBytes, balloon: balloonBytes });
  const { guests = 1, runs } = choice;
  const options = { guests, memoryBytes, balloonBytes, runs, signal: context.interrupt };
  const words = commandLine('aerostat bench inflate', self);
  await measure(
    context,
    choice,
    words,
    progress => benchManyGuests({ ...options, progress }),
    MANY_GUESTS_CHARTS,
  );
}

const tuningOf = ({ ahead, pfnsPerBuffer, depth, sort }: InflateChoice) => ({
  ahead,
  ...defined({ pfnsPerBuffer, depth, sort }),
});

async function besideQemu(context: CliContext, choice: InflateChoice, self: Command): Promise<void> {
  const { benchInflateBesideQemu, PEER_CHARTS } = await import('../../bench/inflate/beside-qemu.ts');
  checkBalloon(choice);
  const { memory, balloon, runs } = choice;
  const options = { memoryBytes: memory, balloonBytes: balloon, runs, signal: context.interrupt };
  const words = commandLine('aerostat bench inflate', self);
  await measure(
    context,
    choice,
    words,
    progress => benchInflateBesideQemu({ ...options, progress }),
    PEER_CHARTS,
  );
}

function checkBalloon({ memory, balloon }: Pick<InflateChoice, 'memory' | 'balloon'>): void {
  if (balloon < memory) return;
  throw new UsageError(`a guest of ${formatSize(memory)} cannot give away ${formatSize(balloon)}`);
}

function parseScenario(text: string): Scenario {
  if (text === 'idle' || text === 'touched') return text;
  if (/^aged-([1-9]?\d)$/.test(text)) return text as Scenario;
  throw new UsageError(`${text} is no scenario; there are idle, touched, and aged-0 to aged-99 (percent)`);
}

function linuxCommand(context: CliContext): Command {
  const command = new Command('linux')
    .description('inflate a real Linux guest in each way of giving its memory back, or by each ABI, in turn')
    .addOption(sizeOption('--memory <size>', 'memory of the guest').default(8 * 2 ** 30, '8G'))
    .addOption(sizeOption('--balloon <size>', 'what is inflated').default(7 * 2 ** 30, '7G'))
    .option('--touched', 'also when the guest used all of that memory and freed it (--profiles: the default)')
    .option('--no-touched', 'only of an idle guest')
    .option('--profiles <list>', "by each of these ABIs and the kernel's own driver: all, or names", list)
    .option('--no-embedded', 'with --profiles: leave the embedded guest out')
    .option('--report <file>', 'write an HTML report, and with --profiles its charts as SVG beside it')
    .addHelpText('after', LINUX_EXAMPLES)
    .action((choice: LinuxChoice, self: Command) => benchLinuxGuest(context, choice, self));
  return withBench(command, 3);
}

async function benchLinuxGuest(context: CliContext, choice: LinuxChoice, self: Command): Promise<void> {
  const { memory, balloon, runs } = choice;
  checkBalloon(choice);
  if (choice.profiles !== undefined) return benchLinuxByProfile(context, choice, self);
  if (!choice.embedded) throw new UsageError('--no-embedded belongs to --profiles');
  const touched = choice.touched ?? false;
  const words = [
    `aerostat bench linux --memory ${formatSize(memory)} --balloon ${formatSize(balloon)}`,
    ...(touched ? ['--touched'] : []),
    `--runs ${runs}`,
  ];
  const { bestGuest, requireLinux } = await import('../../demo/guest-choice.ts');
  requireLinux();
  printLine(context.stderr, bestGuest().why);
  const { benchLinux } = await import('../../bench/linux.ts');
  const options = { memoryBytes: memory, balloonBytes: balloon, touched, rounds: runs };
  await measure(context, choice, words.join(' '), progress =>
    benchLinux({ ...options, signal: context.interrupt, progress }),
  );
}

async function benchLinuxByProfile(context: CliContext, choice: LinuxChoice, self: Command): Promise<void> {
  const { benchLinuxProfiles, LINUX_PROFILES, LINUX_PROFILES_CHARTS } = await import(
    '../../bench/linux-profiles.ts'
  );
  const isAll = choice.profiles?.length === 1 && choice.profiles[0] === 'all';
  const profiles = (isAll ? undefined : pick('profile', choice.profiles, LINUX_PROFILES)) ?? LINUX_PROFILES;
  const { requireLinux } = await import('../../demo/guest-choice.ts');
  requireLinux();
  await measure(
    context,
    choice,
    commandLine('aerostat bench linux', self),
    progress =>
      benchLinuxProfiles({
        memoryBytes: choice.memory,
        balloonBytes: choice.balloon,
        profiles,
        touched: choice.touched ?? true,
        embedded: choice.embedded,
        runs: choice.runs,
        signal: context.interrupt,
        progress,
      }),
    LINUX_PROFILES_CHARTS,
  );
}

function withBench(command: Command, runs: number): Command {
  return withVerbose(
    command
      .addOption(
        new Option('--runs <number>', 'how often each case has its turn')
          .argParser(wholeNumber)
          .default(runs),
      )
      .option('--json <file>', 'write the result there as JSON too'),
  );
}
