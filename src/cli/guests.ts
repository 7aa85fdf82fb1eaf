/**
 * Which guests a command is about: those of an Aerostat daemon, those behind monitors of QEMU, or both kinds, named in a
 * file. A command sees one contract and does not know which it has.
 */
import { type Command, Option } from 'commander';
import type { CombinedControl } from '../control/combined-control.ts';
import type { GuestStatus } from '../control/contract.ts';
import { UnknownGuestError } from '../control/errors.ts';
import { hostedControl } from '../control/hosted-control.ts';
import type { Control, GuestControl, GuestSource } from '../control/operations.ts';
import { policyDirectory } from '../server/address.ts';
import type { AerostatError } from '../sys/error.ts';
import { monotonicMs } from '../sys/poll.ts';
import { readVersion } from '../sys/version.ts';
import type { Configuration } from './configuration/read.ts';
import type { CliContext } from './context.ts';
import { foundSockets } from './daemons.ts';
import { checkNames, nameOfSocket } from './guest-options.ts';
import { type ApiChoice, connect, each, withJson } from './options.ts';
import type { OpenedSources } from './sources.ts';
import { UsageError } from './usage.ts';

export interface GuestsChoice extends ApiChoice {
  readonly qmp?: readonly string[];
  readonly qmpDir?: string;
  readonly libvirt?: string;
  readonly qmpNames?: 'file' | 'vm';
  readonly config?: string;
  readonly json?: boolean;
}

/** `--api`, `--qmp`, `--qmp-dir`, `--config` and `--json`: what every command has that looks after guests. */
export function withGuestOptions(command: Command): Command {
  const monitor = "a guest of QEMU's instead: the socket of its monitor, [NAME=]PATH; once for each guest";
  return withJson(command)
    .addOption(new Option('--qmp <socket>', monitor).argParser(each).conflicts(['api', 'config']))
    .addOption(
      new Option(
        '--qmp-dir <directory>',
        "all guests of QEMU's whose monitors are in there (NAME.qmp, NAME/qemu.monitor), as they come and go",
      ).conflicts(['api', 'config', 'qmp']),
    )
    .addOption(
      new Option('--qmp-names <source>', 'call these guests after their sockets, or as their QEMUs do')
        .choices(['file', 'vm'])
        .conflicts(['api', 'config', 'qmp']),
    )
    .addOption(
      new Option(
        '--libvirt <uri>',
        'the domains of a libvirt, as they come and go: qemu:///system, qemu:///session, qemu+ssh://HOST/system',
      ).conflicts(['api', 'config', 'qmp', 'qmpDir']),
    )
    .addOption(
      new Option(
        '--config <file>',
        'the guests of this aerostat.toml, wherever they are (env: AEROSTAT_CONFIG)',
      ).conflicts(['api', 'qmp']),
    );
}

/**
 * Runs `body` with the guests that the options and the environment point to; closes their connections afterwards.
 * `served`: clients of an API will steer them, not the user of this command alone. `ifNone` is what to say where none is.
 */
export async function withGuests(
  context: CliContext,
  choice: GuestsChoice,
  body: (control: Control, failures: Failures, ifNone: string) => Promise<void>,
  { served = false } = {},
): Promise<void> {
  const {
    control,
    close,
    failures = () => new Map(),
    ifNone = 'The daemon runs, but serves no guest.',
  } = await open(context, choice, served);
  try {
    // From here on the control heeds interrupts itself.
    context.interrupt.throwIfAborted();
    await body(await knowing(context, choice, control), failures, ifNone);
  } finally {
    close();
  }
}

/** QEMU knows of no policy; what one left word of is known here. */
async function knowing(context: CliContext, choice: GuestsChoice, control: Control): Promise<Control> {
  if (choice.api !== undefined || choice.libvirt !== undefined) return control;
  const { knowingLeases } = await import('../steering/left-leases.ts');
  return knowingLeases(control, policyDirectory(context.env), monotonicMs);
}

/** The guest that is meant: the one that is named, or the only one. */
export async function guestName(guests: GuestControl, name: string | undefined): Promise<string> {
  if (name !== undefined) return name;
  const names = (await guests.guests()).map(guest => guest.name);
  if (names.length === 1) return names[0];
  const choices = names.length === 0 ? 'there is none' : `one of ${names.join(', ')}`;
  throw new UsageError(`which guest? Name it: ${choices}`);
}

/** All guests, or those that are named or fit a pattern: `*` is any letters, `?` is one. @throws UnknownGuestError */
export async function lookAt(
  guests: GuestControl,
  words: readonly string[],
): Promise<readonly GuestStatus[]> {
  if (words.length === 0) return guests.guests();
  if (words.length === 1 && !isPattern(words[0])) return [await guests.guest(words[0])];
  const all = await guests.guests();
  const known = all.map(({ name }) => name);
  const chosen = new Set(words.flatMap(word => fitting(word, known)));
  return all.filter(({ name }) => chosen.has(name));
}

/** The names that are meant, each once, in the order of the words; patterns are resolved. @throws UnknownGuestError */
export async function guestNames(guests: GuestControl, words: readonly string[]): Promise<readonly string[]> {
  if (words.length === 0) return [await guestName(guests, undefined)];
  if (!words.some(isPattern)) return words;
  const known = (await guests.guests()).map(({ name }) => name);
  return [...new Set(words.flatMap(word => fitting(word, known)))];
}

export const isPattern = (word: string): boolean => /[*?]/.test(word);

