/** The guests that a policy steers: those that its file or its words name, or those of the daemons that run. */
import type { GuestRoute } from '../control/combined-control.ts';
import { hostedControl } from '../control/hosted-control.ts';
import { mergedControl } from '../control/merged-control.ts';
import type { Control, GuestSource } from '../control/operations.ts';
import { defaultSocket, systemSockets } from '../server/address.ts';
import type { SteeredSource } from '../steering/guest-source.ts';
import { DEFAULT_SETTINGS, type SteeringSettings } from '../steering/settings.ts';
import { readVersion } from '../sys/version.ts';
import type { CliContext } from './context.ts';
import { checkNames } from './guest-options.ts';
import { parseMonitor } from './guests.ts';
import {
  mergedSource,
  type OpenedSource,
  openDaemons,
  openDirectories,
  openLibvirts,
  openNamed,
  openSources,
} from './sources.ts';

interface SteeredChoice {
  /** The file of settings. */
  readonly config?: string;
  /** Monitors of QEMU, as they were typed. */
  readonly qmp?: readonly string[];
  /** Folders of monitors, and how their guests are called. */
  readonly qmpDir?: readonly string[];
  readonly qmpNames?: 'file' | 'vm';
  /** URIs of libvirts. */
  readonly libvirt?: readonly string[];
  /** APIs of daemons. */
  readonly daemons: readonly string[];
}

interface SteeredGuests {
  readonly control: Control;
  readonly sources: readonly SteeredSource[];
  readonly settings: SteeringSettings;
  /** The file of settings, and how it is read anew; absent where there is none. */
  readonly source?: { readonly path: string; readonly read: () => SteeringSettings };
  readonly close: () => void;
}

/** @throws ConfigurationError */
export async function openSteered(context: CliContext, choice: SteeredChoice): Promise<SteeredGuests> {
  const path = await configurationOf(context, choice);
  const reader = path === undefined ? undefined : (await import('./configuration/read.ts')).readConfiguration;
  const read = path === undefined ? undefined : () => (reader as NonNullable<typeof reader>)(path);
  const file = read?.();
  const closers: (() => void)[] = [];
  const monitors = (choice.qmp ?? []).map(parseMonitor).map(({ name, qmpPath }) => ({ name, qmp: qmpPath }));
  checkNames([...(file?.guests ?? []), ...monitors].map(({ name }) => name));
  const ofFile = file === undefined ? undefined : await openSources(context, file);
  if (ofFile !== undefined) closers.push(ofFile.close);
  const { qmpDir = [], qmpNames = 'file', libvirt = [] } = choice;
  const named = [
    ...(ofFile?.sources ?? []),
    ...(await openNamed(context, monitors, closers)),
    ...(await openDirectories({ qmpDirectories: qmpDir, qmpNames }, {}, closers)),
    ...(await openLibvirts({ libvirt }, {}, closers)),
  ];
  const words = choice.daemons.length === 0 && named.length === 0 ? found(context) : choice.daemons;
  const opened = [
    ...named,
    ...openDaemons(
      context,
      words.map(api => ({ api })),
    ),
  ];
  return {
    control: controlOf(opened),
    sources: opened.map(({ control, routes }) =>
      routes === undefined ? { control } : sourceOf(control, routes),
    ),
    settings: file?.policy ?? DEFAULT_SETTINGS,
    ...(read === undefined || path === undefined ? {} : { source: { path, read: () => read().policy } }),
    close: () => {
      for (const close of closers) close();
    },
  };
}

/** The file that is named, or that is found where no words name guests. */
async function configurationOf(
  { env }: CliContext,
  { config, qmp = [], qmpDir = [], libvirt = [], daemons }: SteeredChoice,
): Promise<string | undefined> {
  const named = qmp.length + qmpDir.length + libvirt.length + daemons.length;
  if (config === undefined && (named > 0 || env.AEROSTAT_API)) return undefined;
  const { configurationPath } = await import('./configuration/place.ts');
  return configurationPath(config, env);
}

/** The daemons that run: the user's own, or those of systemd's units. */
function found({ env }: CliContext): readonly string[] {
  const units = systemSockets(env);
  return units.length > 0 ? units : [env.AEROSTAT_API ?? defaultSocket(env)];
}

/** One daemon is asked itself for what is not the policy's; of several, their guests as they are called now. */
function controlOf(sources: readonly OpenedSource[]): Control {
  const [{ daemon, routes }] = sources;
  if (sources.length === 1 && daemon !== undefined && routes === undefined) return daemon;
  return hostedControl(mergedControl(sources.map(mergedSource)), readVersion());
}

const sourceOf = (control: GuestSource, routes: readonly GuestRoute[]): SteeredSource => ({
  control,
  names: new Map(routes.map(({ name, remoteName }) => [remoteName, name])),
});
