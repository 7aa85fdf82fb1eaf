/** `aerostat fleet dashboard`: hosts and guests of a fleet in a browser, from anywhere with a way to its servers of NATS. */
import { Command } from 'commander';
import { UnknownGuestError } from '../../control/errors.ts';
import { hostedControl } from '../../control/hosted-control.ts';
import type { GuestSource } from '../../control/operations.ts';
import { readTokens } from '../../server/token.ts';
import { readVersion } from '../../sys/version.ts';
import type { CliContext } from '../context.ts';
import { type FleetChoice, withFleet } from '../fleet-options.ts';
import { withFleetWatch } from '../fleet-watch.ts';
import { type PageChoice, showPage, withPage } from '../shown-page.ts';

const EXAMPLES = `
Examples:
  aerostat fleet dashboard --nats nats://nats1:4222
  aerostat fleet dashboard --config aerostat.toml --port 8080 --no-open

It listens on 127.0.0.1 and prints an address that holds its token, a new one each time unless --token-file or
AEROSTAT_TOKEN gives one. The page only shows; drain and move are commands. Ctrl-C ends it.`;

interface FleetDashboardChoice extends FleetChoice, PageChoice {
  readonly tokenFile?: string;
}

export function fleetDashboardCommand(context: CliContext): Command {
  const command = new Command('dashboard')
    .description('open the page that shows hosts and guests of the fleet')
    .option('--token-file <path>', 'file with the tokens of the page')
    .addHelpText('after', EXAMPLES)
    .action((choice: FleetDashboardChoice) => runFleetDashboard(context, choice));
  return withFleet(withPage(command));
}

async function runFleetDashboard(context: CliContext, choice: FleetDashboardChoice): Promise<void> {
  await withFleetWatch(context, choice, async watch => {
    // An address that is wrong is an error of the command; a fleet that is silent later is shown so.
    await watch.reach();
    const control = {
      ...hostedControl(noGuests, readVersion()),
      fleet: (question = {}) => watch.picture(question),
    };
    await showPage(context, choice, control, {
      subject: 'the fleet',
      tokens: readTokens(choice.tokenFile, context.env),
      page: '/fleet',
    });
  });
}

/** The guests of a fleet are with its hosts. */
const unknown = async (name: string): Promise<never> => {
  throw new UnknownGuestError(name, []);
};
const noGuests: GuestSource = {
  guests: async () => [],
  samples: async () => ({}),
  renewLeases: async () => ({ renewed: 0 }),
  guest: unknown,
  change: unknown,
  statistics: unknown,
  subscribe: () => () => {},
};
