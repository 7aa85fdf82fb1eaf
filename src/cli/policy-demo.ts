/** `aerostat demo policy`: three guests on a host that is too small for them, and the policy between them; loaded only then. */
import { join } from 'node:path';
import { readHost } from '../control/host.ts';
import type { Control } from '../control/operations.ts';
import { booting, withFallback } from '../demo/guest-choice.ts';
import type { GuestKind } from '../demo/guest-kinds.ts';
import { type PolicySample, type PolicyStep, tellPolicyStory } from '../demo/policy-story.ts';
import type { DemoGuest } from '../demo/story.ts';
import { machineClock } from '../steering/clock.ts';
import { steeredControl } from '../steering/policy-control.ts';
import { PolicyRunner } from '../steering/runner.ts';
import { DEFAULT_SETTINGS } from '../steering/settings.ts';
import { renderChart, type Series } from './chart.ts';
import { type CliContext, printJson, printLine } from './context.ts';
import { formatDuration } from './duration.ts';
import { guestOptions } from './guest-options.ts';
import { inScratch } from './scratch.ts';
import { formatSize } from './size.ts';
import { isScreen, isUnicode, styleOf } from './style.ts';
import { renderTable } from './table.ts';

const MIB = 2 ** 20;
const NAMES = ['web', 'mail', 'build'] as const;
const COLOURS = ['blue', 'green', 'yellow'] as const;
const CHART = { widthMax: 100, height: 12, margin: 10 };
/** The host has so much of what its guests want. */
const HOST_SHARE = 2 / 3;
const RESERVE_BYTES = 64 * MIB;
/** Below, nothing is left that could be taken; a real kernel needs more for itself. */
const MEMORY_BYTES = { linux: 384 * MIB, embedded: 256 * MIB };
const PERIOD_MS = 1000;
const POLL_MS = 500;

interface PolicyDemoChoice {
  readonly guest?: GuestKind;
  readonly json?: boolean;
}

type Booted = DemoGuest & { shutdown(): Promise<void> };

export async function runPolicyDemo(context: CliContext, choice: PolicyDemoChoice): Promise<void> {
  const tell = (line: string) => printLine(context.stderr, line);
  await withFallback(choice.guest, tell, kind =>
    inScratch('demo', directory => demonstrate(context, choice, kind, directory)),
  );
}

async function demonstrate(
  context: CliContext,
  choice: PolicyDemoChoice,
  kind: GuestKind,
  directory: string,
): Promise<void> {
  const { interrupt, stderr, stdout } = context;
  const memoryBytes = MEMORY_BYTES[kind];
  const hostBytes = Math.floor((NAMES.length * memoryBytes * HOST_SHARE) / MIB) * MIB;
  const daemon = await context.startDaemon({
    // Reporting would give back by itself what lies idle, and the policy would have nothing to take.
    guests: guestOptions({
      socketPath: NAMES.map(name => join(directory, name)),
      name: [...NAMES],
      target: 0,
      discard: 'auto',
      without: ['reporting'],
      pollInterval: POLL_MS,
    }),
    log: () => {},
  });
  const guests: Booted[] = [];
  const runner = new PolicyRunner({
    sources: [{ control: daemon.control }],
    host: () => readHost(),
    settings: {
      ...DEFAULT_SETTINGS,
      ...{ periodMs: PERIOD_MS, memoryBytes: hostBytes, reserveBytes: RESERVE_BYTES },
    },
    clock: machineClock,
  });
  try {
    printLine(
      stderr,
      `Booting three guests with ${formatSize(memoryBytes)} each, on a host that has ${formatSize(hostBytes)} for them…`,
    );
    guests.push(...(await booting(bootAll(kind, directory, memoryBytes, interrupt), interrupt)));
    const { steps, samples } = await tellPolicyStory({
      ...{ control: steeredControl(daemon.control, runner), guests, memoryBytes, signal: interrupt },
      budgetBytes: hostBytes - RESERVE_BYTES,
      startPolicy: () => runner.start(),
      end: step => printLine(stderr, `${formatDuration(step.elapsedMs).padStart(8)}  ${step.title}`),
    });
    if (choice.json)
      printJson(stdout, { guest: kind, guests: NAMES, memoryBytes, hostBytes, steps, samples });
    else print(context, steps, samples);
  } catch (error) {
    // The interruption explains every step that did not end.
    interrupt.throwIfAborted();
    throw error;
  } finally {
    await runner.close();
    await Promise.all(guests.map(guest => guest.shutdown()));
    await daemon.close();
  }
}

