/**
 * `aerostat dashboard`: the page in a browser, for a daemon that runs, or for three guests that live only to be looked
 * at.
 */
import { join } from 'node:path';
import { Command } from 'commander';
import type { Control } from '../../control/operations.ts';
import { type ApiAddress, formatAddress, resolveAddress } from '../../server/address.ts';
import { UnreachableError } from '../../server/client.ts';
import { readTokens } from '../../server/token.ts';
import type { CliContext } from '../context.ts';
import { foundSockets } from '../daemons.ts';
import type { FleetChoice } from '../fleet-options.ts';
import { guestOptions } from '../guest-options.ts';
import { configuredGuests, type GuestsChoice, withGuestOptions, withGuests } from '../guests.ts';
import { connect } from '../options.ts';
import { inScratch } from '../scratch.ts';
import { type PageChoice, showPage, withPage } from '../shown-page.ts';

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
                                       at the same address and under the same token every time; with [fleet] in the
                                       file, its hosts and guests are at Fleet

It listens on 127.0.0.1 and prints an address that holds its token: anyone who has the address can steer the guests.
The token is a new one each time, unless the dashboard serves the guests itself (--config, --qmp, --qmp-dir,
--libvirt, --demo) and --token-file or AEROSTAT_TOKEN gives one. Ctrl-C ends it.`;

interface DashboardChoice extends GuestsChoice, PageChoice {
  readonly demo?: boolean;
  readonly policy?: boolean;
}

const DEMO_POLL_MS = 1000;

/** The fleet of a configuration is shown beside its guests; one that does not answer stands in no guest's way. */
async function withFleetOf(
  context: CliContext,
  choice: FleetChoice,
  control: Control,
  body: (control: Control) => Promise<void>,
): Promise<void> {
  const { withFleetWatch } = await import('../fleet-watch.ts');
  await withFleetWatch(context, choice, watch =>
    body({ ...control, fleet: question => watch.picture(question) }),
  );
}

export function dashboardCommand(context: CliContext): Command {
  const command = new Command('dashboard')
    .description('open the page that shows and steers guests')
    .option('--demo', 'with three embedded guests, whether a daemon runs or not')
    .option('--policy', 'with the same guests under a memory policy: its page shows what it decides, and why')
    .addHelpText('after', EXAMPLES)
    .action((choice: DashboardChoice) => runDashboard(context, choice));
  return withGuestOptions(withPage(command));
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
    const show = (control: Control) => showPage(context, choice, control, shown);
    return withGuests(
      context,
      choice,
      control =>
        configured?.fleet.servers === undefined
          ? show(control)
          : withFleetOf(context, { config: configured.path }, control, show),
      { served: true },
    );
  }
  const control = connect(context, choice, { pastEvents: true });
  const named = choice.api !== undefined || context.env.AEROSTAT_API !== undefined;
  if (!(await isThere(control, named))) return demonstrate(context, choice);
  const subject = `the daemon at ${placeOf(resolveAddress(choice.api, context.env))}`;
  await showPage(context, choice, control, { subject, tokens: [] });
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
            showPage(context, choice, control, shown),
          );
        } else {
          await showPage(context, choice, guests.control, shown);
        }
      } finally {
        await guests.close();
      }
    } finally {
      await daemon.close();
    }
  });
}
