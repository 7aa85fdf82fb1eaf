/** `aerostat device --config`: the words of the command over those of the file, and what becomes of a file that changes. */
import type { Command } from 'commander';
import type { Daemon } from '../../daemon/options.ts';
import type { GuestOptions } from '../../hosting/options.ts';
import { AerostatError } from '../../sys/error.ts';
import { tellServiceManager } from '../../sys/service-manager.ts';
import type { CliContext } from '../context.ts';
import type { Log } from '../log.ts';
import type { LogChoice } from '../options.ts';
import type { ServeChoice } from '../serve.ts';
import { type Configuration, readConfiguration } from './read.ts';

/** What the command line does not say is as the file says it. */
export function withConfigured<Choice extends ServeChoice>(
  command: Command,
  choice: Choice,
  { path, api, keep, stateDir, steersOwn, log }: Configuration,
): Choice {
  return {
    ...withConfiguredLog(command, choice, log),
    api: choice.api ?? api.listen,
    tokenFile: choice.tokenFile ?? api.tokenFile,
    apiRemote: choice.apiRemote ?? api.remote,
    ...((choice.keep ?? keep) === undefined ? {} : { keep: choice.keep ?? keep }),
    ...((choice.stateDir ?? stateDir) === undefined ? {} : { stateDir: choice.stateDir ?? stateDir }),
    ...(choice.policy !== undefined || !steersOwn ? {} : { policy: path, steersOwn }),
  };
}

function withConfiguredLog<Choice extends LogChoice>(
  command: Command,
  choice: Choice,
  { level, format }: Configuration['log'],
): Choice {
  const said = (option: string) => command.getOptionValueSource(option) !== 'default';
  return {
    ...choice,
    ...(level === undefined || said('logLevel') ? {} : { logLevel: level }),
    ...(format === undefined || said('logFormat') || choice.logJson ? {} : { logFormat: format }),
  };
}

/** A daemon whose guests are those of a file: read anew on SIGHUP, without a guest that runs losing its device. */
export function followConfiguration(
  context: CliContext,
  { path, served }: Configuration,
  daemon: Pick<Daemon, 'open' | 'dismiss' | 'control'>,
  log: Log,
): void {
  const known = new Map(served.map(guest => [guest.name, guest]));
  const reload = async () => {
    const wished = new Map(readConfiguration(path).served.map(guest => [guest.name, guest]));
    for (const guest of wished.values()) {
      if (!known.has(guest.name)) await admit(guest);
      else if (!isSame(guest, known.get(guest.name))) {
        log({
          level: 'warn',
          guest: guest.name,
          message: 'other settings of a guest count from the next start; "aerostat set" changes them now',
        });
      }
    }
    for (const name of known.keys()) if (!wished.has(name)) await release(name);
  };
  const admit = async (guest: GuestOptions) => {
    await daemon.open(guest);
    known.set(guest.name, guest);
    log({ level: 'info', guest: guest.name, message: `served at ${guest.socketPath}` });
  };
  const release = async (name: string) => {
    if ((await daemon.control.guest(name)).connected) {
      log({
        level: 'warn',
        guest: name,
        message: 'not in the file any more, and served until its front-end leaves and SIGHUP comes again',
      });
      return;
    }
    await daemon.dismiss(name);
    known.delete(name);
    log({ level: 'info', guest: name, message: 'not in the file any more, and not served' });
  };
  let reloading = Promise.resolve();
  context.onHangUp?.(() => {
    tellServiceManager(context.env, 'RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
    reloading = reloading
      .then(reload)
      .catch((error: unknown) => {
        if (!(error instanceof AerostatError)) throw error;
        log({ level: 'error', message: `${path} was not taken: ${error.message}` });
      })
      .finally(() => tellServiceManager(context.env, 'READY=1'));
  });
}

const isSame = (one: GuestOptions, other: GuestOptions | undefined): boolean =>
  JSON.stringify(one) === JSON.stringify(other);
