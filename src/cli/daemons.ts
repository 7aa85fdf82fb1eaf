/** Daemons that no option named: those that systemd's units run, each with a socket of its own. */
import { existsSync } from 'node:fs';
import { defaultSocket, isUnsaid, systemSockets } from '../server/address.ts';
import type { CliContext } from './context.ts';
import type { ApiChoice } from './options.ts';

/** Sockets to look at where no option says where the daemon is, and the user's own is not there. */
export function foundSockets({ env }: CliContext, { api }: ApiChoice): readonly string[] {
  return isUnsaid(api, env) && !existsSync(defaultSocket(env)) ? systemSockets(env) : [];
}
