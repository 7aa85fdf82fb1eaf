/** A policy at work in this process, for as long as a command runs; loaded only then. */
import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { readHost } from '../control/host.ts';
import { policyDirectory, policySocket } from '../server/address.ts';
import { machineClock } from '../steering/clock.ts';
import { guard } from '../steering/guard.ts';
import { HeartbeatFile } from '../steering/heartbeat.ts';
import { recordLine } from '../steering/recording.ts';
import { PolicyRunner } from '../steering/runner.ts';
import type { SteeringSettings } from '../steering/settings.ts';
import { stateDirectory } from '../steering/state-file.ts';
import { ownCommandLine } from '../sys/own-program.ts';
import { readVersion } from '../sys/version.ts';
import { type CliContext, interrupted, printLine } from './context.ts';
import { openSteered } from './policy-guests.ts';
import { steer } from './policy-steering.ts';
import { openLog, type ServeChoice, withApiOf } from './serve.ts';

export interface GuestWords {
  readonly config?: string;
  readonly qmp?: readonly string[];
  readonly qmpDir?: readonly string[];
  readonly qmpNames?: 'file' | 'vm';
  readonly libvirt?: readonly string[];
}

export interface PolicyRunChoice extends ServeChoice, GuestWords {
  readonly dryRun?: boolean;
  readonly stateDir?: string;
}

/** `aerostat policy run`. */
export async function servePolicy(
  context: CliContext,
  daemons: readonly string[],
  choice: PolicyRunChoice,
): Promise<void> {
  const { env } = context;
  const { dryRun = false } = choice;
  const {
    control: guests,
    sources,
    settings,
    source,
    close,
  } = await openSteered(context, {
    ...choice,
    daemons,
  });
  const log = await openLog(context, choice);
  const api = choice.api ?? env.AEROSTAT_POLICY_API ?? policySocket(env);
  const wished = (given: SteeringSettings) => ({ ...given, dryRun: dryRun || given.dryRun });
  try {
    const { control, runner } = steer(context, log, {
      control: guests,
      sources,
      settings: wished(settings),
      ...(source === undefined ? {} : { source: { path: source.path, read: () => wished(source.read()) } }),
      stateDirectory: choice.stateDir ?? stateDirectory(env),
      heartbeat: new HeartbeatFile({ directory: policyDirectory(env), api, onRelease: startGuard }),
    });
    await withApiOf(context, { ...choice, api }, { control, version: readVersion(), log }, async () => {
      runner.start();
      try {
        const signal = await interrupted(context.interrupt);
        log({ level: 'info', message: `ending for ${signal}; targets stay, and their leases run out` });
      } finally {
        await runner.close();
      }
    });
  } finally {
    close();
  }
}

/** In a process of its own, which outlives this one however it ends. */
function startGuard(path: string): void {
  const [program, ...words] = ownCommandLine('policy', 'guard', path);
  spawn(program, words, { detached: true, stdio: 'ignore' }).unref();
}

/** `aerostat policy guard`: gives their memory back to QEMU's guests whose policy is silent. */
export async function guardTargets(path: string): Promise<void> {
  const { QemuControl } = await import('../qemu/qemu-control.ts');
  await guard({
    path,
    clock: machineClock,
    release: async ({ name, monitor }) => {
      const qemu = new QemuControl([{ name, qmpPath: monitor }]);
      try {
        await qemu.change(name, { targetBytes: 0, force: true });
      } finally {
        qemu.close();
      }
    },
  });
}

/** `aerostat policy record`. */
export async function recordSamples(
  context: CliContext,
  file: string,
  daemons: readonly string[],
  choice: GuestWords,
): Promise<void> {
  const guests = await openSteered(context, { ...choice, daemons });
  const output = createWriteStream(file, { flags: 'a', mode: 0o600 });
  const failed = new Promise<never>((_, reject) => output.once('error', reject));
  let samples = 0;
  const runner = new PolicyRunner({
    sources: guests.sources,
    host: () => readHost(),
    settings: { ...guests.settings, dryRun: true },
    clock: machineClock,
    onSample: (sample, wallMs) => {
      samples++;
      output.write(`${recordLine(sample, wallMs)}\n`);
    },
  });
  try {
    runner.start();
    await Promise.race([interrupted(context.interrupt), failed]);
    printLine(context.stderr, `${samples} samples are in ${file}`);
  } finally {
    await runner.close();
    await new Promise(resolve => output.end(resolve));
    guests.close();
  }
}
