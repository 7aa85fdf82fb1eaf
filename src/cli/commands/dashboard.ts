/**
 * `aerostat dashboard`: the page in a browser, for a daemon that runs, or for three guests that live only to be looked
 * at. A browser cannot open a Unix socket, so this serves page and API on a loopback port, under a token of its own.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import type { Control } from '../../control/operations.ts';
import { type ApiAddress, formatAddress, resolveAddress } from '../../server/address.ts';
import { UnreachableError } from '../../server/client.ts';
import { fullToken, readTokens, type Token } from '../../server/token.ts';
import { readVersion } from '../../sys/version.ts';
import { type CliContext, interrupted, printJson, printLine } from '../context.ts';
import { foundSockets } from '../daemons.ts';
import { guestOptions } from '../guest-options.ts';
import { configuredGuests, type GuestsChoice, withGuestOptions, withGuests } from '../guests.ts';
import { connect } from '../options.ts';
import { inScratch } from '../scratch.ts';
import { styleOf } from '../style.ts';

const EXAMPLES = `
Examples:
  aerostat dashboard                   of the daemon that runs; of three guests to play with if none does
  aerostat dashboard --demo            of three guests to play with
  aerostat dashboard --policy          of the same three under a memory policy, on a host that is too small for them
  aerostat dashboard --qmp /run/qemu/web.qmp
                                       of a guest of QEMU's; what QEMU does not tell is a dash
  aerostat dashboard --qmp-dir /var/run/qemu-server
                                       of all guests of a Proxmox host, as they come and go
  aerostat dashboard --api ./api.sock --port 8080 --no-open
  aerostat dashboard --config aerostat.toml --port 8080 --token-file token
                                       at the same address and under the same token every time

It listens on 127.0.0.1 and prints an address that holds its token: anyone who has the address can steer the guests.
The token is a new one each time, unless the dashboard serves the guests itself (--config, --qmp, --qmp-dir,
--libvirt, --demo) and --token-file or AEROSTAT_TOKEN gives one. Ctrl-C ends it.`;

interface DashboardChoice extends GuestsChoice {
  readonly demo?: boolean;
  readonly policy?: boolean;
  readonly port: number;
  readonly open: boolean;
}

const DEMO_POLL_MS = 1000;

export function dashboardCommand(context: CliContext): Command {
  const command = new Command('dashboard')
    .description('open the page that shows and steers guests')
    .option('--demo', 'with three embedded guests, whether a daemon runs or not')
    .option('--policy', 'with the same guests under a memory policy: its page shows what it decides, and why')
    .option('--port <number>', 'port on 127.0.0.1; any when 0', portOf, 0)
    .option('--no-open', 'only print the address')
    .addHelpText('after', EXAMPLES)
    .action((choice: DashboardChoice) => runDashboard(context, choice));
  return withGuestOptions(command);
}

function portOf(text: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) < 65_536) return Number(text);
  throw new InvalidArgumentError('It must be a port, 0 to 65535.');
}

async function runDashboard(context: CliContext, choice: DashboardChoice): Promise<void> {
  if (choice.demo || choice.policy) return demonstrate(context, choice);
  const found = foundSockets(context, choice);
  const { qmp, qmpDir, libvirt } = choice;
  const configured = await configuredGuests(context, choice);
  if ([qmp, qmpDir, libvirt, configured].some(source => source !== undefined) || found.length > 0) {
    const shown = {
      subject: subjectOf({ ...choice, config: configured?.path }, found),
      tokens: readTokens(choice.tokenFile, context.env),
    };
    return withGuests(context, choice, control => show(context, choice, control, shown), { served: true });
  }
  const control = connect(context, choice, { pastEvents: true });
  const named = choice.api !== undefined || context.env.AEROSTAT_API !== undefined;
  if (!(await isThere(control, named))) return demonstrate(context, choice);
  const subject = `the daemon at ${placeOf(resolveAddress(choice.api, context.env))}`;
  await show(context, choice, control, { subject, tokens: [] });
}

function subjectOf(
  {
    qmp,
    qmpDir,
    libvirt,
    config,
  }: Pick<DashboardChoice, 'qmp' | 'qmpDir' | 'libvirt'> & { config: string | undefined },
  found: readonly string[],
): string {
  if (libvirt !== undefined) return `the domains of ${libvirt}`;
  if (qmpDir !== undefined) return `the QEMUs with monitors in ${qmpDir}`;
  if (config !== undefined) return `the guests of ${config}`;
  return qmp !== undefined ? "guests of QEMU's" : `the daemons at ${found.join(', ')}`;
}

/** Without http://: a terminal makes a link of that, and it is not the one to open. */
const placeOf = (address: ApiAddress): string => formatAddress(address).replace(/^http:\/\//, '');

/** Whether the daemon answers. A daemon that was named and does not is a failure, not a wish for a demonstration. */
async function isThere(control: Control, named: boolean): Promise<boolean> {
  try {
    await control.daemon();
    return true;
  } catch (error) {
    if (named || !(error instanceof UnreachableError)) throw error;
    return false;
  }
}

async function demonstrate(context: CliContext, choice: DashboardChoice): Promise<void> {
  const [{ DEVICE_NAMES, LIVING_GUEST_BYTES, LIVING_GUEST_NAMES, LivingGuests }, { startGuestProcess }] =
    await Promise.all([import('../../demo/living-guests.ts'), import('../processes.ts')]);
  await inScratch('dashboard', async directory => {
    const daemon = await context.startDaemon({
      guests: guestOptions({
        socketPath: DEVICE_NAMES.map(name => join(directory, name)),
        name: [...DEVICE_NAMES],
        target: 0,
        discard: 'auto',
        pollInterval: DEMO_POLL_MS,
      }),
      log: () => {},
    });
    try {
      const steered = choice.policy === true;
      const guests = await LivingGuests.boot(directory, daemon, startGuestProcess, { kept: !steered }).catch(
        error => {
          // A terminal interrupts the guests as well, of which one that was booting does not come up.
          context.interrupt.throwIfAborted();
          throw error;
        },
      );
      try {
        context.interrupt.throwIfAborted();
        const shown = {
          subject: `three guests that live (${LIVING_GUEST_NAMES.join(', ')})${steered ? ' under a memory policy' : ''}`,
          tokens: readTokens(choice.tokenFile, context.env),
          ...(steered ? { page: '/policy' } : {}),
        };
        if (steered) {
          const { withDemoPolicy } = await import('../policy-demo.ts');
          await withDemoPolicy(guests.control, LIVING_GUEST_BYTES, control =>
            show(context, choice, control, shown),
          );
        } else {
          await show(context, choice, guests.control, shown);
        }
      } finally {
        await guests.close();
      }
    } finally {
      await daemon.close();
    }
  });
}

interface Shown {
  /** Where the page opens, if not at all guests. */
  readonly page?: string;
  /** What the page shows, in the middle of a sentence. */
  readonly subject: string;
  /** Under which it is served; a new one when there are none. */
  readonly tokens: readonly Token[];
}

async function show(
  context: CliContext,
  { port, open, json }: DashboardChoice,
  control: Control,
  { subject, tokens: given, page }: Shown,
): Promise<void> {
  const { serveApi } = await import('../../server/listen.ts');
  const tokens = given.length > 0 ? given : fullToken(randomBytes(24).toString('base64url'));
  const server = await serveApi(control, {
    address: { kind: 'tcp', host: '127.0.0.1', port },
    tokens,
    chosenBy: '--port',
    version: readVersion(),
  });
  try {
    const address = `${formatAddress(server.address)}/#token=${encodeURIComponent(tokens[0].secret)}${page === undefined ? '' : `&page=${page}`}`;
    const { stdout, stderr, env } = context;
    printLine(stderr, `The page of ${subject}. Open this in a browser; Ctrl-C ends it.`);
    if (json) printJson(stdout, { url: address });
    else printLine(stdout, address);
    if (open && openBrowser(env, address)) printLine(stderr, styleOf(stderr, env).dim('Opening it.'));
    await interrupted(context.interrupt);
  } finally {
    await server.close();
  }
}

/** Hands the address to the desktop, where there is one. It is not waited for, and may fail. */
function openBrowser(env: CliContext['env'], address: string): boolean {
  if (!env.DISPLAY && !env.WAYLAND_DISPLAY) return false;
  const child = spawn('xdg-open', [address], { stdio: 'ignore', detached: true });
  child.once('error', () => {});
  child.unref();
  return true;
}
