/** The sources of guests that a configuration names, opened: daemons, folders of monitors, libvirts, and single guests. */
import { basename, dirname } from 'node:path';
import { combinedControl, type GuestRoute } from '../control/combined-control.ts';
import type { MergedSource } from '../control/merged-control.ts';
import type { Control, GuestSource } from '../control/operations.ts';
import type { Configuration, DaemonPlace, NamedGuest } from './configuration/read.ts';
import type { CliContext } from './context.ts';
import { connect } from './options.ts';

export interface OpenedSource {
  /** Short, for names and rows. */
  readonly label: string;
  /** Where it is, as the configuration says it: an address, a directory, a URI, a monitor. */
  readonly place: string;
  /** The control of its host. */
  readonly control: GuestSource;
  /** The guests that are meant, with names of this side's choosing; absent for all that come and go. */
  readonly routes?: readonly GuestRoute[];
  /** The same control, where it is a daemon's. */
  readonly daemon?: Control;
}

export interface OpenedSources {
  readonly sources: readonly OpenedSource[];
  readonly close: () => void;
}

interface OpeningOptions {
  /** The user of this machine may send a guest where a client of the API may not. */
  readonly anyDestination?: boolean;
}

/** Nothing is waited for: a source that cannot be reached is a matter of its guests. */
export async function openSources(
  context: CliContext,
  configuration: Configuration,
  options: OpeningOptions = {},
): Promise<OpenedSources> {
  const closers: (() => void)[] = [];
  const opened = [
    ...openDaemons(context, daemonsOf(configuration)),
    ...(await openNamed(context, configuration.guests, closers)),
    ...(await openDirectories(configuration, options, closers)),
    ...(await openLibvirts(configuration, options, closers)),
  ];
  return {
    sources: labelled(opened),
    close: () => {
      for (const close of closers) close();
    },
  };
}

/** Whether it names guests anywhere. */
export const namesSources = (configuration: Configuration): boolean =>
  configuration.guests.length > 0 ||
  configuration.qmpDirectories.length > 0 ||
  configuration.libvirt.length > 0 ||
  daemonsOf(configuration).length > 0;

/** For `mergedControl`. */
export function mergedSource({ label, control, routes }: OpenedSource): MergedSource {
  if (routes === undefined) return { label, control };
  return { label, control: combinedControl(routes), names: routes.map(({ name }) => name) };
}

/** A file that serves guests itself means the daemon that does so, too. */
function daemonsOf({ daemons, served, api }: Configuration): readonly DaemonPlace[] {
  if (served.length === 0 || api.listen === undefined) return daemons;
  const own = { api: api.listen, ...(api.tokenFile === undefined ? {} : { tokenFile: api.tokenFile }) };
  return daemons.some(daemon => daemon.api === own.api) ? daemons : [own, ...daemons];
}

export const openDaemons = (context: CliContext, daemons: readonly DaemonPlace[]): OpenedSource[] =>
  daemons.map(daemon => {
    const control = connect(context, daemon);
    return { label: labelOf(daemon.api), place: daemon.api, control, daemon: control };
  });

/** One source for each host. A monitor each has a control of its own: one QEMU that does not answer is no other one's trouble. */
export async function openNamed(
  context: CliContext,
  guests: readonly NamedGuest[],
  closers: (() => void)[],
): Promise<OpenedSource[]> {
  const sources = new Map<string, OpenedSource & { readonly routes: GuestRoute[] }>();
  for (const guest of guests) {
    const { name } = guest;
    if ('qmp' in guest) {
      // Loaded only when it is needed: most commands never see a QEMU.
      const { QemuControl } = await import('../qemu/qemu-control.ts');
      const control = new QemuControl([{ name, qmpPath: guest.qmp }]);
      closers.push(() => control.close());
      sources.set(`qmp ${name}`, {
        label: name,
        place: guest.qmp,
        control,
        routes: [{ name, control, remoteName: name }],
      });
      continue;
    }
    const key = JSON.stringify([guest.api, guest.tokenFile]);
    const known = sources.get(key);
    const control = (known?.control as Control | undefined) ?? connect(context, guest);
    const route = { name, control, remoteName: guest.guest ?? name, address: guest.api };
    if (known === undefined) {
      const label = labelOf(guest.api);
      sources.set(key, { label, place: guest.api, control, daemon: control, routes: [route] });
    } else known.routes.push(route);
  }
  return [...sources.values()];
}

export async function openDirectories(
  { qmpDirectories, qmpNames }: Pick<Configuration, 'qmpDirectories' | 'qmpNames'>,
  { anyDestination }: OpeningOptions,
  closers: (() => void)[],
): Promise<OpenedSource[]> {
  if (qmpDirectories.length === 0) return [];
  const { MonitorDirectory } = await import('../qemu/monitor-directory.ts');
  const namedByQemu = qmpNames === 'vm';
  const directories = qmpDirectories.map(directory => ({
    label: basename(directory),
    place: directory,
    control: new MonitorDirectory(directory, {
      namedByQemu,
      mayBeMissing: true,
      ...(anyDestination === undefined ? {} : { anyDestination }),
    }),
  }));
  for (const { control } of directories) closers.push(() => control.close());
  await Promise.all(directories.map(({ control }) => control.named()));
  return directories;
}

export async function openLibvirts(
  { libvirt }: Pick<Configuration, 'libvirt'>,
  options: OpeningOptions,
  closers: (() => void)[],
): Promise<OpenedSource[]> {
  return Promise.all(
    libvirt.map(async uri => {
      const control = await openLibvirt(uri, options);
      closers.push(() => control.close());
      return { label: labelOfUri(uri), place: uri, control };
    }),
  );
}

/** Not asked yet. */
export async function openLibvirt(uri: string, migrations: OpeningOptions = {}) {
  const [{ LibvirtConnection }, { LibvirtControl }, { LIBVIRT_COMMAND_LINE }] = await Promise.all([
    import('../libvirt/connection.ts'),
    import('../libvirt/libvirt-control.ts'),
    import('./processes.ts'),
  ]);
  return new LibvirtControl(new LibvirtConnection({ uri, commandLine: LIBVIRT_COMMAND_LINE }), {
    migrations,
  });
}

/** `guests` for /run/aerostat/guests/api.sock, `host2:8080` for http://host2:8080. */
function labelOf(api: string): string {
  return api.startsWith('/') ? basename(dirname(api)) : api.replace(/^https?:\/\//, '').replace(/\/$/, '');
}

/** `libvirt` for qemu:///system, `host2` for qemu+ssh://root@host2/system. */
const labelOfUri = (uri: string): string => /^[^:]+:\/\/(?:[^@/]*@)?([^/?]+)/.exec(uri)?.[1] ?? 'libvirt';

/** With labels that are unique: of sources with one label the second is called LABEL-2. */
function labelled(sources: readonly OpenedSource[]): OpenedSource[] {
  return sources.map((source, at) => {
    const { label } = source;
    const before = sources.slice(0, at).filter(other => other.label === label).length;
    return before === 0 ? source : { ...source, label: `${label}-${before + 1}` };
  });
}
