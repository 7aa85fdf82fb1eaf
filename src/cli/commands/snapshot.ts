/** `aerostat snapshot`: writes a running machine of `aerostat vm` into a file; it runs on. */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { defined } from '../../sys/defined.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { type GuestsChoice, guestName, withGuestOptions, withGuests } from '../guests.ts';
import { describeSnapshot } from '../migration-report.ts';
import { downtimeOption, value } from '../options.ts';
import { migrationBar } from '../progress.ts';
import { parseRate } from '../rate.ts';
import { UsageError } from '../usage.ts';
import { followMove } from './migrate.ts';

const EXAMPLES = `
Examples:
  aerostat snapshot vm /srv/snapshots/monday.aero
  aerostat snapshot vm monday.aero --compress --bandwidth 200M
  aerostat snapshot monday.aero --api /run/user/1000/vm.sock --json
  aerostat restore monday.aero

The machine runs on while its memory is written, and stands still for a moment at the end. What its guest does not use is
left out. The file has its name when all of it is on the disk: until then, and when it fails, is called off (Ctrl-C) or
the machine is killed, a file that had the name stays as it was.`;

interface SnapshotChoice extends GuestsChoice {
  readonly compress?: boolean;
  readonly bandwidth?: number;
  readonly downtimeLimit?: number;
}

export function snapshotCommand(context: CliContext): Command {
  const command = new Command('snapshot')
    .description('write a running machine into a file, from which restore runs it again')
    .argument('[vm]', 'may be left out where there is only one')
    .argument('[file]', 'where to')
    .option('--compress', 'compress its pages with zstd; needs libzstd or Node 22.15 here and at the restore')
    .addOption(
      new Option('--bandwidth <rate>', 'write no faster than this, for example 200M').argParser(
        value(parseRate),
      ),
    )
    .addOption(downtimeOption())
    .addHelpText('after', EXAMPLES)
    .action((first: string | undefined, second: string | undefined, choice: SnapshotChoice) => {
      const [named, file] = second === undefined ? [undefined, first] : [first, second];
      if (file === undefined) throw new UsageError('where to? Give the file that is to be written');
      return withGuests(context, choice, async control => {
        const name = await guestName(control, named);
        const path = resolve(file);
        const { compress, bandwidth, downtimeLimit } = choice;
        const bar = await migrationBar(context, name);
        try {
          const report = await followMove(context, control, name, {
            order: {
              to: `file:${path}`,
              ...defined({ compress, bandwidthBytesPerSecond: bandwidth, downtimeMsMax: downtimeLimit }),
            },
            update: bar.update,
          });
          bar.stop();
          if (choice.json) printJson(context.stdout, { guest: name, file: path, summary: report });
          else printLine(context.stdout, describeSnapshot(name, path, report));
        } finally {
          bar.stop();
        }
      });
    });
  return withGuestOptions(command);
}
