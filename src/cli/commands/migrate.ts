/** `aerostat migrate`: moves a running guest: an Aerostat machine, or QEMU's, which QEMU moves while the command watches. */
import { Command, Option } from 'commander';
import type {
  MigrationOrder,
  MigrationReport,
  MigrationState,
  MigrationStatus,
} from '../../control/migrations.ts';
import type { GuestControl } from '../../control/operations.ts';
import {
  CONNECTIONS_DEFAULT,
  CONNECTIONS_MAX,
  DOWNTIME_MS_DEFAULT,
  ROUNDS_DEFAULT,
  ROUNDS_MAX,
} from '../../migration/limits.ts';
import { defined } from '../../sys/defined.ts';
import { AerostatError, type ErrorCode } from '../../sys/error.ts';
import { type CliContext, printJson, printLine, sleep } from '../context.ts';
import { type GuestsChoice, guestName, withGuestOptions, withGuests } from '../guests.ts';
import { adviceOf, describeReport, describeState } from '../migration-report.ts';
import { downtimeOption, value } from '../options.ts';
import { type MigrationBar, migrationBar } from '../progress.ts';
import { parseRate } from '../rate.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat migrate vm tcp:host2:4444                   a machine of aerostat vm
  aerostat migrate vm tcp:host2:4444 --bandwidth 10gbit --connections 4 --downtime-limit 50ms
  aerostat migrate vm tcp:host2:4444 --postcopy        it runs there at once, and its memory follows
  aerostat migrate vm tcp:host2:4444 --postcopy 2      the same after two rounds
  aerostat migrate vm --status
  aerostat migrate vm --recover                        reach the destination again that it runs at and waits for pages
  aerostat migrate web tcp:host2:4444 --qmp web=/run/qemu/web.qmp
  aerostat migrate web tcp:host2:4444 --config aerostat.toml --bandwidth 10gbit
  aerostat migrate web --status --config aerostat.toml
  aerostat migrate web qemu+ssh://host2/system --libvirt qemu:///system    a domain of libvirt, moved by libvirt

The destination of an Aerostat machine is aerostat receive. That of a QEMU guest is a QEMU of the same machine that was
started with -incoming tcp:HOST:4444. QEMU skips what the guest does not use if both have
-device virtio-balloon-pci,free-page-hint=on,iothread=ID. The source stays, empty, until it is told to quit. Ctrl-C
calls the guest back.

That of a domain of libvirt is the other libvirt, by the URI at which the libvirtd of the source reaches it. The domain is
not defined there unless --persist says so. A command that ends in the middle ends no migration of libvirt's: --cancel does.

