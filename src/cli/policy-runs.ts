/** A policy at work in this process, for as long as a command runs; loaded only then. */
import { createWriteStream } from 'node:fs';
import { readHost } from '../control/host.ts';
import { policySocket } from '../server/address.ts';
import { machineClock } from '../steering/clock.ts';
import { steeredControl } from '../steering/policy-control.ts';
import { recordLine } from '../steering/recording.ts';
import { PolicyRunner } from '../steering/runner.ts';
import { StateFile, stateDirectory } from '../steering/state-file.ts';
import { readVersion } from '../sys/version.ts';
import { type CliContext, interrupted, printLine } from './context.ts';
import { openSteered } from './policy-guests.ts';
import { openLog, type ServeChoice, withApiOf } from './serve.ts';

export interface GuestWords {
  readonly config?: string;
  readonly qmp?: readonly string[];
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
  const guests = await openSteered(context, { ...choice, daemons });
  const log = await openLog(context, choice);
  const { read, settings } = guests;
  try {
    const runner = new PolicyRunner({
      sources: guests.sources,
      host: () => readHost(),
      settings: { ...settings, dryRun: choice.dryRun ?? settings.dryRun },
      clock: machineClock,
      state: new StateFile(choice.stateDir ?? stateDirectory(env)),
      onEvent: event => {
        control.tell(event);
        log({ level: 'info', guest: event.guest, message: 'policy', detail: event.detail });
      },
      onError: error =>
        log({ level: 'error', message: 'the policy failed to decide', error: error as Error }),
    });
    const source =
      choice.config === undefined || read === undefined ? undefined : { path: choice.config, read };
    const control = steeredControl(guests.control, runner, source);
    context.onHangUp?.(() => {
      control.reload();
      control
        .policy()
        .then(({ settingsError }) =>
          log(
            settingsError === null
              ? { level: 'info', message: 'settings were read anew' }
              : { level: 'error', message: `settings were refused: ${settingsError}` },
          ),
        );
    });
    const served = { control, version: readVersion(), log };
    await withApiOf(
      context,
      { ...choice, api: choice.api ?? env.AEROSTAT_POLICY_API ?? policySocket(env) },
      served,
      async () => {
        runner.start();
        try {
          const signal = await interrupted(context.interrupt);
          log({ level: 'info', message: `ending for ${signal}; targets stay, and their leases run out` });
        } finally {
          await runner.close();
        }
      },
    );
  } finally {
    guests.close();
  }
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
