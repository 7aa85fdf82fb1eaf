/** A machine that can move, as a command has it: its API, its console, and its end. */
import { fstatSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { isatty } from 'node:tty';
import { type Command, Option } from 'commander';
import { type GuestCommand, parseCommand } from '../embedded/commands.ts';
import { resolveAddress } from '../server/address.ts';
import { wireError } from '../sys/error.ts';
import { readVersion } from '../sys/version.ts';
import type { TlsIdentity } from '../transfer/tls.ts';
import type { Vm } from '../vm/vm.ts';
import { interruptForeground, LineEditor, type Say, sayTo, terminalOf } from './console.ts';
import { type CliContext, interrupted, printLine } from './context.ts';
import { commandOfWords, WORDS_HELP } from './guest-words.ts';
import type { Log } from './log.ts';
import { type ServeChoice, withApiOf } from './serve.ts';
import { formatSize } from './size.ts';
import { InterruptedError, UsageError } from './usage.ts';

interface TlsChoice {
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
}

export interface MachineChoice extends ServeChoice, TlsChoice {
  readonly json?: boolean;
}

export function withTls(command: Command): Command {
  return command
    .addOption(new Option('--tls-cert <file>', 'migrate under TLS: our certificate, PEM'))
    .option('--tls-key <file>', 'its key')
    .option('--tls-ca <file>', 'the CA whose certificates are trusted, and needed, on both sides');
}

/** @throws UsageError when not all three are given; TransferError for a file that cannot be read */
export async function tlsOf({ tlsCert, tlsKey, tlsCa }: TlsChoice): Promise<TlsIdentity | undefined> {
  if (tlsCert === undefined && tlsKey === undefined && tlsCa === undefined) return undefined;
  if (tlsCert === undefined || tlsKey === undefined || tlsCa === undefined) {
    throw new UsageError('TLS needs all three: --tls-cert, --tls-key and --tls-ca');
  }
  const { readTlsIdentity } = await import('../transfer/tls.ts');
  return readTlsIdentity({ cert: tlsCert, key: tlsKey, ca: tlsCa });
}

/** How long a machine that has left goes on telling clients that it has. */
const FAREWELL_MS = 1500;

/**
 * Serves a machine until it is switched off, has left, or a signal comes. The machine is closed then.
 * @throws AerostatError when its guest ended by itself
 */
export async function serveMachine(
  context: CliContext,
  choice: MachineChoice,
  { vm, tls, log }: { vm: Vm; tls: TlsIdentity | undefined; log: Log },
): Promise<void> {
  const { vmControl } = await import('../vm/vm-control.ts');
  // Its socket is for this user alone, who may write any of their files; an address of TCP is for others as well.
  const writesFiles = resolveAddress(choice.api, context.env).kind === 'unix';
  const control = vmControl(vm, { tls, writesFiles });
  let editor: LineEditor | undefined;
  const say = sayTo(context, choice.json === true, () => editor);
  try {
    await withApiOf(context, choice, { control, version: readVersion(), log }, async () => {
      const signal = interrupted(context.interrupt).then(async name => {
        await pagesGone();
        throw new InterruptedError(name);
      });
      const left = control.departed.then(async () => {
        const { migration } = await control.migration(vm.name);
        say({ event: 'log', message: `${vm.name} runs at ${migration?.to ?? 'its destination'} now.` });
        await delay(FAREWELL_MS);
      });
      // What its destination has still to get is nowhere else.
      const pagesGone = async (): Promise<void> => {
        const { migration } = await control.migration(vm.name);
        if (migration?.to == null || !migration.state.status.startsWith('post-copy')) return;
        const missing = formatSize(migration.state.remainingBytes ?? 0);
        const message = `${vm.name} runs at ${migration.to}, which has still to get ${missing} from here; this ends when it has. A second signal ends it now, and ${vm.name} is lost.`;
        say({ event: 'log', message });
        await left;
      };
      say({ event: 'ready', message: `${vm.name} runs here.` });
      editor = choice.json === true ? undefined : editorOf(context, vm.name);
      await Promise.race([vm.ended, attach(context, vm, say, editor).then(pagesGone), left, signal]);
    });
  } finally {
    editor?.close();
    await vm.close();
  }
}

function editorOf(context: CliContext, name: string): LineEditor | undefined {
  const output = terminalOf(context);
  if (output === null) return undefined;
  return new LineEditor({
    ...{ input: context.stdin, output, prompt: `${name}> ` },
    onInterrupt: interruptForeground,
  });
}

/** Obeys commands until one of them, or their end, switches the guest off. */
async function attach(context: CliContext, vm: Vm, say: Say, editor: LineEditor | undefined): Promise<void> {
  const { stdin } = context;
  // /dev/null is how services have no input; it always reads as ended.
  const fd = 'fd' in stdin && typeof stdin.fd === 'number' ? stdin.fd : undefined;
  if (fd === undefined || (fstatSync(fd).isCharacterDevice() && !isatty(fd))) return new Promise(() => {});
  const under = new Set<Promise<void>>();
  const lines = editor?.lines ?? createInterface({ input: stdin });
  editor?.ask();
  for await (const line of lines) {
    const text = line.trim();
    if (text === 'help') printLine(context.stderr, WORDS_HELP);
    else if (text === 'exit' || isExit(text)) break;
    else if (text !== '') {
      const obeyed = obey(vm, text, say).finally(() => under.delete(obeyed));
      under.add(obeyed);
      // A person's commands do not overtake each other.
      if (!text.startsWith('{')) await obeyed;
    }
    editor?.ask();
  }
  lines.close();
  await Promise.all(under);
}

const isExit = (text: string): boolean => /^\{.*"do"\s*:\s*"exit"/.test(text);

async function obey(vm: Vm, text: string, say: Say): Promise<void> {
  let id: number | null = null;
  try {
    const value: unknown = text.startsWith('{') ? JSON.parse(text) : commandOfWords(text);
    if (typeof value === 'object' && value !== null && 'id' in value && typeof value.id === 'number')
      id = value.id;
    say({ id, answer: await vm.command(parseCommand(value) as Exclude<GuestCommand, { do: 'exit' }>) });
  } catch (error) {
    say({ id, error: wireError(error, 'AEROSTAT_GUEST_COMMAND') });
  }
}
