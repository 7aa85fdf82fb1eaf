/** `aerostat restore`: runs the machine that a snapshot's file holds, and hosts it. */
import { Command } from 'commander';
import type { OpenSnapshot } from '../../snapshot/restore.ts';
import { type CliContext, printLine } from '../context.ts';
import { checkNames } from '../guest-options.ts';
import { type MachineChoice, serveMachine, tlsOf, withTls } from '../machine.ts';
import { memoryMaxOption, withApi, withLog } from '../options.ts';
import { shareBar } from '../progress.ts';
import { openLog } from '../serve.ts';
import { formatSize } from '../size.ts';

const EXAMPLES = `
Examples:
  aerostat restore monday.aero
  aerostat restore monday.aero --name copy --api ./copy.sock
  aerostat restore monday.aero --memory-max 4G

The machine goes on where it was when the snapshot was taken, with its balloon as it was; its API and its console are
here, as those of aerostat vm. The file is read only, and may be restored as often as you like. A file that is damaged,
cut short or of another program is refused, and no machine runs then.`;

interface RestoreChoice extends MachineChoice {
  readonly name?: string;
  readonly memoryMax: number;
}

export function restoreCommand(context: CliContext): Command {
  const command = new Command('restore')
    .description('run the machine that aerostat snapshot wrote into a file')
    .argument('<file>')
    .option('--name <name>', 'what it is called here (default: as it was called)')
    .addOption(memoryMaxOption())
    .option('--json', "print JSON: a line for each of the console's answers and events")
    .addHelpText('after', EXAMPLES)
    .action((file: string, choice: RestoreChoice) => restore(context, file, choice));
  return withTls(withLog(withApi(command), 'warn'));
}

async function restore(context: CliContext, file: string, choice: RestoreChoice): Promise<void> {
  if (choice.name !== undefined) checkNames([choice.name]);
  const tls = await tlsOf(choice);
  const [log, { OpenSnapshot, restoreSnapshot }, { IncomingVm }, { systemClock }] = await Promise.all([
    openLog(context, choice),
    import('../../snapshot/restore.ts'),
    import('../../vm/incoming-vm.ts'),
    import('../../transfer/clock.ts'),
  ]);
  const snapshot = await OpenSnapshot.open(file);
  try {
    const { header, size } = snapshot;
    announce(context, choice, snapshot);
    const place = await IncomingVm.open({ name: choice.name ?? header.name, log });
    try {
      const bar = await shareBar(context);
      await restoreSnapshot(header, snapshot, {
        path: file,
        machine: place,
        ramOf: () => place.ram,
        memoryBytesMax: choice.memoryMax,
        clock: systemClock,
        signal: context.interrupt,
        onRead: bytes => bar?.update(bytes, size, `${formatSize(bytes)} of ${formatSize(size)}`),
      }).finally(() => bar?.stop());
      await snapshot.close();
      await serveMachine(context, choice, { vm: place.vm, tls, log });
    } finally {
      await place.close();
    }
  } finally {
    await snapshot.close();
  }
}

function announce(
  { stdout, stderr }: CliContext,
  { json }: RestoreChoice,
  { header, size }: OpenSnapshot,
): void {
  const { name, createdMs } = header;
  const taken = new Date(createdMs).toISOString();
  if (json === true) printLine(stdout, JSON.stringify({ event: 'restoring', name, taken, bytes: size }));
  else printLine(stderr, `${name} as it was at ${taken}, ${formatSize(size)}.`);
}
