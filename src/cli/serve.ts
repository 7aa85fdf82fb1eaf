/** A daemon and its API in this process, for as long as a command needs them. */
import { UPGRADE_TIMEOUT_MS } from '../control/limits.ts';
import { noUpgrade } from '../control/no-upgrade.ts';
import type { Control } from '../control/operations.ts';
import type { Daemon, Standby } from '../daemon/options.ts';
import type { Predecessor } from '../daemon/predecessor.ts';
import type { Upgrades } from '../daemon/upgrade.ts';
import type { GuestOptions } from '../hosting/options.ts';
import { type ApiAddress, formatAddress, resolveAddress } from '../server/address.ts';
import type { ApiServer } from '../server/listen.ts';
import { readTokens } from '../server/token.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { tellServiceManager } from '../sys/service-manager.ts';
import type { CliContext } from './context.ts';
import { lateLog } from './late-log.ts';
import type { Log } from './log.ts';
import type { ApiChoice, LogChoice } from './options.ts';
import type { policyInside } from './policy-steering.ts';
import { InterruptedError } from './usage.ts';

export interface ServeChoice extends ApiChoice, LogChoice {
  readonly apiRemote?: boolean;
  readonly keep?: string;
  /** Waits until the daemon that the keeper serves has ended. */
  readonly standby?: boolean;
  /** Where it is written how guests are steered. */
  readonly stateDir?: string;
  /** The file of settings of a policy that steers the daemon's guests. */
  readonly policy?: string;
  /** That file also names guests of others, which are no matter of this policy. */
  readonly steersOwn?: boolean;
}

/** Guests that are those of a file. */
export interface GuestsFile {
  /** Its guests by now; the former ones where it makes no sense any more. */
  readonly servedNow: (log: Log) => readonly GuestOptions[];
  /** From now on the daemon serves what the file says when it is to be read anew. */
  readonly follow: (daemon: Daemon, log: Log) => void;
}

interface Served {
  readonly control: Control;
  readonly address: ApiAddress;
  readonly log: Log;
  readonly api: ApiServer;
}

export async function openLog({ env, stderr }: CliContext, choice: LogChoice): Promise<Log> {
  const { createLog } = await import('./log.ts');
  const format = choice.logJson ? 'json' : choice.logFormat;
  return createLog({ output: stderr, env, format, level: choice.logLevel });
}

/**
 * Runs `body` on a daemon that serves `guests`; closes both the daemon and its API afterwards, also when `body` throws, or
 * when another process has taken the daemon's place. One that stands by serves what its `file` says when its turn comes.
 */
export async function withDaemon(
  context: CliContext,
  choice: ServeChoice,
  guests: readonly GuestOptions[],
  body: (served: Served & { readonly daemon: Daemon }) => Promise<void>,
  file?: GuestsFile,
): Promise<void> {
  const { env } = context;
  // What can be wrong with the words is found out before anything is opened.
  resolveAddress(choice.api, env);
  readTokens(choice.tokenFile, env);
  const policy =
    choice.policy === undefined
      ? undefined
      : (await import('./policy-steering.ts')).policyInside(context, choice.policy, choice.steersOwn);
  const { log, open } = lateLog(() => openLog(context, choice));
  const predecessor = await predecessorOf(env);
  // What is needed once guests are served: half of all that is to be loaded.
  const meanwhile = (): void => {
    // When all that was begun is on its way: it leaves this thread nothing else to do.
    setImmediate(() => void Promise.all([open(), import('../server/listen.ts')]).catch(() => {}));
  };
  try {
    const { keep, stateDir: stateDirectory } = choice;
    // One that was started to take a daemon's place does so at once.
    const standby =
      choice.standby === true && predecessor === undefined
        ? await standingBy(context, log, {
            inherits: guests.some(({ fd }) => fd !== undefined),
            guests: () => file?.servedNow(log) ?? guests,
          })
        : undefined;
    const daemon = await context.startDaemon({
      guests,
      log,
      keep,
      stateDirectory,
      predecessor,
      meanwhile,
      standby,
    });
    log({ level: 'debug', message: 'guests are served', detail: sinceStart(daemon.servedMs) });
    // Before a client or the service manager hears that this daemon is there.
    file?.follow(daemon, log);
    try {
      await open();
      await serveDaemon(context, choice, { daemon, policy, predecessor, log }, body);
    } catch (error) {
      // Before anything is undone that is the predecessor's.
      await predecessor?.failed(messageOf(error));
      throw error;
    } finally {
      await daemon.close();
    }
  } catch (error) {
    await open();
    // It had nothing to do, and does as it is told.
    if (choice.standby === true && error instanceof InterruptedError) return;
    await predecessor?.failed(messageOf(error));
    throw error;
  }
}