/** @throws UnknownGuestError */
function fitting(word: string, known: readonly string[]): readonly string[] {
  const parts = word.split(/([*?])/).map(part => {
    if (part === '*') return '.*';
    return part === '?' ? '.' : part.replaceAll(/[\\^$.|+()[\]{}]/g, '\\$&');
  });
  const pattern = new RegExp(`^${parts.join('')}$`);
  const names = known.filter(name => pattern.test(name));
  if (names.length === 0) throw new UnknownGuestError(word, known);
  return names;
}

/** Why nothing is known of some guests, as of the last time that all were asked for. */
type Failures = () => ReadonlyMap<string, AerostatError>;

interface Opened {
  readonly control: Control;
  readonly close: () => void;
  /** Where the guests are of several hosts. */
  readonly failures?: Failures;
  /** What to say where it has no guest; absent for one daemon. */
  readonly ifNone?: string;
}

const opened = (
  control: GuestSource & Pick<CombinedControl, 'failures'>,
  close: () => void,
  ifNone: string,
): Opened => ({
  control: hostedControl(control, readVersion()),
  close,
  failures: control.failures,
  ifNone,
});

async function open(context: CliContext, choice: GuestsChoice, served: boolean): Promise<Opened> {
  const configured = await configuredGuests(context, choice);
  if (configured !== undefined) {
    const { openSources } = await import('./sources.ts');
    return merged(await openSources(context, configured, { anyDestination: !served }));
  }
  if (choice.qmpNames !== undefined && choice.qmpDir === undefined) {
    throw new UsageError('--qmp-names is about the guests of --qmp-dir; give it too');
  }
  // The user of this machine may send a guest where a client of the API may not.
  const options = { anyDestination: !served };
  if (choice.qmp !== undefined) return openMonitors(choice.qmp, options);
  if (choice.qmpDir !== undefined) {
    const { MonitorDirectory } = await import('../qemu/monitor-directory.ts');
    const qemus = new MonitorDirectory(choice.qmpDir, { ...options, namedByQemu: choice.qmpNames === 'vm' });
    await qemus.named();
    return opened(qemus, () => qemus.close(), `No monitor of a QEMU is in ${choice.qmpDir}.`);
  }
  if (choice.libvirt !== undefined) return openLibvirt(choice.libvirt, options);
  const found = foundSockets(context, choice);
  if (found.length === 1) return { control: connect(context, { api: found[0] }), close: () => {} };
  if (found.length > 1) {
    const { openDaemons } = await import('./sources.ts');
    return merged({
      sources: openDaemons(
        context,
        found.map(api => ({ api })),
      ),
      close: () => {},
    });
  }
  return { control: connect(context, choice), close: () => {} };
}

/** With --qmp an unreachable guest is an error, not a row. */
async function openMonitors(
  words: readonly string[],
  options: { readonly anyDestination: boolean },
): Promise<Opened> {
  // Loaded only when it is needed: most commands never see a QEMU.
  const { QemuControl } = await import('../qemu/qemu-control.ts');
  const guests = words.map(parseMonitor);
  checkNames(guests.map(({ name }) => name));
  const qemus = new QemuControl(guests, options);
  return { control: hostedControl(qemus, readVersion()), close: () => qemus.close() };
}

async function openLibvirt(uri: string, options: { readonly anyDestination: boolean }): Promise<Opened> {
  const domains = await (await import('./sources.ts')).openLibvirt(uri, options);
  try {
    await domains.reached();
  } catch (error) {
    domains.close();
    throw error;
  }
  return opened(domains, () => domains.close(), `No domain runs at ${uri}.`);
}

/** What of a command line says where guests are. */
interface GuestWords {
  readonly api?: unknown;
  readonly qmp?: unknown;
  readonly qmpDir?: unknown;
  readonly libvirt?: unknown;
  readonly config?: string | undefined;
}

/** The configuration that says where the guests are: one that is named, or found where no option says anything else. */
export async function configuredGuests(
  context: CliContext,
  { api, qmp, qmpDir, libvirt, config }: GuestWords,
): Promise<Configuration | undefined> {
  const elsewhere = [api ?? context.env.AEROSTAT_API, qmp, qmpDir, libvirt].some(
    source => source !== undefined,
  );
  if (elsewhere && config === undefined) return undefined;
  const { configurationPath } = await import('./configuration/place.ts');
  const path = configurationPath(config, context.env);
  if (path === undefined) return undefined;
  const { readConfiguration } = await import('./configuration/read.ts');
  const configuration = readConfiguration(path);
  const { namesSources } = await import('./sources.ts');
  if (namesSources(configuration)) return configuration;
  if (config === undefined) return undefined;
  throw new UsageError(
    `${path} names no guests: give it [sources], or [guests.NAME] with a socket, qmp or api`,
  );
}

/** The guests of several sources in one list, under names that are unique. */
async function merged({ sources, close }: OpenedSources): Promise<Opened> {
  const [{ mergedControl }, { mergedSource }] = await Promise.all([
    import('../control/merged-control.ts'),
    import('./sources.ts'),
  ]);
  const places = sources.map(({ place }) => place).join(', ');
  return opened(mergedControl(sources.map(mergedSource)), close, `There is no guest at ${places}.`);
}

/** `[NAME=]PATH` of a monitor. */
export function parseMonitor(text: string): { name: string; qmpPath: string } {
  const match = /^([^=/]+)=(.+)$/.exec(text);
  return match === null ? { name: nameOfSocket(text), qmpPath: text } : { name: match[1], qmpPath: match[2] };
}
