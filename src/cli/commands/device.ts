/**
 * `aerostat device`: the daemon. It runs in the foreground and obeys the conventions for vhost-user programs
 * (QEMU, docs/interop/vhost-user.rst, "Backend program conventions").
 */
import { Command, Option } from 'commander';
import { DEFAULT_PROFILE, PROFILE_NAMES } from '../../balloon/profiles.ts';
import { DISCARD_MODES } from '../../control/contract.ts';
import { POLL_INTERVAL_MS_MAX, TARGET_BYTES_MAX } from '../../control/limits.ts';
import type { GuestOptions } from '../../hosting/options.ts';
import { AerostatError } from '../../sys/error.ts';
import { type CliContext, interrupted, printLine } from '../context.ts';
import { guestOptions, parseFd, type ServedGuestsChoice } from '../guest-options.ts';
import {
  bootGraceOption,
  durationOption,
  each,
  evictionIntervalOption,
  list,
  sizeOption,
  value,
  withApi,
  withLog,
} from '../options.ts';
import { type GuestsFile, type ServeChoice, withDaemon } from '../serve.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat device --socket-path /run/user/1000/vm1.sock
  aerostat device --socket-path vm1 --socket-path vm2 --target 1G
  aerostat device --socket-path vm1 --target 1G --boot-grace 60s
  aerostat device --socket-path vm1 --api 127.0.0.1:8080 --token-file token
  aerostat device --config aerostat.toml      its guests, API, log and policy; SIGHUP reads it anew
  aerostat device --socket-path vm1 --keep /run/user/1000/keeper.sock
  aerostat device --socket-path vm1 --keep /run/user/1000/keeper.sock --standby      the same words, twice

With --policy, "aerostat policy status" and its like ask this daemon, and SIGHUP reads the file anew. Without a socket, the
guests of ~/.config/aerostat/aerostat.toml or /etc/aerostat/aerostat.toml are served.

