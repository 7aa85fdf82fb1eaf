/**
 * Which guests a command is about: those of a daemon of ours, those behind monitors of QEMU, or both kinds, named in a
 * file. A command sees one contract and does not know which it has.
 */
import { type Command, Option } from 'commander';
import type { CombinedControl } from '../control/combined-control.ts';
import type { Control, GuestControl, GuestStatus } from '../control/contract.ts';
import type { QemuControl } from '../qemu/qemu-control.ts';
import type { CliContext } from './context.ts';
import { foundSockets, guestsOf } from './daemons.ts';
import { checkNames, nameOfSocket } from './guest-options.ts';
import { type ApiChoice, connect, each, withJson } from './options.ts';
import { UsageError } from './usage.ts';

export interface GuestsChoice extends ApiChoice {
  readonly qmp?: readonly string[];
  readonly config?: string;
  readonly json?: boolean;
}

/** `--api`, `--qmp`, `--config` and `--json`: what every command has that looks after guests. */
export function withGuestOptions(command: Command): Command {
  const monitor = "a guest of QEMU's instead: the socket of its monitor, [NAME=]PATH; once for each guest";
  return withJson(command)
    .addOption(new Option('--qmp <socket>', monitor).argParser(each).conflicts(['api', 'config']))
    .addOption(
      new Option('--config <file>', 'guests of both kinds, named in a JSON file').conflicts(['api', 'qmp']),
    );
}

/** Runs `body` with the guests that the options and the environment point to; lets go of them afterwards. */
export async function withGuests(
  context: CliContext,
  choice: GuestsChoice,
  body: (guests: GuestControl) => Promise<void>,
): Promise<void> {
  const { control, close } = await open(context, choice);
  try {
    // From here on the control heeds interrupts itself.
    context.interrupt.throwIfAborted();
    await body(control);
  } finally {
    close();
  }
}

/** The guest that is meant: the one that is named, or the only one. */
export async function guestName(guests: GuestControl, name: string | undefined): Promise<string> {
  if (name !== undefined) return name;
  const names = (await guests.guests()).map(guest => guest.name);
  if (names.length === 1) return names[0];
  const choices = names.length === 0 ? 'there is none' : `one of ${names.join(', ')}`;
  throw new UsageError(`which guest? Name it: ${choices}`);
}

/** All guests, or only the one that is named. */
export const lookAt = async (
  guests: GuestControl,
  name: string | undefined,
): Promise<readonly GuestStatus[]> => (name === undefined ? guests.guests() : [await guests.guest(name)]);

interface Opened {
  readonly control: GuestControl;
  readonly close: () => void;
}

async function open(context: CliContext, choice: GuestsChoice): Promise<Opened> {
  if (choice.config !== undefined) return openNamed(context, choice.config);
  if (choice.qmp !== undefined) return openMonitors(choice.qmp);
  const found = foundSockets(context, choice);
  if (found.length > 0) return { control: await guestsOf(context, found), close: () => {} };
  return { control: connect(context, choice), close: () => {} };
}

/** Loaded only when it is needed: most commands never see a QEMU. */
async function connectMonitors(guests: readonly { name: string; qmpPath: string }[]): Promise<QemuControl> {
  const { QemuControl } = await import('../qemu/qemu-control.ts');
  return new QemuControl(guests);
}

/** Who names monitors wants these guests: one that cannot be reached is a failure, not a line in a list. */
async function openMonitors(words: readonly string[]): Promise<Opened> {
  const guests = words.map(parseMonitor);
  checkNames(guests.map(({ name }) => name));
  const control = await connectMonitors(guests);
  return { control, close: () => control.close() };
}

/** The guests that a file names. */
export async function openNamed(
  context: CliContext,
  path: string,
): Promise<Opened & { readonly control: CombinedControl }> {
  const [{ CombinedControl }, { readGuestsFile }] = await Promise.all([
    import('../control/combined-control.ts'),
    import('./guests-file.ts'),
  ]);
  const named = readGuestsFile(path);
  const monitors = named.flatMap(guest => ('qmp' in guest ? [{ name: guest.name, qmpPath: guest.qmp }] : []));
  const qemus = await connectMonitors(monitors);
  // One client for each daemon, however many of its guests there are: it costs the daemon one stream of events.
  const daemons = new Map<string, Control>();
  const daemonOf = (guest: ApiChoice): Control => {
    const key = JSON.stringify([guest.api, guest.tokenFile]);
    const daemon = daemons.get(key) ?? connect(context, guest);
    daemons.set(key, daemon);
    return daemon;
  };
  const control = new CombinedControl(
    named.map(guest =>
      'qmp' in guest
        ? { name: guest.name, control: qemus, nameThere: guest.name, apart: true }
        : {
            name: guest.name,
            control: daemonOf(guest),
            nameThere: guest.guest ?? guest.name,
            address: guest.api,
          },
    ),
  );
  return { control, close: () => qemus.close() };
}

function parseMonitor(text: string): { name: string; qmpPath: string } {
  const match = /^([^=/]+)=(.+)$/.exec(text);
  return match === null ? { name: nameOfSocket(text), qmpPath: text } : { name: match[1], qmpPath: match[2] };
}