/** What a daemon does that stands by: it becomes what is installed in its place, until its turn comes. */
async function standingBy(
  { env, interrupt, program, onUpgrade }: CliContext,
  log: Log,
  { inherits, guests }: Pick<Standby, 'guests'> & { readonly inherits: boolean },
): Promise<Standby> {
  const [{ StandbyRenewal }, { PROGRAM_FILES }] = await Promise.all([
    import('../daemon/standby-renewal.ts'),
    import('../sys/own-program.ts'),
  ]);
  // What it was given open would be closed.
  const renewal =
    program === undefined || inherits
      ? undefined
      : new StandbyRenewal({ program, files: PROGRAM_FILES, log, interrupt });
  return {
    interrupt,
    waits: () => {
      tellStandby(env, log);
      renewal?.begin();
      onUpgrade?.(() => renewal?.renew());
    },
    guests: () => {
      renewal?.end();
      return guests();
    },
  };
}

/** It is as ready as it will be: a service manager that waits for it is not to wait for its turn. */
function tellStandby(env: CliContext['env'], log: Log): void {
  log({ level: 'info', message: 'standing by for the daemon that the keeper serves' });
  tellServiceManager(env, 'READY=1', 'STATUS=standing by');
}

/** Milliseconds since this process began, and since Node had the program to run. */
const sinceStart = (atMs = performance.now()) => ({
  processMs: atMs,
  programMs: atMs - performance.nodeTiming.bootstrapComplete,
});

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** The daemon whose place this process is to take, if one started it. What is needed once it has is loaded before. */
async function predecessorOf(env: CliContext['env']): Promise<Predecessor | undefined> {
  if (env.AEROSTAT_HAND_OVER === undefined) return undefined;
  const [{ Predecessor }] = await Promise.all([
    import('../daemon/predecessor.ts'),
    import('../server/listen.ts'),
  ]);
  return Predecessor.of(env);
}

interface RunningParts {
  readonly daemon: Daemon;
  readonly policy: ReturnType<typeof policyInside> | undefined;
  readonly predecessor: Predecessor | undefined;
  readonly log: Log;
}

async function serveDaemon(
  context: CliContext,
  choice: ServeChoice,
  { daemon, policy, predecessor, log }: RunningParts,
  body: (served: Served & { readonly daemon: Daemon }) => Promise<void>,
): Promise<void> {
  const { version, failed } = daemon;
  const steering = policy?.(daemon.control, log);
  const { program } = context;
  let upgrades: Upgrades | undefined;
  const control: Control = steering?.control ?? daemon.control;
  let begin: () => void = () => {};
  const begun = new Promise<void>(resolve => {
    begin = resolve;
  });
  // What serves guests knows of no process that could do so in its place. Who asks before this one is ready waits.
  control.upgrade = async ({ timeoutMs = UPGRADE_TIMEOUT_MS } = {}) => {
    await begun;
    return upgrades?.run(timeoutMs) ?? noUpgrade.upgrade();
  };
  await withApiOf(context, choice, { control, version, log, inherited: predecessor?.api }, async served => {
    try {
      await predecessor?.serving();
    } catch (error) {
      await predecessor?.failed(messageOf(error));
      throw error;
    }
    // After an upgrade this is another process than the service manager started.
    tellServiceManager(context.env, 'READY=1', `MAINPID=${process.pid}`);
    if (program !== undefined) {
      const { Upgrades } = await import('../daemon/upgrade.ts');
      upgrades = new Upgrades({ daemon, entrance: served.api, program, log });
      // It says itself what went wrong.
      context.onUpgrade?.(() => void upgrades?.run(UPGRADE_TIMEOUT_MS).catch(() => {}));
    }
    begin();
    // A daemon that lost a thread must not look alive to the service manager that would restart it.
    const died = failed.then(error => Promise.reject(error));
    steering?.runner.start();
    try {
      await Promise.race([
        body({ ...served, daemon }),
        died,
        ...(upgrades === undefined ? [] : [upgrades.done]),
      ]);
      await upgrades?.settled();
      // Of a process that was replaced the service manager is not to hear it.
      if (upgrades?.isDone !== true) tellServiceManager(context.env, 'STOPPING=1');
    } finally {
      await steering?.runner.close();
    }
    if (upgrades?.isDone === true) await served.api.leave();
  });
}

interface Serving extends Pick<Served, 'control' | 'log'> {
  readonly version: string;
  /** A socket that listens where the API is to be. */
  readonly inherited?: OwnedFd | undefined;
}

/** Runs `body` with the API of `control` at the address that the options ask for. */
export async function withApiOf(
  { env }: CliContext,
  choice: ServeChoice,
  { control, version, log, inherited }: Serving,
  body: (served: Served) => Promise<void>,
): Promise<void> {
  const { serveApi } = await import('../server/listen.ts');
  const api = await serveApi(control, {
    address: resolveAddress(choice.api, env),
    tokens: readTokens(choice.tokenFile, env),
    allowRemote: choice.apiRemote ?? false,
    version,
    inherited,
    onOrder: ({ kind, caller, ...of }) =>
      log({ level: 'info', message: `${kind} ordered by ${caller}`, ...of }),
    onError: (error, request) => log({ level: 'error', message: `${request} failed`, error }),
  });
  try {
    const { address } = api;
    log({ level: 'info', message: `API on ${formatAddress(address)}` });
    log({ level: 'debug', message: 'the API answers', detail: sinceStart() });
    await body({ control, address, log, api });
  } finally {
    await api.close();
  }
}