--postcopy is for a guest that writes faster than can be sent, or whose host has to be empty soon: it stands still for some
milliseconds whatever it writes, and then for as long as each page takes that it touches and has not got. From the moment
it runs there until all has come, it needs both hosts: if either dies, the guest is lost, and it cannot be called back. A
connection that breaks only makes it wait; it is made again by itself. A first signal does not end the source before all
has come, a second one does. Where the guest must not be lost, do without.`;

/** Between two looks at a migration. */
const POLL_MS = 100;

interface MigrateChoice extends GuestsChoice {
  readonly bandwidth?: number;
  readonly downtimeLimit?: number;
  readonly connections: number;
  readonly maxRounds?: number;
  readonly autoConverge?: boolean;
  readonly channel?: string;
  readonly compress?: boolean;
  readonly postcopy?: number;
  readonly recover?: boolean;
  readonly persist?: boolean;
  readonly status?: boolean;
  readonly cancel?: boolean;
}

export function migrateCommand(context: CliContext): Command {
  const command = new Command('migrate')
    .description('move a running guest to another host')
    .argument('[guest]', 'may be left out where there is only one')
    .argument('[to]', 'where the destination waits, for example tcp:HOST:PORT')
    .addOption(
      new Option('--bandwidth <rate>', 'no faster than this, for example 10gbit').argParser(value(parseRate)),
    )
    .addOption(
      downtimeOption('; with a limit that you give, a stop that takes longer is called off and tried again'),
    )
    .addOption(
      new Option('--connections <number>', 'connections to send over')
        .argParser(value(parseConnections))
        .default(CONNECTIONS_DEFAULT),
    )
    .addOption(
      new Option(
        '--max-rounds <number>',
        `stop a guest on our device after so many rounds, whatever is left to send; without it a migration is given up after ${ROUNDS_DEFAULT} if --downtime-limit cannot be kept`,
      ).argParser(value(parseCount)),
    )
    .option(
      '--auto-converge',
      'slow a guest on our device down when it writes faster than can be sent (the default)',
    )
    .option('--no-auto-converge', 'leave it its time, and send it over and over')
    .option(
      '--channel <name>',
      'how the guest names free pages: auto, none, hint, reporting, hinting, unused-bitmap, order, range, chunks',
    )
    .option(
      '--compress',
      'compress pages with zstd, for slow networks; both sides need libzstd or Node 22.15',
    )
    .addOption(
      new Option(
        '--postcopy [rounds]',
        'run a guest on our device there at once (now), or after so many rounds, and send it the rest then; both hosts have to live until all has come',
      )
        .argParser(value(parseAfter))
        .preset('now'),
    )
    .addOption(
      new Option('--recover', 'reach the destination again that a guest waits at for pages').conflicts([
        'status',
        'cancel',
      ]),
    )
    .option(
      '--persist',
      'a domain of libvirt: its definition goes along, persistent there and not here any more',
    )
    .addOption(new Option('--status', 'how far it is').conflicts('cancel'))
    .option('--cancel', 'give it up; the guest goes on where it is')
    .addHelpText('after', EXAMPLES)
    .action((first: string | undefined, second: string | undefined, choice: MigrateChoice) => {
      const [named, to] = wordsOf(first, second, choice);
      return withGuests(context, choice, async control => {
        const name = await guestName(control, named);
        if (choice.status)
          return showStatus(context, choice, name, (await control.migration(name)).migration);
        if (choice.cancel) return void (await control.cancelMigration(name));
        const destination = choice.recover ? await destinationOf(control, name) : (to ?? '');
        await move(context, choice, control, { name, to: destination });
      });
    });
  return withGuestOptions(command);
}

function parseConnections(text: string): number {
  const connections = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (connections >= 1 && connections <= CONNECTIONS_MAX) return connections;
  throw new UsageError(`${text} is not a number of connections; there may be 1 to ${CONNECTIONS_MAX}`);
}

/** `now`, `2`, or `after 2` in one word or two. */
function parseAfter(text: string): number {
  if (text === 'now') return 0;
  const [, rounds] = /^(?:after[ =:]?)?(\d{1,5})$/.exec(text) ?? [];
  if (rounds !== undefined && Number(rounds) <= ROUNDS_MAX) return Number(rounds);
  throw new UsageError(`${text} is neither now nor a number of rounds; write --postcopy, or --postcopy 2`);
}

/** Of the migration that is under way. */
async function destinationOf(control: GuestControl, name: string): Promise<string> {
  const { migration } = await control.migration(name);
  if (migration?.to != null) return migration.to;
  throw new UsageError(`${name} is not on its way from here; --recover is for the source of its migration`);
}

function parseCount(text: string): number {
  const rounds = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (rounds >= 1 && rounds <= ROUNDS_MAX) return rounds;
  throw new UsageError(`${text} is not a number of rounds; there may be 1 to ${ROUNDS_MAX}`);
}

/** A single word is where to, or the guest where nothing is moved. */
function wordsOf(
  first: string | undefined,
  second: string | undefined,
  { status, cancel, recover }: MigrateChoice,
): [name: string | undefined, to: string | undefined] {
  if (status || cancel || recover) {
    if (second === undefined) return [first, undefined];
    throw new UsageError(
      '--status, --cancel and --recover are of the migration that is under way; leave its destination out',
    );
  }
  const [name, to] = second === undefined ? [undefined, first] : [first, second];
  if (to === undefined) throw new UsageError('where to? Give a destination, for example tcp:HOST:PORT');
  if (!/^(?:(?:tcp|unix|exec|fd):|[a-z][a-z0-9+]*:\/\/)/i.test(to)) {
    throw new UsageError(
      `${to} is no destination; write tcp:HOST:PORT, unix:PATH, or qemu+ssh://HOST/system for a domain of libvirt`,
    );
  }
  return [name, to];
}

interface Move {
  readonly name: string;
  readonly to: string;
}

