/**
 * Daemons that no option named: those that systemd's units run, each with a socket of its own. Guests of all of them are one
 * list, as if a file had named them.
 */

import { existsSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { type CombinedControl, combinedControl, type GuestRoute } from '../control/combined-control.ts';
import type { Control } from '../control/operations.ts';
import { defaultSocket, isUnsaid, systemSockets } from '../server/address.ts';
import type { CliContext } from './context.ts';
import { type ApiChoice, connect } from './options.ts';

/** Sockets to look at where no option says where the daemon is, and the user's own is not there. */
export function foundSockets({ env }: CliContext, { api }: ApiChoice): readonly string[] {
  return isUnsaid(api, env) && !existsSync(defaultSocket(env)) ? systemSockets(env) : [];
}

/** The guests of the daemons at `sockets`, each as its daemon calls it; of two with one name, with its socket's directory. */
export async function guestsOf(context: CliContext, sockets: readonly string[]): Promise<CombinedControl> {
  const daemons = sockets.map(api => ({ place: basename(dirname(api)), control: connect(context, { api }) }));
  const lists = await Promise.all(daemons.map(daemon => routesAt(daemon)));
  const routes = lists.flat();
  const isTaken = (name: string) => routes.filter(route => route.remoteName === name).length > 1;
  return combinedControl(
    routes.map(({ place, ...route }) => ({
      ...route,
      name: isTaken(route.remoteName) ? `${place}/${route.remoteName}` : route.remoteName,
    })),
  );
}

interface Daemon {
  /** What the directory of its socket is called: the instance of its unit. */
  readonly place: string;
  readonly control: Control;
}

/** One that does not answer has a guest of its unit's name, as far as can be known; it is listed with the reason. */
async function routesAt({ place, control }: Daemon): Promise<readonly (GuestRoute & { place: string })[]> {
  const names = await control.guests().then(
    guests => guests.map(({ name }) => name),
    () => [place],
  );
  return names.map(name => ({ place, name, control, remoteName: name }));
}
