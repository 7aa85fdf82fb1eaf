/** `aerostat run`: a whole machine to try things on: a guest, the daemon that serves it, and a console. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { DEFAULT_PROFILE, PROFILE_NAMES, type ProfileName } from '../../balloon/profiles.ts';
import { DISCARD_MODES, type DiscardMode } from '../../control/contract.ts';
import { GUEST_KINDS, type GuestKind } from '../../demo/guest-kinds.ts';
import { RING_KINDS, type RingKind } from '../../embedded/options.ts';
import type { UmlGuest } from '../../peers/uml/guest.ts';
import { formatAddress } from '../../server/address.ts';
import { AerostatError } from '../../sys/error.ts';
import { type CliContext, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { guestOptions } from '../guest-options.ts';
import { bootGraceOption, guestMemoryOption, list, sizeOption, withApi, withLog } from '../options.ts';
import { inScratch } from '../scratch.ts';
import { type ServeChoice, withDaemon } from '../serve.ts';
import { formatSize } from '../size.ts';
import { styleOf } from '../style.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat run                                a real kernel where one can run, else our own guest
  aerostat run --guest embedded --memory 2G   our own
  aerostat set embedded --balloon 1G --wait   in another terminal
  aerostat watch embedded                     in a third
  aerostat run --profile page-chunks          with another ABI, which is the embedded guest's alone
  aerostat run --guest linux --memory 2G      a real kernel, or a word why it cannot run

The embedded guest's console takes words ("help" lists them), or JSON with --json; that of Linux is a root shell. It ends
with exit or Ctrl-D, and all of it is gone then.`;

interface RunChoice extends ServeChoice {
  readonly guest?: GuestKind;
  readonly memory: number;
  readonly target: number;
  readonly bootGrace: number;
  readonly discard: DiscardMode;
  readonly without?: readonly string[];
  readonly profile: ProfileName;
  readonly rings: RingKind;
  readonly json?: boolean;
}

export function runCommand(context: CliContext): Command {
  const command = new Command('run')
    .description('boot a guest on a daemon of its own, with a console')
    .addOption(
      new Option(
        '--guest <kind>',
        'embedded: our own; linux: a real kernel, as a process (default: linux where one can run)',
      ).choices(GUEST_KINDS),
    )
    .addOption(guestMemoryOption().default(2 ** 30, '1G'))
    .addOption(sizeOption('--target <size>', 'what its balloon should hold at first').default(0, '0'))
    .addOption(bootGraceOption())
    .addOption(
      new Option('--discard <mode>', 'when its pages go back to the host')
        .choices(DISCARD_MODES)
        .default('auto'),
    )
    .option('--without <features>', 'features not to offer, for example reporting,hint', list)
    .addOption(
      new Option('--profile <name>', 'the ABI that both speak; Linux knows the first one')
        .choices(PROFILE_NAMES)
        .default(DEFAULT_PROFILE),
    )
    .addOption(
      new Option('--rings <kind>', "layout of the embedded guest's virtqueues")
        .choices(RING_KINDS)
        .default('split'),
    )
    .option('--json', "make the embedded guest's console print JSON")
    .addHelpText('after', EXAMPLES)
    .action((choice: RunChoice) => runGuest(context, choice));
  return withLog(withApi(command), 'warn');
}

async function runGuest(context: CliContext, choice: RunChoice): Promise<void> {
  const embeddedOnly = choice.profile !== DEFAULT_PROFILE || choice.rings !== 'split' || choice.json === true;
  if (choice.guest === 'linux' && embeddedOnly) {
    throw new UsageError(
      "--profile, --rings and --json are the embedded guest's; leave them out, or --guest linux",
    );
  }
  const { withFallback } = await import('../../demo/guest-choice.ts');
  const tell = (line: string) => printLine(context.stderr, line);
  await withFallback(embeddedOnly ? 'embedded' : choice.guest, tell, kind => runKind(context, choice, kind));
}

async function runKind(context: CliContext, choice: RunChoice, kind: GuestKind): Promise<void> {
  await inScratch('run', async directory => {
    const socketPath = join(directory, kind);
    const guests = guestOptions({ ...choice, socketPath: [socketPath], pollInterval: 0 });
    await withDaemon(context, choice, guests, async ({ address }) => {
      const api = choice.api === undefined ? '' : ` --api ${formatAddress(address)}`;
      const { invocation = 'aerostat' } = context;
      const words = `${invocation} set ${kind} --balloon ${formatSize(choice.memory / 2)}${api}`;
      const hint = () => {
        const style = styleOf(context.stderr, context.env);
        printLine(context.stderr, style.dim(`Steer it from another terminal: ${words}`));
      };
      await (kind === 'linux' ? runLinux : runEmbedded)(context, choice, socketPath, hint);
    });
  });
}

/** A process of its own, which has our terminal: what is typed and said is the guest's. */
async function runEmbedded(
  { interrupt }: CliContext,
  { memory, profile, rings, json }: RunChoice,
  socketPath: string,
  hint: () => void,
): Promise<void> {
  const [{ guestCommandLine }, { bound }] = await Promise.all([
    import('../processes.ts'),
    import('../../peers/lifeline.ts'),
  ]);
  // It may have come while the daemon was being started.
  interrupt.throwIfAborted();
  const words = ['--profile', profile, '--rings', rings, ...(json === true ? ['--json'] : [])];
  hint();
  const [program, ...args] = guestCommandLine({ socketPath, memoryBytes: memory, words });
  // Without us it would look for its device for ever.
  const child = spawn(...bound(program, args), { stdio: 'inherit' });
  const end = () => child.kill('SIGTERM');
  interrupt.addEventListener('abort', end);
  process.once('exit', end);
  const [code] = await once(child, 'exit');
  process.removeListener('exit', end);
  interrupt.removeEventListener('abort', end);
  interrupt.throwIfAborted();
  // It has said what was wrong.
  if (code !== 0) throw new AerostatError('AEROSTAT_GUEST_ENDED', 'the embedded guest did not end well');
}

async function runLinux(
  context: CliContext,
  choice: RunChoice,
  socketPath: string,
  hint: () => void,
): Promise<void> {
  const guest = await boot(context, choice, socketPath);
  try {
    hint();
    await attach(context, guest);
  } finally {
    await guest.shutdown();
  }
}

async function boot(context: CliContext, { memory }: RunChoice, socketPath: string): Promise<UmlGuest> {
  const [{ UmlGuest }, { booting }] = await Promise.all([
    import('../../peers/uml/guest.ts'),
    import('../../demo/guest-choice.ts'),
  ]);
  const start = performance.now();
  const guest = await booting(
    UmlGuest.boot({ memoryBytes: memory, sockets: [socketPath], signal: context.interrupt }),
    context.interrupt,
  );
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