/** The guest moves by itself from here on; the command follows it. */
async function move(
  context: CliContext,
  choice: MigrateChoice,
  control: GuestControl,
  { name, to }: Move,
): Promise<void> {
  const { stdout } = context;
  const bar = await migrationBar(context, name);
  try {
    const order = orderOf(choice, to);
    const report = await followMove(context, control, name, {
      order,
      update: follower({ name, to }, choice, bar),
    });
    bar.stop();
    if (choice.json) printJson(stdout, { guest: name, to, summary: report });
    else printLine(stdout, describeReport(name, to, report));
  } finally {
    bar.stop();
  }
}

interface Followed {
  readonly order: MigrationOrder;
  readonly update: (state: MigrationState) => void;
}

/**
 * Orders a migration and watches it to its end; an interrupt calls it off.
 * @throws AerostatError with the code with which it failed
 */
export async function followMove(
  context: CliContext,
  control: GuestControl,
  name: string,
  { order, update }: Followed,
): Promise<MigrationReport> {
  await control.migrate(name, order);
  const status = await followed(context, control, name, update).catch(async error => {
    // Heard before this ends, and also when the order was on its way at the interrupt.
    if (!context.interrupt.aborted) throw error;
    const cancelled = await control.cancelMigration(name).catch(() => null);
    // Who calls it off has to know where it may run.
    const why = cancelled?.migration?.error;
    if (why?.code === 'AEROSTAT_LIBVIRT_MIGRATION_UNKNOWN') throw new AerostatError(why.code, why.message);
    throw error;
  });
  const { report, error } = status;
  if (error !== null) throw new AerostatError(error.code as ErrorCode, error.message);
  if (report === null) throw new AerostatError('AEROSTAT_MIGRATION_LOST', LOST);
  return report;
}

function showStatus(
  { stdout }: CliContext,
  { json }: MigrateChoice,
  name: string,
  status: MigrationStatus | null,
): void {
  if (json) printJson(stdout, { guest: name, migration: status });
  else printLine(stdout, status === null ? `${name}: never migrated` : describeStatus(name, status));
}

const LOST = 'the machine is gone, and did not say whether it arrived; look at its destination';

/** Draws the bar, and says what would help as soon as it shows that it takes long: once, and once more when that changes. */
function follower(
  { name, to }: Move,
  choice: MigrateChoice,
  bar: MigrationBar,
): (state: MigrationState) => void {
  const downtimeMsMax = choice.downtimeLimit ?? DOWNTIME_MS_DEFAULT;
  // libvirt sends a guest for as long as it takes.
  const roundsMax = to.includes('://') ? null : (choice.maxRounds ?? ROUNDS_DEFAULT);
  const limits = { downtimeMsMax, roundsMax };
  let said = '';
  return state => {
    if (state.status === 'unknown') {
      if (said !== 'unknown') bar.say(`libvirt does not answer: whether ${name} still moves is not known`);
      said = 'unknown';
      return;
    }
    const kind = state.guestShare !== null && state.guestShare < 1 ? 'slowed' : 'late';
    const advice = said === kind ? undefined : adviceOf(name, state, limits);
    // Before it is slowed down, it is not known yet that it has to be.
    const early = kind === 'late' && choice.autoConverge !== false;
    if (advice !== undefined && !early) {
      bar.say(advice);
      said = kind;
    }
    bar.update(state);
  };
}

/** Until it is over. */
async function followed(
  context: CliContext,
  control: GuestControl,
  name: string,
  update: (state: MigrationState) => void,
): Promise<MigrationStatus> {
  for (;;) {
    const { migration: status } = await control.migration(name);
    if (status === null) throw new AerostatError('AEROSTAT_MIGRATION_LOST', LOST);
    if (status.report !== null || status.error !== null) return status;
    update(status.state);
    await sleep(POLL_MS, context.interrupt);
  }
}

function orderOf(choice: MigrateChoice, to: string): MigrationOrder {
  const { connections, bandwidth, downtimeLimit, maxRounds, autoConverge, channel, compress } = choice;
  const { postcopy: postcopyAfterRound, recover, persist } = choice;
  return {
    to,
    connections,
    ...defined({
      bandwidthBytesPerSecond: bandwidth,
      downtimeMsMax: downtimeLimit,
      roundsMax: maxRounds,
      autoConverge,
      channel,
      compress,
      postcopyAfterRound,
      recover,
      persist,
    }),
  };
}

function describeStatus(name: string, { to, state, report, error }: MigrationStatus): string {
  if (report !== null) return describeReport(name, to ?? 'elsewhere', report);
  const said = describeState(name, state);
  return error === null ? said : `${said}: ${error.message}`;
}