/** All of them, or none. */
async function bootAll(
  kind: GuestKind,
  directory: string,
  memoryBytes: number,
  signal: AbortSignal,
): Promise<Booted[]> {
  const boot = await booterOf(kind, memoryBytes, signal);
  const boots = await Promise.allSettled(NAMES.map(name => boot(name, join(directory, name))));
  const booted = boots.flatMap(one => (one.status === 'fulfilled' ? [one.value] : []));
  const failed = boots.find(one => one.status === 'rejected');
  if (failed === undefined) return booted;
  await Promise.all(booted.map(guest => guest.shutdown()));
  throw failed.reason;
}

async function booterOf(
  kind: GuestKind,
  memoryBytes: number,
  signal: AbortSignal,
): Promise<(name: string, socketPath: string) => Promise<Booted>> {
  if (kind === 'linux') {
    const { LinuxDemoGuest } = await import('../demo/linux-guest.ts');
    return (name, path) => LinuxDemoGuest.boot(name, path, memoryBytes, signal);
  }
  const [{ EmbeddedDemoGuest }, { startGuestProcess }] = await Promise.all([
    import('../demo/embedded-guest.ts'),
    import('./processes.ts'),
  ]);
  return async (name, socketPath) =>
    new EmbeddedDemoGuest(name, await startGuestProcess({ socketPath, memoryBytes }));
}

function print(context: CliContext, steps: readonly PolicyStep[], samples: readonly PolicySample[]): void {
  const { stdout, env } = context;
  const line = (text: string) => printLine(stdout, text);
  const size = (bytes: number | null) => (bytes === null ? '-' : formatSize(bytes));
  line('');
  for (const row of renderTable<PolicyStep>(
    [
      { title: 'STEP', text: step => step.title },
      { title: 'TOOK', align: 'right', text: step => formatDuration(step.elapsedMs) },
      { title: 'DECISIONS', align: 'right', text: step => String(step.decisions) },
      ...NAMES.map((name, at) => ({
        title: `${name.toUpperCase()} HAS`,
        align: 'right' as const,
        text: (step: PolicyStep) => size(step.hasBytes[at]),
      })),
    ],
    steps,
  )) {
    line(row);
  }
  line('');
  for (const row of chartOf(context, samples)) line(row);
  line('');
  for (const { why } of steps) if (why !== null) line(why);
  line(
    styleOf(stdout, env).dim(
      '"aerostat dashboard --policy" shows a policy at work; docs/policy.md says how it decides.',
    ),
  );
}

function chartOf({ stdout, env }: CliContext, samples: readonly PolicySample[]): string[] {
  const width = Math.min(CHART.widthMax, stdout.columns || CHART.widthMax);
  const count = Math.min(samples.length, width - CHART.margin);
  const shown = Array.from(
    { length: count },
    (_, at) => samples[Math.round((at * (samples.length - 1)) / Math.max(1, count - 1))],
  );
  const series = NAMES.map(
    (name, at): Series => ({
      label: `${name} has`,
      colour: COLOURS[at],
      values: shown.map(({ hasBytes }) => hasBytes[at]),
    }),
  );
  const colours = isScreen(stdout, env) && !env.NO_COLOR;
  const unicode = isUnicode(env);
  // Three lines in one chart can be told apart by colour only.
  const charts = colours ? [series] : series.map(one => [one]);
  const height = Math.floor(CHART.height / (colours ? 1 : 2));
  return charts.flatMap(chart => renderChart(chart, { width, height, colours, unicode }));
}

/** Runs `body` with guests under a policy, on a host that has less for them than the `bytes` that they want. */
export async function withDemoPolicy(
  guests: Control,
  bytes: number,
  body: (control: Control) => Promise<void>,
): Promise<void> {
  const memoryBytes = Math.floor((bytes * HOST_SHARE) / MIB) * MIB;
  const runner = new PolicyRunner({
    sources: [{ control: guests }],
    host: () => readHost(),
    settings: { ...DEFAULT_SETTINGS, periodMs: PERIOD_MS, memoryBytes, reserveBytes: RESERVE_BYTES },
    clock: machineClock,
    onEvent: event => control.tell(event),
  });
  const control = steeredControl(guests, runner);
  runner.start();
  try {
    await body(control);
  } finally {
    await runner.close();
  }
}
