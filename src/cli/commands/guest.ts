/** `aerostat guest`: the embedded guest as a process, connected to a daemon's socket. */
import { fstatSync } from 'node:fs';
import { Readable } from 'node:stream';
import { isatty } from 'node:tty';
import { Command, Option } from 'commander';
import { DEFAULT_PROFILE, PROFILE_NAMES, type ProfileName } from '../../balloon/profiles.ts';
import type { EmbeddedGuest } from '../../embedded/embedded-guest.ts';
import { RING_KINDS, type RingKind } from '../../embedded/options.ts';
import { WORKLOAD_KINDS } from '../../embedded/workload-kinds.ts';
import type { WorkloadKind } from '../../guest/workloads/workload.ts';
import { PAGE_SIZE } from '../../memory/page.ts';
import { defined } from '../../sys/defined.ts';
import { AerostatError, SystemError } from '../../sys/error.ts';
import { interruptForeground, LineEditor, type Say, sayTo, terminalOf } from '../console.ts';
import { type CliContext, interrupted, type Output, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { commandOfWords, WORDS_HELP } from '../guest-words.ts';
import {
  each,
  guestMemoryOption,
  hostPageSizeOption,
  numberFromZero,
  value,
  withVerbose,
} from '../options.ts';
import { formatSize, parsePages } from '../size.ts';
import { InterruptedError, UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat device --socket-path /tmp/vm1 &
  aerostat guest --connect /tmp/vm1 --memory 2G
  aerostat guest --connect /tmp/vm1 --workload build --workload churn:256M
  aerostat guest --connect /tmp/vm1 --huge-pages --host-page-size 2M
  echo 'use 1G' | aerostat guest --connect /tmp/vm1 --memory 2G --json

It takes commands on its standard input: words, of which "help" lists all, or JSON objects. It ends with exit, with
the end of its input, and with Ctrl-C. The daemon may be started anew meanwhile: the guest connects again.`;

const HUGE_PAGE_SIZE = 2 ** 21;

interface GuestChoice {
  readonly connect: string;
  readonly memory: number;
  readonly profile: ProfileName;
  readonly rings: RingKind;
  readonly seed: number;
  readonly workload?: readonly string[];
  readonly rate?: number;
  readonly hugePages?: boolean;
  readonly thp?: boolean;
  readonly hostPageSize?: number;
  readonly whole?: boolean;
  readonly json?: boolean;
}

export function guestCommand(context: CliContext): Command {
  const command = new Command('guest')
    .description('run the embedded guest on a balloon device')
    .requiredOption('--connect <path>', "the device's socket")
    .addOption(guestMemoryOption().default(2 ** 30, '1G'))
    .addOption(
      new Option('--profile <name>', 'the ABI to speak').choices(PROFILE_NAMES).default(DEFAULT_PROFILE),
    )
    .addOption(new Option('--rings <kind>', 'layout of the virtqueues').choices(RING_KINDS).default('split'))
    .addOption(
      new Option('--seed <n>', "names the guest's whole history").argParser(numberFromZero).default(1),
    )
    .option(
      '--workload <kind[:size]>',
      'build, churn, read or touch, from the start on; may be given several times',
      each,
    )
    .addOption(
      new Option('--rate <size>', 'memory that workloads use in a second, at most').argParser(
        value(parsePages),
      ),
    )
    .option('--huge-pages', "take memory from the host's pool of 2 MiB pages")
    .option('--thp', 'ask for transparent huge pages')
    .addOption(hostPageSizeOption())
    .option('--whole', 'write and check every byte of a page, not its edges alone')
    .option('--json', 'print JSON, a line for each answer and event')
    .addHelpText('after', EXAMPLES)
    .action((choice: GuestChoice) => runGuest(context, choice));
  return withVerbose(command);
}

async function runGuest(context: CliContext, choice: GuestChoice): Promise<void> {
  const workloads = (choice.workload ?? []).map(workloadOf);
  // All of it before the guest has this thread: while it waits for its device, no file is read.
  const [{ EmbeddedGuest }, consoleModule, readerModule] = await Promise.all([
    import('../../embedded/embedded-guest.ts'),
    import('../../embedded/console.ts'),
    import('../../embedded/line-reader.ts'),
  ]);
  let editor: GuestEditor | undefined;
  const screen = sayTo(context, choice.json === true, () => editor);
  const start = performance.now();
  const starting = EmbeddedGuest.start({
    socketPath: choice.connect,
    memoryBytes: choice.memory,
    profile: choice.profile,
    rings: choice.rings,
    lends: choice.profile === 'shared',
    seed: choice.seed,
    adviseHugePages: choice.thp ?? false,
    coverage: choice.whole === true ? 'whole' : 'edges',
    ...(choice.hugePages === true ? { hugePageSize: HUGE_PAGE_SIZE } : {}),
    ...defined({ hostPageBytes: choice.hostPageSize }),
    ...(choice.rate === undefined ? {} : { pagesPerSecondMax: choice.rate / PAGE_SIZE }),
    onEvent: (event, message) => screen({ event, message }),
  });
  const signal = interrupted(context.interrupt).then(name => {
    throw new InterruptedError(name);
  });
  // A device that serves another guest lets this one wait for a while.
  const guest = await Promise.race([starting, signal]).catch(error => Promise.reject(explain(error, choice)));
  try {
    const elapsed = formatDuration(performance.now() - start);
    screen({
      event: 'ready',
      message: `The guest with ${formatSize(choice.memory)} is up after ${elapsed}.`,
    });
    for (const { kind, bytes } of workloads) guest.startWorkload(kind, bytes);
    const parts = { ...consoleModule, ...readerModule };
    if (choice.json !== true) editor = editorOf(context);
    await attach(context, guest, screen, editor, parts);
  } finally {
    editor?.close();
    await guest.close();
  }
}

/** What a person can do about a device that is not there. */
function explain(error: unknown, { connect }: GuestChoice): unknown {
  if (!(error instanceof SystemError) || error.syscall !== 'connect') return error;
  const permitted = error.errnoName !== 'EACCES' && error.errnoName !== 'EPERM';
  const what = permitted
    ? `no device listens at ${connect}; start one: aerostat device --socket-path ${connect}`
    : `not permitted to connect to ${connect}; run as the user of the daemon`;
  return new AerostatError('AEROSTAT_UNREACHABLE', what, { cause: error });
}

interface WorkloadChoice {
  readonly kind: WorkloadKind;
  readonly bytes?: number;
}

function workloadOf(word: string): WorkloadChoice {
  const [kind, size] = word.split(':', 2);
  if (!(WORKLOAD_KINDS as readonly string[]).includes(kind)) {
    throw new UsageError(`no workload is called ${kind}; there are ${WORKLOAD_KINDS.join(', ')}`);
  }
  return { kind: kind as WorkloadKind, ...(size === undefined ? {} : { bytes: parsePages(size) }) };
}

/** How the guest is told things; loaded when there is one. */
type ConsoleParts = Pick<typeof import('../../embedded/console.ts'), 'answerLine'> &
  Pick<typeof import('../../embedded/line-reader.ts'), 'InputReader' | 'LineReader'>;

/** Obeys commands until the guest ends, its input does, or a signal comes. */
async function attach(
  context: CliContext,
  guest: EmbeddedGuest,
  say: Say,
  editor: GuestEditor | undefined,
  { answerLine, InputReader, LineReader }: ConsoleParts,
): Promise<void> {
  let last: Promise<void> = Promise.resolve();
  const obey = async (line: string) => say(await answerLine(guest, line));
  const take = async (line: string) => {
    if (line.startsWith('{')) return void (await obey(line));
    if (line.trim() === 'help') return void printLine(context.stderr, WORDS_HELP);
    const before = last;
    // A person's commands do not overtake each other.
    last = before.then(() => obeyWords(line, obey, say));
    await last;
  };
  const fd = inputOf(context);
  const under = new Set<Promise<void>>();
  const ended = new Promise<void>(resolve => {
    if (fd === undefined) return;
    const { reactor } = guest;
    const onLine = (line: string) => {
      const taken = take(line).finally(() => under.delete(taken));
      under.add(taken);
    };
    let over = false;
    const onEnd = () => {
      if (over) return;
      over = true;
      reactor.schedule(LAST_COMMANDS_MS_MAX, resolve);
      void Promise.all(under).then(() => resolve());
    };
    const reader =
      editor === undefined
        ? new LineReader(fd, { reactor, onLine, onEnd })
        : new InputReader(fd, { reactor, onBytes: bytes => editor.keys.push(Buffer.from(bytes)), onEnd });
    editor?.lines.on('line', line => {
      if (line.trim() !== '') onLine(line);
      void Promise.all(under).then(() => editor.ask());
    });
    // Ctrl-D on an empty line.
    editor?.lines.once('close', onEnd);
    editor?.ask();
    void guest.ended
      .catch(() => {})
      .then(() => {
        over = true;
        reader.close();
      });
  });
  const signal = interrupted(context.interrupt).then(name => {
    throw new InterruptedError(name);
  });
  await Promise.race([guest.ended, ended, signal]);
}

/** How long commands may still take when no more will come: their sender may be gone. */
const LAST_COMMANDS_MS_MAX = 10_000;

async function obeyWords(line: string, obey: (line: string) => Promise<void>, say: Say): Promise<void> {
  try {
    await obey(JSON.stringify(commandOfWords(line)));
  } catch (error) {
    if (!(error instanceof AerostatError)) throw error;
    say({ id: null, error: { code: error.code, message: error.message } });
  }
}

/** The thread waits in poll(2), so that Node does not read the terminal: what it says is pushed into `keys`. */
class GuestEditor extends LineEditor {
  readonly keys: Readable;

  constructor(output: Output, stdin: CliContext['stdin']) {
    const terminal = stdin as { setRawMode?: (raw: boolean) => unknown };
    const keys = Object.assign(new Readable({ read: () => {} }), {
      setRawMode: (raw: boolean) => terminal.setRawMode?.(raw),
    });
    super({ input: keys, output, prompt: 'guest> ', onInterrupt: interruptForeground });
    this.keys = keys;
  }
}

function editorOf(context: CliContext): GuestEditor | undefined {
  const output = terminalOf(context);
  return output === null ? undefined : new GuestEditor(output, context.stdin);
}

/** The descriptor that commands come from; none where standard input is closed. */
function inputOf({ stdin }: CliContext): number | undefined {
  const fd = 'fd' in stdin && typeof stdin.fd === 'number' ? stdin.fd : undefined;
  if (fd === undefined) return undefined;
  // /dev/null is how services have no input; it always reads as ended.
  return fstatSync(fd).isCharacterDevice() && !isatty(fd) ? undefined : fd;
}
