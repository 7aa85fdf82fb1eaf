/** `aerostat migrate`: moves a running guest. QEMU moves its own; here it is told to, watched, and summed up. */
import { Command, Option } from 'commander';
import { CombinedControl } from '../../daemon/combined-control.ts';
import { type GuestControl, GuestStateError } from '../../daemon/control.ts';
import type { QemuControl } from '../../daemon/qemu-control.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { type GuestsChoice, guestName, withGuestOptions, withGuests } from '../guests.ts';
import {
  describeReport,
  describeState,
  type MigrationState,
  qemuMigrationReport,
  qemuMigrationState,
} from '../migration-report.ts';
import { durationOption, value } from '../options.ts';
import { migrationBar } from '../progress.ts';
import { parseRate } from '../rate.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat migrate web tcp:host2:4444 --qmp web=/run/qemu/web.qmp
  aerostat migrate web tcp:host2:4444 --config guests.json --bandwidth 10gbit
  aerostat migrate web --status --config guests.json

The destination is a QEMU of the same machine that was started with -incoming tcp:HOST:4444. It skips what the guest
does not use if both have -device virtio-balloon-pci,free-page-hint=on,iothread=ID. The source stays, empty, until it
is told to quit. Ctrl-C calls the guest back.`;

interface MigrateChoice extends GuestsChoice {
  readonly bandwidth?: number;
  readonly downtimeLimit?: number;
  readonly connections: number;
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
    .addOption(durationOption('--downtime-limit <duration>', 'how long the guest may stand still'))
    .addOption(
      new Option('--connections <number>', 'connections to send over')
        .argParser(value(parseConnections))
        .default(1),
    )
    .addOption(new Option('--status', 'how far it is').conflicts('cancel'))
    .option('--cancel', 'give it up; the guest goes on where it is')
    .addHelpText('after', EXAMPLES)
    .action((first: string | undefined, second: string | undefined, choice: MigrateChoice) => {
      const [named, to] = wordsOf(first, second, choice);
      return withGuests(context, choice, async control => {
        const name = await guestName(control, named);
        const { qemu, nameThere } = await moverOf(control, name);
        if (choice.status) return showState(context, choice, name, await qemu.migration(nameThere));
        if (choice.cancel) return qemu.cancelMigration(nameThere);
        await move(context, choice, { name, nameThere, qemu, to: to ?? '' });
      });
    });
  return withGuestOptions(command);
}

/** What QEMU bounds multifd channels to: the number is a byte. */
const CONNECTIONS_MAX = 255;

function parseConnections(text: string): number {
  const connections = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (connections >= 1 && connections <= CONNECTIONS_MAX) return connections;
  throw new UsageError(`${text} is not a number of connections; there may be 1 to ${CONNECTIONS_MAX}`);
}

/** A single word is where to, or the guest where nothing is moved. */
function wordsOf(
  first: string | undefined,
  second: string | undefined,
  { status, cancel }: MigrateChoice,
): [name: string | undefined, to: string | undefined] {
  if (status || cancel) {
    if (second === undefined) return [first, undefined];
    throw new UsageError(
      '--status and --cancel are of the migration that is under way; leave its destination out',
    );
  }
  const [name, to] = second === undefined ? [undefined, first] : [first, second];
  if (to === undefined) throw new UsageError('where to? Give a destination, for example tcp:HOST:PORT');
  if (!/^(tcp|unix|exec|fd):/.test(to)) {
    throw new UsageError(`${to} is no destination; write tcp:HOST:PORT or unix:PATH`);
  }
  return [name, to];
}

async function moverOf(
  control: GuestControl,
  name: string,
): Promise<{ qemu: QemuControl; nameThere: string }> {
  const { QemuControl } = await import('../../daemon/qemu-control.ts');
  const home = control instanceof CombinedControl ? control.homeOf(name) : { control, nameThere: name };
  if (home.control instanceof QemuControl) return { qemu: home.control, nameThere: home.nameThere };
  throw new GuestStateError(
    `${name} is not a guest of QEMU's; who runs it moves it, not its balloon's daemon (give --qmp or --config)`,
  );
}

interface Move {
  readonly name: string;
  readonly nameThere: string;
  readonly qemu: QemuControl;
  readonly to: string;
}

async function move(context: CliContext, choice: MigrateChoice, { name, nameThere, qemu, to }: Move) {
  const { interrupt, stdout } = context;
  const bar = await migrationBar(context, name);
  try {
    const summary = await qemu.migrate(nameThere, {
      uri: to,
      connections: choice.connections,
      signal: interrupt,
      onProgress: progress => bar.update(qemuMigrationState(progress)),
      ...(choice.bandwidth === undefined ? {} : { bandwidthBytesPerSecond: choice.bandwidth }),
      ...(choice.downtimeLimit === undefined ? {} : { downtimeMsMax: choice.downtimeLimit }),
    });
    bar.stop();
    const report = qemuMigrationReport(summary);
    if (choice.json) printJson(stdout, { guest: name, to, summary: report });
    else printLine(stdout, describeReport(name, to, report));
  } catch (error) {
    interrupt.throwIfAborted();
    throw error;
  } finally {
    bar.stop();
  }
}

function showState(
  { stdout }: CliContext,
  { json }: MigrateChoice,
  name: string,
  progress: Parameters<typeof qemuMigrationState>[0] | null,
): void {
  const state: MigrationState | null = progress === null ? null : qemuMigrationState(progress);
  if (json) printJson(stdout, { guest: name, migration: state });
  else printLine(stdout, state === null ? `${name}: never migrated` : describeState(name, state));
}
