/** `aerostat demo`: shows in under a minute what a balloon does, on a real kernel where one can be started. */
import { join } from 'node:path';
import { Argument, Command, Option } from 'commander';
import { GUEST_KINDS, type GuestKind } from '../../demo/guest-kinds.ts';
import type { DemoGuest, DemoSample, DemoStep } from '../../demo/story.ts';
import { renderChart, type Series } from '../chart.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { guestOptions } from '../guest-options.ts';
import { sizeOption, withVerbose } from '../options.ts';
import { inScratch } from '../scratch.ts';
import { formatSize } from '../size.ts';
import { isScreen, isUnicode, styleOf } from '../style.ts';
import { renderTable } from '../table.ts';

const EXAMPLES = `
Examples:
  aerostat demo
  aerostat demo --memory 2G --json
  aerostat demo --guest embedded
  aerostat demo policy                  three guests, a host that is too small for them, and a memory policy

The guest is a Linux kernel as a process (User Mode Linux) with its own balloon driver; it needs no KVM ("aerostat peers"
shows whether one can run here). Else it is our embedded guest with our driver. The device and the memory are real with both.`;

interface DemoChoice {
  readonly guest?: GuestKind;
  readonly memory: number;
  readonly json?: boolean;
}

const STORIES = ['balloon', 'policy'] as const;
const GUEST = 'demo';
const GIB = 2 ** 30;
const CHART = { widthMax: 100, height: 12 };

export function demoCommand(context: CliContext): Command {
  const command = new Command('demo')
    .description('see a guest give memory to the host and take it back')
    .addArgument(
      new Argument('[story]', 'of one balloon, or of a memory policy over three guests')
        .choices(STORIES)
        .default('balloon'),
    )
    .addOption(
      sizeOption('--memory <size>', 'memory of the guest of the balloon, or as much as fits').default(
        4 * GIB,
        '4G',
      ),
    )
    .addOption(
      new Option(
        '--guest <kind>',
        'a real kernel or our own guest (default: linux where one can run)',
      ).choices(GUEST_KINDS),
    )
    .option('--json', 'print JSON')
    .addHelpText('after', EXAMPLES)
    .action(async (story: (typeof STORIES)[number], choice: DemoChoice) => {
      if (story === 'balloon') return runDemo(context, choice);
      const { runPolicyDemo } = await import('../policy-demo.ts');
      await runPolicyDemo(context, choice);
    });
  return withVerbose(command);
}

/** A guest that can be started, by the name that people know it by. */
interface Starter {
  readonly kind: GuestKind;
  readonly title: string;
  readonly memoryBytes: number;
  boot(socketPath: string): Promise<DemoGuest & { shutdown(): Promise<void> }>;
}

async function starterOf(context: CliContext, { memory }: DemoChoice, kind: GuestKind): Promise<Starter> {
  if (kind === 'linux') {
    const { LinuxDemoGuest, linuxMemoryBytes } = await import('../../demo/linux-guest.ts');
    const memoryBytes = linuxMemoryBytes(memory);
    const boot = (path: string) => LinuxDemoGuest.boot(GUEST, path, memoryBytes, context.interrupt);
    return { kind, title: 'Linux', memoryBytes, boot };
  }
  const [{ EmbeddedDemoGuest, embeddedMemoryBytes }, { startGuestProcess }] = await Promise.all([
    import('../../demo/embedded-guest.ts'),
    import('../processes.ts'),
  ]);
  const memoryBytes = embeddedMemoryBytes(memory);
  const boot = async (socketPath: string) =>
    new EmbeddedDemoGuest(GUEST, await startGuestProcess({ socketPath, memoryBytes }));
  return { kind, title: 'the embedded guest', memoryBytes, boot };
}

async function runDemo(context: CliContext, choice: DemoChoice): Promise<void> {
  const [story, { booting, withFallback }] = await Promise.all([
    import('../../demo/story.ts'),
    import('../../demo/guest-choice.ts'),
  ]);
  const tell = (line: string) => printLine(context.stderr, line);
  await withFallback(choice.guest, tell, async kind => {
    const starter = await starterOf(context, choice, kind);
    const boot = (socketPath: string) => booting(starter.boot(socketPath), context.interrupt);
    await inScratch('demo', directory =>
      demonstrate(context, choice, { ...story, ...starter, boot, directory }),
    );
  });
}

