/** `aerostat run`: a whole machine to try things on: a guest, the daemon that serves it, and a console. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { DISCARD_MODES, type DiscardMode } from '../../daemon/control.ts';
import type { UmlGuest } from '../../peers/uml/guest.ts';
import { formatAddress } from '../../server/address.ts';
import { AerostatError } from '../../sys/error.ts';
import { type CliContext, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { guestOptions } from '../guest-options.ts';
import { list, sizeOption, withApi, withLog } from '../options.ts';
import { type ServeChoice, withDaemon } from '../serve.ts';
import { formatSize } from '../size.ts';
import { styleOf } from '../style.ts';

const EXAMPLES = `
Examples:
  aerostat run --guest linux --memory 2G
  aerostat set linux --balloon 1G --wait      in another terminal
  aerostat watch linux                        in a third

The console is a root shell in the guest. It ends with exit, Ctrl-D or poweroff, and all of it is gone then.`;

interface RunChoice extends ServeChoice {
  readonly guest: 'linux';
  readonly memory: number;
  readonly target: number;
  readonly discard: DiscardMode;
  readonly without?: readonly string[];
}

export function runCommand(context: CliContext): Command {
  const command = new Command('run')
    .description('boot a guest on a daemon of its own, with a console')
    .addOption(
      new Option('--guest <kind>', 'linux: a real kernel, as a process (User Mode Linux)')
        .choices(['linux'])
        .default('linux'),
    )
    .addOption(sizeOption('--memory <size>', 'memory of the guest').default(2 ** 30, '1G'))
    .addOption(sizeOption('--target <size>', 'what its balloon should hold at first').default(0, '0'))
    .addOption(
      new Option('--discard <mode>', 'when its pages go back to the host')
        .choices(DISCARD_MODES)
        .default('auto'),
    )
    .option('--without <features>', 'features not to offer, for example reporting,hint', list)
    .addHelpText('after', EXAMPLES)
    .action((choice: RunChoice) => runGuest(context, choice));
  return withLog(withApi(command), 'warn');
}

async function runGuest(context: CliContext, choice: RunChoice): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'aerostat-run-'));
  try {
    const socketPath = join(directory, choice.guest);
    const guests = guestOptions({ ...choice, socketPath: [socketPath], pollInterval: 0 });
    await withDaemon(context, choice, guests, async ({ address }) => {
      const guest = await boot(context, choice, socketPath);
      try {
        const api = choice.api === undefined ? '' : ` --api ${formatAddress(address)}`;
        const half = formatSize(choice.memory / 2);
        const style = styleOf(context.stderr, context.env);
        printLine(
          context.stderr,
          style.dim(`Steer it from another terminal: aerostat set linux --balloon ${half}${api}`),
        );
        await attach(context, guest);
      } finally {
        await guest.shutdown();
      }
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function boot(context: CliContext, { memory }: RunChoice, socketPath: string): Promise<UmlGuest> {
  const { UmlGuest } = await import('../../peers/uml/guest.ts');
  const start = performance.now();
  const guest = await UmlGuest.boot({
    memoryBytes: memory,
    sockets: [socketPath],
    signal: context.interrupt,
  });
  const elapsed = formatDuration(performance.now() - start);
  printLine(context.stderr, `Linux with ${formatSize(memory)} is up after ${elapsed}.`);
  return guest;
}

/** Until the shell ends, or the guest does; a guest that was switched off from inside is no failure. */
async function attach({ stdin, stdout, interrupt }: CliContext, guest: UmlGuest): Promise<void> {
  try {
    await guest.attachConsole(stdin, stdout);
  } catch (error) {
    interrupt.throwIfAborted();
    const ended = error instanceof AerostatError && error.code === 'AEROSTAT_GUEST_ENDED';
    if (!ended) throw error;
    const { panic, signal } = await guest.exited;
    if (panic !== undefined || signal !== null) throw error;
  }
}