SIGTERM, SIGINT and SIGHUP give everything pending back to the host and end the daemon with code 0. With --keep, guests are
left to the next daemon, also when this one is killed (docs/operating.md); of two daemons with --standby, one serves, and
the other goes on within a moment.`;

type DeviceChoice = ServedGuestsChoice & ServeChoice & { readonly config?: string };

/** What a file says of guests, and what becomes of it while the daemon runs. */
interface Configured extends GuestsFile {
  readonly choice: DeviceChoice;
  readonly served: readonly GuestOptions[];
}

export function deviceCommand(context: CliContext): Command {
  const descriptor = value(parseFd);
  const command = new Command('device')
    .description('serve balloon devices to virtual machines, over vhost-user')
    .option('--socket-path <path>', "where a guest's front-end connects; once for each guest", each)
    .addOption(
      new Option('--fd <number>', 'an inherited socket instead of a path; once for each guest').argParser(
        (text, before: readonly number[] = []) => [...before, descriptor(text)],
      ),
    )
    .option(
      '--name <name>',
      "a guest's name (default: its socket's, vm1 for vm1.sock); once for each socket",
      each,
    )
    .addOption(
      sizeOption('--target <size>', 'what balloons should hold at first', TARGET_BYTES_MAX).default(0, '0'),
    )
    .addOption(
      new Option('--profile <name>', 'the ABI to offer').choices(PROFILE_NAMES).default(DEFAULT_PROFILE),
    )
    .option('--without <features>', 'features not to offer, for example reporting,hint', list)
    .addOption(
      new Option('--discard <mode>', 'when inflated pages go back to the host')
        .choices(DISCARD_MODES)
        .default('auto'),
    )
    .addOption(
      durationOption(
        '--poll-interval <duration>',
        'how often to ask for statistics; 0 for never',
        POLL_INTERVAL_MS_MAX,
      ).default(10_000, '10s'),
    )
    .addOption(bootGraceOption())
    .addOption(evictionIntervalOption())
    .option(
      '--keep <socket>',
      "an aerostat keep's, by which guests outlive this daemon; systemd for the service manager's store, none for nothing (env: AEROSTAT_KEEP)",
    )
    .option(
      '--standby',
      'wait, with all loaded, until the daemon that --keep serves has ended, and go on with its guests',
    )
    .option(
      '--config <file>',
      'serve the guests of this aerostat.toml that have a socket (env: AEROSTAT_CONFIG)',
    )
    .option(
      '--state-dir <directory>',
      'where targets and the like outlive this daemon also without --keep (env: STATE_DIRECTORY)',
    )
    .option('--policy <file>', 'steer the memory of these guests, by the [policy] of this aerostat.toml')
    .option('--api-remote', 'let --api be an address that other machines can reach')
    .option('--print-capabilities', 'print what this program can do, as JSON, and end')
    .addHelpText('after', EXAMPLES)
    .action((choice: DeviceChoice, command: Command) => runDevice(context, command, choice));
  return withLog(withApi(command), 'info');
}

/**
 * For programs that start us: which kind of back-end this is. As in QEMU's schema (vhost-user.json), a feature
 * is an option of the command line that may be relied on; the profiles are ours to tell, and which states of kept guests it
 * reads.
 */
export async function printCapabilities(context: CliContext): Promise<void> {
  const { STATE_VERSION: stateVersion } = await import('../../daemon/standby-renewal.ts');
  const features = [
    'api',
    'boot-grace',
    'discard',
    'eviction-interval',
    'keep',
    'name',
    'poll-interval',
    'profile',
    'standby',
    'state-dir',
    'target',
    'without',
  ];
  const told = { type: 'balloon', features, profiles: PROFILE_NAMES, stateVersion };
  printLine(context.stdout, JSON.stringify(told, null, 2));
}

async function runDevice(context: CliContext, command: Command, typed: DeviceChoice): Promise<void> {
  const configured = await configurationOf(context, command, typed);
  const { choice: chosen = typed, served = guestOptions(typed) } = configured ?? {};
  const choice = withEnvironment(chosen, context.env);
  if (choice.standby === true) checkStandby(choice);
  // Whose turn comes later reads its file then.
  if (choice.standby === true && configured !== undefined) context.onHangUp?.(() => {});
  const run: Parameters<typeof withDaemon>[3] = async ({ log }) => {
    // An operator who restarts a daemon has to know that changed targets are lost.
    if (choice.keep === undefined) {
      const what =
        choice.stateDir === undefined
          ? 'targets and accounts of an earlier run are not kept without --keep (targets alone are with --state-dir): guests start with --target'
          : 'accounts of an earlier run are not kept without --keep';
      log({
        level: 'info',
        message: `${what}, and what the balloon of one that runs already holds is not known until its driver starts anew`,
      });
    }
    const signal = await interrupted(context.interrupt);
    log({ level: 'info', message: `ending for ${signal}` });
  };
  await withDaemon(context, choice, served, run, configured);
}

/** @throws UsageError when nothing would say that the daemon before has ended */
function checkStandby({ keep }: DeviceChoice): void {
  if (keep === 'systemd') {
    throw new UsageError(
      '--standby needs a keeper of its own (--keep SOCKET, an aerostat keep): systemd gives what it stores only to a process that it starts',
    );
  }
  if (keep === undefined)
    throw new UsageError('--standby needs --keep SOCKET, the same as the daemon has that it stands by for');
}

/** What a unit of the service manager says where neither command line nor file do. */
function withEnvironment(choice: DeviceChoice, env: CliContext['env']): DeviceChoice {
  const {
    keep: asked = env.AEROSTAT_KEEP,
    stateDir = env.STATE_DIRECTORY?.split(':')[0],
    ...others
  } = choice;
  const keep = asked === 'none' ? undefined : asked;
  return { ...others, ...(keep ? { keep } : {}), ...(stateDir ? { stateDir } : {}) };
}

/** The file whose guests are served: one that is named, or that is found where no socket is named. */
async function configurationOf(
  context: CliContext,
  command: Command,
  typed: DeviceChoice,
): Promise<Configured | undefined> {
  const { config, socketPath, fd, name } = typed;
  const hasSockets = socketPath !== undefined || fd !== undefined;
  if (config !== undefined && (hasSockets || name !== undefined)) {
    throw new UsageError('guests are named by --config or by --socket-path, --fd and --name, not by both');
  }
  if (hasSockets) return undefined;
  const { configurationPath } = await import('../configuration/place.ts');
  const path = configurationPath(config, context.env);
  if (path === undefined) return undefined;
  // Guests that are named by words wait for neither.
  const [{ followConfiguration, withConfigured }, { readConfiguration }] = await Promise.all([
    import('../configuration/device.ts'),
    import('../configuration/read.ts'),
  ]);
  let configuration = readConfiguration(path);
  const { served } = configuration;
  if (served.length > 0) {
    return {
      served,
      choice: withConfigured(command, typed, configuration),
      servedNow: log => {
        try {
          configuration = readConfiguration(path);
        } catch (error) {
          if (!(error instanceof AerostatError)) throw error;
          log({ level: 'error', message: `${path} was not taken: ${error.message}` });
        }
        return configuration.served;
      },
      follow: (daemon, log) => followConfiguration(context, configuration, daemon, log),
    };
  }
  throw new UsageError(`${path} has no guest to serve; give one a socket: [guests.NAME] socket = "PATH"`);
}