type Story = Pick<typeof import('../../demo/story.ts'), 'tellStory' | 'SAMPLE_INTERVAL_MS'> &
  Starter & { readonly directory: string };

async function demonstrate(context: CliContext, choice: DemoChoice, story: Story): Promise<void> {
  const { tellStory, SAMPLE_INTERVAL_MS, kind, title, memoryBytes, boot, directory } = story;
  const socketPath = join(directory, 'balloon.sock');
  // Three quarters: the kernel and its file system need the rest.
  const bytes = Math.floor((memoryBytes * 3) / 4 / PAGE_CLUSTER) * PAGE_CLUSTER;
  const say = (text: string) => printLine(context.stderr, text);
  const daemon = await context.startDaemon({
    // Reporting would give the freed memory back by itself, and there would be nothing left for the balloon to show.
    guests: guestOptions({
      socketPath: [socketPath],
      name: [GUEST],
      target: 0,
      discard: 'auto',
      without: ['reporting'],
      pollInterval: SAMPLE_INTERVAL_MS,
    }),
    log: () => {},
  });
  try {
    say(`Booting ${title} with ${formatSize(memoryBytes)}…`);
    const guest = await boot(socketPath);
    try {
      const { steps, samples } = await tellStory({
        control: daemon.control,
        guest,
        bytes,
        signal: context.interrupt,
        begin: () => {},
        end: step => say(`${formatDuration(step.elapsedMs).padStart(8)}  ${step.title}`),
      });
      if (choice.json) printJson(context.stdout, { guest: kind, memoryBytes, bytes, steps, samples });
      else printStory(context, steps, samples);
    } finally {
      await guest.shutdown();
    }
  } catch (error) {
    // The interruption explains every step that did not end.
    context.interrupt.throwIfAborted();
    throw error;
  } finally {
    await daemon.close();
  }
}

const PAGE_CLUSTER = 2 ** 20;

function printStory(context: CliContext, steps: readonly DemoStep[], samples: readonly DemoSample[]): void {
  const { stdout, env } = context;
  const print = (line: string) => printLine(stdout, line);
  const size = (title: string, of: (step: DemoStep) => number) =>
    ({ title, align: 'right', text: (step: DemoStep) => formatSize(of(step)) }) as const;
  print('');
  for (const line of renderTable<DemoStep>(
    [
      { title: 'STEP', text: step => step.title },
      { title: 'TOOK', align: 'right', text: step => formatDuration(step.elapsedMs) },
      size('GUEST FREE', step => step.guestFreeBytes),
      size('BALLOON', step => step.balloonBytes),
      size('HOST RESIDENT', step => step.residentBytes),
    ],
    steps,
  )) {
    print(line);
  }
  print('');
  const width = Math.min(CHART.widthMax, stdout.columns || CHART.widthMax);
  const shown = resample(samples, width - CHART_MARGIN);
  const series: readonly Series[] = [
    { label: 'host resident', colour: 'red', values: shown.map(sample => sample.residentBytes) },
    { label: 'guest free', colour: 'green', values: shown.map(sample => sample.guestFreeBytes) },
    { label: 'balloon', colour: 'blue', values: shown.map(sample => sample.balloonBytes) },
  ];
  const colours = isScreen(stdout, env) && !env.NO_COLOR;
  // Three lines in one chart can be told apart by colour only.
  const charts = colours ? [series] : series.map(one => [one]);
  const height = Math.floor(CHART.height / (colours ? 1 : 2));
  for (const chart of charts) {
    for (const line of renderChart(chart, { width, height, colours, unicode: isUnicode(env) })) print(line);
  }
  const seconds = (samples.at(-1)?.atMs ?? 0) / 1000;
  print(styleOf(stdout, env).dim(`         ${seconds.toFixed(1)} seconds, left to right`));
}

/** Room for the scale of the chart. */
const CHART_MARGIN = 10;

/** `count` samples at even distances, so that all of the time fits the width. */
function resample(samples: readonly DemoSample[], count: number): DemoSample[] {
  if (samples.length <= count) return [...samples];
  return Array.from(
    { length: count },
    (_, i) => samples[Math.round((i * (samples.length - 1)) / (count - 1))],
  );
}
