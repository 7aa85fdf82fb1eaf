/** A daemon and its API in this process, for as long as a command needs them. */
import type { Control } from '../daemon/control.ts';
import type { GuestOptions } from '../daemon/options.ts';
import { type ApiAddress, formatAddress, resolveAddress } from '../server/address.ts';
import { readToken } from '../server/token.ts';
import type { CliContext } from './context.ts';
import type { Log } from './log.ts';
import type { ApiChoice, LogChoice } from './options.ts';

export interface ServeChoice extends ApiChoice, LogChoice {
  readonly apiRemote?: boolean;
}

export interface Served {
  readonly control: Control;
  readonly address: ApiAddress;
  readonly log: Log;
}

/** Runs `body` on a daemon that serves `guests`; whatever happens, both it and its API are closed after that. */
export async function withDaemon(
  context: CliContext,
  choice: ServeChoice,
  guests: readonly GuestOptions[],
  body: (served: Served) => Promise<void>,
): Promise<void> {
  const { env, stderr } = context;
  // What can be wrong with the words is found out before anything is opened.
  const asked = resolveAddress(choice.api, env);
  const token = readToken(choice.tokenFile, env);
  const [{ createLog }, { serveApi }] = await Promise.all([
    import('./log.ts'),
    import('../server/listen.ts'),
  ]);
  const format = choice.logJson ? 'json' : choice.logFormat;
  const log = createLog({ output: stderr, env, format, level: choice.logLevel });
  const daemon = await context.startDaemon({ guests, log });
  const { control, version } = daemon;
  try {
    const api = await serveApi(control, {
      address: asked,
      token,
      allowRemote: choice.apiRemote ?? false,
      version,
      onError: (error, request) => log({ level: 'error', message: `${request} failed`, error }),
    });
    const { address } = api;
    log({ level: 'info', message: `API on ${formatAddress(address)}` });
    try {
      // A daemon that lost a thread must not look alive to whoever would restart it.
      const died = daemon.failed.then(error => Promise.reject(error));
      await Promise.race([body({ control, address, log }), died]);
    } finally {
      await api.close();
    }
  } finally {
    await daemon.close();
  }
}
