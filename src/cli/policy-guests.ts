/** The guests that a policy steers: those that its file or its words name, or those of the daemons that run. */
import { combinedControl, type GuestRoute } from '../control/combined-control.ts';
import { hostedControl } from '../control/hosted-control.ts';
import type { Control, GuestSource } from '../control/operations.ts';
import { defaultSocket, systemSockets } from '../server/address.ts';
import { type SteeredSource, sourcesOf } from '../steering/guest-source.ts';
import { DEFAULT_SETTINGS, type SteeringSettings } from '../steering/settings.ts';
import { readVersion } from '../sys/version.ts';
import type { CliContext } from './context.ts';
import { checkNames } from './guest-options.ts';
import { parseMonitor } from './guests.ts';
import type { NamedGuest } from './guests-file.ts';
import { connect } from './options.ts';

interface SteeredChoice {
  /** The file of settings. */
  readonly config?: string;
  /** Monitors of QEMU, as they were typed. */
  readonly qmp?: readonly string[];
  /** APIs of daemons. */
  readonly daemons: readonly string[];
}

interface SteeredGuests {
  readonly control: Control;
  readonly sources: readonly SteeredSource[];
  readonly settings: SteeringSettings;
  /** Reads the file of settings anew; absent where there is none. */
  readonly read?: () => SteeringSettings;
  readonly close: () => void;
}

/** @throws PolicyFileError */
export async function openSteered(context: CliContext, choice: SteeredChoice): Promise<SteeredGuests> {
  const [{ QemuControl }, file] = await Promise.all([
    import('../qemu/qemu-control.ts'),
    readFile(choice.config),
  ]);
  const qemus: InstanceType<typeof QemuControl>[] = [];
  const hosts = new Map<string, GuestSource>();
  const monitors = (choice.qmp ?? []).map(parseMonitor).map(({ name, qmpPath }) => ({ name, qmp: qmpPath }));
  const named: readonly NamedGuest[] = [...(file?.guests ?? []), ...monitors];
  checkNames(named.map(({ name }) => name));
  // A monitor each has a control of its own: one QEMU that does not answer is no other one's trouble.
  const routes = named.map((guest): GuestRoute => {
    if ('qmp' in guest) {
      const control = new QemuControl([{ name: guest.name, qmpPath: guest.qmp }]);
      qemus.push(control);
      return { name: guest.name, control, remoteName: guest.name };
    }
    const host = JSON.stringify([guest.api, guest.tokenFile]);
    const control = hosts.get(host) ?? connect(context, guest);
    hosts.set(host, control);
    return { name: guest.name, control, remoteName: guest.guest ?? guest.name };
  });
  const addresses = [...choice.daemons, ...(file?.daemons ?? [])];
  const daemons = (addresses.length === 0 && named.length === 0 ? found(context) : addresses).map(api =>
    connect(context, { api }),
  );
  const close = () => {
    for (const qemu of qemus) qemu.close();
  };
  return {
    control: await controlOf(routes, daemons),
    sources: [...sourcesOf(routes), ...daemons.map(control => ({ control }))],
    settings: file?.settings ?? DEFAULT_SETTINGS,
    ...(choice.config === undefined ? {} : { read: await reader(choice.config) }),
    close,
  };
}

/** The daemons that run: the user's own, or those of systemd's units. */
function found({ env }: CliContext): readonly string[] {
  const units = systemSockets(env);
  return units.length > 0 ? units : [env.AEROSTAT_API ?? defaultSocket(env)];
}

async function readFile(path: string | undefined) {
  if (path === undefined) return undefined;
  const { readPolicyFile } = await import('./policy-file.ts');
  return readPolicyFile(path);
}

async function reader(path: string): Promise<() => SteeringSettings> {
  const { readPolicyFile } = await import('./policy-file.ts');
  return () => readPolicyFile(path).settings;
}

/** One daemon is asked itself for what is not the policy's; of several, their guests as they are called now. */
async function controlOf(routes: readonly GuestRoute[], daemons: readonly Control[]): Promise<Control> {
  if (routes.length === 0 && daemons.length === 1) return daemons[0];
  const lists = await Promise.all(
    daemons.map(async control => {
      const guests = await control.guests().catch(() => []);
      return guests.map(({ name }): GuestRoute => ({ name, control, remoteName: name }));
    }),
  );
  return hostedControl(combinedControl([...routes, ...lists.flat()]), readVersion());
}
