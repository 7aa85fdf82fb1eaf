/** A policy at work over a control: of a process of its own, or inside of a daemon. */
import { readHost } from '../control/host.ts';
import type { Control } from '../control/operations.ts';
import { machineClock } from '../steering/clock.ts';
import type { SteeredSource } from '../steering/guest-source.ts';
import type { HeartbeatFile } from '../steering/heartbeat.ts';
import { type SteeredControl, steeredControl } from '../steering/policy-control.ts';
import { PolicyRunner } from '../steering/runner.ts';
import type { SteeringSettings } from '../steering/settings.ts';
import { StateFile, stateDirectory } from '../steering/state-file.ts';
import { defined } from '../sys/defined.ts';
import { readConfiguration } from './configuration/read.ts';
import { ConfigurationError } from './configuration/toml.ts';
import type { CliContext } from './context.ts';
import type { Log } from './log.ts';

/** What is steered, and by what settings. */
interface Steered {
  readonly control: Control;
  readonly sources: readonly SteeredSource[];
  readonly settings: SteeringSettings;
  /** The file of settings, and how it is read anew. */
  readonly source?: { readonly path: string; readonly read: () => SteeringSettings };
  readonly stateDirectory: string;
  readonly heartbeat?: HeartbeatFile;
}

/** A policy that begins when it is told to, and the control that answers for it. SIGHUP reads its settings anew. */
export function steer(
  context: CliContext,
  log: Log,
  steered: Steered,
): { readonly control: SteeredControl; readonly runner: PolicyRunner } {
  const { sources, settings, source } = steered;
  const runner = new PolicyRunner({
    sources,
    host: () => readHost(),
    settings,
    clock: machineClock,
    state: new StateFile(steered.stateDirectory),
    ...defined({ heartbeat: steered.heartbeat }),
    onEvent: event => {
      control.tell(event);
      log({ level: 'info', guest: event.guest, message: 'policy', detail: event.detail });
    },
    onError: error => log({ level: 'error', message: 'the policy failed to decide', error: error as Error }),
  });
  const control = steeredControl(steered.control, runner, source);
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
  return { control, runner };
}

/**
 * The policy inside of a daemon. Guests of others in the file are a mistake, unless it is the daemon's own configuration.
 * @throws ConfigurationError before anything is opened
 */
export function policyInside(context: CliContext, path: string, isOwn = false) {
  const read = () => {
    const { policy, guests, daemons, qmpDirectories, libvirt } = readConfiguration(path);
    if (isOwn || [guests, daemons, qmpDirectories, libvirt].every(({ length }) => length === 0))
      return policy;
    throw new ConfigurationError([
      `${path}: a daemon steers its own guests; "aerostat policy run --config ${path}" steers those of others`,
    ]);
  };
  const settings = read();
  return (control: Control, log: Log) =>
    steer(context, log, {
      control,
      sources: [{ control }],
      settings,
      source: { path, read },
      stateDirectory: stateDirectory(context.env),
    });
}
