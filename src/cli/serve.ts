/** A daemon and its API in this process, for as long as a command needs them. */
import type { Control } from '../control/operations.ts';
import type { Daemon } from '../daemon/options.ts';
import type { GuestOptions } from '../hosting/options.ts';
import { type ApiAddress, formatAddress, resolveAddress } from '../server/address.ts';
import { readTokens } from '../server/token.ts';
import type { CliContext } from './context.ts';
import type { Log } from './log.ts';
import type { ApiChoice, LogChoice } from './options.ts';

export interface ServeChoice extends ApiChoice, LogChoice {
  readonly apiRemote?: boolean;
  readonly keep?: string;
  /** The file of settings of a policy that steers the daemon's guests. */
  readonly policy?: string;
  /** That file also names guests of others, which are no matter of this policy. */
  readonly steersOwn?: boolean;
}

interface Served {
  readonly control: Control;
  readonly address: ApiAddress;
  readonly log: Log;
}

export async function openLog({ env, stderr }: CliContext, choice: LogChoice): Promise<Log> {
  const { createLog } = await import('./log.ts');
  const format = choice.logJson ? 'json' : choice.logFormat;
  return createLog({ output: stderr, env, format, level: choice.logLevel });
}

/** Runs `body` on a daemon that serves `guests`; closes both the daemon and its API afterwards, also when `body` throws. */
export async function withDaemon(
  context: CliContext,
  choice: ServeChoice,
  guests: readonly GuestOptions[],
  body: (served: Served & { readonly daemon: Daemon }) => Promise<void>,
): Promise<void> {
  const { env } = context;
  // What can be wrong with the words is found out before anything is opened.
  resolveAddress(choice.api, env);
  readTokens(choice.tokenFile, env);
  const policy =
    choice.policy === undefined
      ? undefined
      : (await import('./policy-runs.ts')).policyInside(context, choice.policy, choice.steersOwn);
  const log = await openLog(context, choice);
  const daemon = await context.startDaemon({ guests, log, keep: choice.keep });
  try {
    const { version, failed } = daemon;
    const steering = policy?.(daemon.control, log);
    const control = steering?.control ?? daemon.control;
    await withApiOf(context, choice, { control, version, log }, async served => {
      // A daemon that lost a thread must not look alive to the service manager that would restart it.
      const died = failed.then(error => Promise.reject(error));
      steering?.runner.start();
      try {
        await Promise.race([body({ ...served, daemon }), died]);
      } finally {
        await steering?.runner.close();
      }
    });
  } finally {
    await daemon.close();
  }
}

interface Serving extends Pick<Served, 'control' | 'log'> {
  readonly version: string;
}

/** Runs `body` with the API of `control` at the address that the options ask for. */
export async function withApiOf(
  { env }: CliContext,
  choice: ServeChoice,
  { control, version, log }: Serving,
  body: (served: Served) => Promise<void>,
): Promise<void> {
  const { serveApi } = await import('../server/listen.ts');
  const api = await serveApi(control, {
    address: resolveAddress(choice.api, env),
    tokens: readTokens(choice.tokenFile, env),
    allowRemote: choice.apiRemote ?? false,
    version,
    onOrder: ({ kind, caller, ...of }) =>
      log({ level: 'info', message: `${kind} ordered by ${caller}`, ...of }),
    onError: (error, request) => log({ level: 'error', message: `${request} failed`, error }),
  });
  try {
    const { address } = api;
    log({ level: 'info', message: `API on ${formatAddress(address)}` });
    await body({ control, address, log });
  } finally {
    await api.close();
  }
}
