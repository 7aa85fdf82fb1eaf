/** `aerostat status`: how guests are, as a table, or one guest in full. */
import { Command, InvalidArgumentError, Option } from 'commander';
import type { GuestStatus } from '../../control/contract.ts';
import { obstacleOf, standsStill, stateWord } from '../../control/guest-state.ts';
import {
  hintWords,
  incompleteWords,
  isStuck,
  keptWords,
  policyWords,
  removedWords,
  residentWords,
  stuckWords,
} from '../../control/judgement.ts';
import { balloonOf } from '../../control/memory-use.ts';
import { AerostatError } from '../../sys/error.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { type GuestsChoice, isPattern, lookAt, withGuestOptions, withGuests } from '../guests.ts';
import { formatSize } from '../size.ts';
import { type Style, styleOf } from '../style.ts';
import { type Column, renderFields, renderTable } from '../table.ts';

const EXAMPLES = `
Examples:
  aerostat status              all guests
  aerostat status vm1          one guest in full
  aerostat status --json       {"guests": [...]}, sizes in bytes
  aerostat status --sort resident --columns guest,resident,state --no-header
                               what a script or a person wants of it, the largest first
  aerostat status 'web-*' db             some of them, in a table
  aerostat status --qmp /run/qemu/web.qmp
  aerostat status --qmp-dir /var/run/qemu-server
                               a guest of QEMU's; - is what QEMU does not tell
  aerostat status --config aerostat.toml
                               guests of both kinds and of several hosts

RESIDENT is what the host holds for a guest. Where its memory is a file on disk (PLACE says disk: ext4, overlay and so
on), that is the blocks of the file; what of it is in the page cache comes besides.

KEEPS is what a guest keeps where its target was given as --memory: the target follows memory that is added or removed.
REMOVED is what its balloon held in memory that was removed; it counts again when that memory comes back.

Without --api, --qmp, --qmp-dir and --libvirt the guests are those of aerostat.toml, where there is one ("aerostat config check"
says which). It exits with 3 when one of the guests cannot be asked.`;

export function statusCommand(context: CliContext): Command {
  const command = new Command('status')
    .description('show guests, their memory and their balloons')
    .argument('[guest...]', 'only these; a pattern such as web-* is one too')
    .addOption(
      new Option('--sort <column>', 'sort by it: sizes from the largest on').choices(Object.keys(COLUMNS)),
    )
    .addOption(
      new Option(
        '--columns <columns>',
        `what to show, with commas: ${Object.keys(COLUMNS).join(', ')}`,
      ).argParser(columnNames),
    )
    .option('--no-header', 'without the line of titles')
    .addHelpText('after', EXAMPLES)
    .action((words: readonly string[], choice: StatusChoice) =>
      withGuests(context, choice, async (control, failuresOf, ifNone) => {
        const guests = sorted(await lookAt(control, words), choice.sort);
        const name = words.length === 1 && !isPattern(words[0]) ? words[0] : undefined;
        const failures = failuresOf();
        showGuests(context, choice, { guests, name, failures, ifNone });
        // A script must not take a table with gaps for a whole one.
        const [failed] = failures.keys();
        if (failed !== undefined) throw notAll(guests.length, failures);
      }),
    );
  return withGuestOptions(command);
}

/** What a column is called on the command line, what it sorts by, and what it shows. */
interface StatusColumn {
  readonly key: (guest: GuestStatus) => string | number | null;
  readonly column: (style: Style, failures: Failures) => Column<GuestStatus>;
}

const bytesColumn = (title: string, key: (guest: GuestStatus) => number | null): StatusColumn => ({
  key,
  column: () => ({ title, align: 'right', text: guest => size(key(guest)) }),
});

const wordColumn = (title: string, key: (guest: GuestStatus) => string | null): StatusColumn => ({
  key,
  column: () => ({ title, text: guest => key(guest) ?? '-' }),
});

const COLUMNS = {
  guest: {
    key: guest => guest.name,
    column: style => ({ title: 'GUEST', text: guest => guest.name, paint: style.bold }),
  },
  state: {
    key: guest => stateOf(guest),
    column: (style, failures) => ({
      title: 'STATE',
      text: guest => (failures.has(guest.name) ? 'unreachable' : stateOf(guest)),
      paint: (text, guest) => paintState(text, guest, style),
    }),
  },
  memory: bytesColumn('MEMORY', guest => guest.memoryBytes),
  target: bytesColumn('TARGET', guest => guest.targetBytes),
  keeps: bytesColumn('KEEPS', guest => guest.wishedMemoryBytes),
  shown: bytesColumn('SHOWN', guest => guest.shownTargetBytes),
  balloon: bytesColumn('BALLOON', balloonOf),
  actual: bytesColumn('ACTUAL', guest => guest.actualBytes),
  removed: bytesColumn('REMOVED', guest => guest.removedBytes),
  incomplete: bytesColumn('INCOMPLETE', guest => guest.incompleteBytes),
  pending: bytesColumn('PENDING', guest => guest.pendingBytes),
  resident: bytesColumn('RESIDENT', guest => guest.residentBytes),
  place: wordColumn('PLACE', guest => guest.memoryPlace),
  profile: wordColumn('PROFILE', guest => guest.profile),
  socket: wordColumn('SOCKET', guest => guest.socketPath),
  error: wordColumn('LAST ERROR', guest => guest.lastError),
} as const satisfies Record<string, StatusColumn>;

type ColumnName = keyof typeof COLUMNS;

/** Guests that a line names. */
const NAMES_MAX = 8;

/** Of every guest, on every list. */
const LISTED = ['guest', 'state', 'memory', 'target', 'balloon', 'pending', 'resident'] as const;

interface StatusChoice extends GuestsChoice {
  readonly sort?: ColumnName;
  readonly columns?: readonly ColumnName[];
  readonly header: boolean;
}

function columnNames(text: string): readonly ColumnName[] {
  const names = text.split(',').map(name => name.trim());
  const strange = names.find(name => !(name in COLUMNS));
  if (strange === undefined) return names as ColumnName[];
  throw new InvalidArgumentError(
    `there is no column ${JSON.stringify(strange)}; there are ${Object.keys(COLUMNS).join(', ')}`,
  );
}

const inOrder = new Intl.Collator('en', { numeric: true });

/** Words rise, sizes fall; what is not known comes last. */
function sorted(guests: readonly GuestStatus[], by: ColumnName | undefined): readonly GuestStatus[] {
  if (by === undefined) return guests;
  const { key } = COLUMNS[by];
  return [...guests].sort((a, b) => {
    const [one, other] = [key(a), key(b)];
    if (one === null || other === null) return Number(one === null) - Number(other === null);
    if (typeof one === 'number' && typeof other === 'number') return other - one;
    return inOrder.compare(String(one), String(other));
  });
}

type Failures = ReadonlyMap<string, AerostatError>;

interface Shown {
  readonly guests: readonly GuestStatus[];
  readonly name: string | undefined;
  readonly failures: Failures;
  readonly ifNone: string;
}

function showGuests(
  { stdout, stderr, env }: CliContext,
  choice: StatusChoice,
  { guests, name, failures, ifNone }: Shown,
): void {
  if (choice.json) return void printJson(stdout, { guests });
  const style = styleOf(stdout, env);
  if (name !== undefined && choice.columns === undefined)
    return void printLine(stdout, describeGuest(guests[0], style));
  if (guests.length === 0) return void printLine(stdout, ifNone);
  const columns = (choice.columns ?? [...LISTED, 'error']).map(key => COLUMNS[key].column(style, failures));
  const lines = renderTable(columns, guests);
  printLine(stdout, (choice.header ? lines : lines.slice(1)).join('\n'));
  // Beside the table, which a script may read.
  const silence = silenceOf(guests);
  if (silence !== '') printLine(stderr, style.yellow(silence));
}

/** That the policy which set some targets is silent; empty where none is. */
function silenceOf(guests: readonly GuestStatus[]): string {
  const lapsed = guests.filter(({ targetOwner }) => targetOwner?.lapsed === true).map(({ name }) => name);
  if (lapsed.length === 0) return '';
  const shown =
    lapsed.length > NAMES_MAX ? `${lapsed.slice(0, NAMES_MAX).join(', ')} and others` : lapsed.join(', ');
  return `The memory policy that set the targets of ${shown} is silent; "aerostat policy status" says more.`;
}

/** With the code of the first failure, which decides what the command exits with. */
function notAll(count: number, failures: Failures): AerostatError {
  const [[name, first]] = failures;
  const others = failures.size === 1 ? '' : ` (and ${failures.size - 1} more)`;
  const message = `${failures.size} of ${count} guests cannot be asked: ${name}: ${first.message}${others}`;
  return new AerostatError(first.code, message);
}

const size = (bytes: number | null) => (bytes === null ? '-' : formatSize(bytes));
const stateOf = (guest: GuestStatus): string =>
  isStuck(guest) && !standsStill(guest.state) ? 'stuck' : stateWord(guest);

/** Green where it answers, yellow where its hypervisor has to resume it. */
const paintState = (text: string, guest: GuestStatus, style: Style): string => {
  const { connected, state } = guest;
  if (!connected || state === 'no-driver') return style.dim(text);
  if (standsStill(state)) return style.yellow(text);
  return isStuck(guest) ? style.red(text) : style.green(text);
};

/** `failures` are the guests of which nothing is known, for what hosts them does not answer. */
export const statusColumns = (style: Style, failures: Failures = new Map()): readonly Column<GuestStatus>[] =>
  LISTED.map(name => COLUMNS[name].column(style, failures));

export const errorColumn: Column<GuestStatus> = {
  title: 'LAST ERROR',
  text: guest => guest.lastError ?? '-',
};

function describeGuest(guest: GuestStatus, style: Style): string {
  const fields: [string, string][] = [
    ['memory', size(guest.memoryBytes)],
    ['target', describeTarget(guest)],
    ['balloon', `${describeBalloon(guest)}${describeRemoved(guest)}`],
    ['pending', size(guest.pendingBytes)],
    ['resident', describeResident(guest)],
    ['given back', describeGivenBack(guest)],
    ['discard', describeDiscard(guest)],
    ['hints', describeHints(guest)],
    ['profile', guest.profile ?? '-'],
    ['features', guest.features?.join(' ') || '-'],
    ['socket', guest.socketPath ?? '-'],
    ['refused', describeRefused(guest)],
    ['last error', guest.lastError ?? '-'],
  ];
  const obstacle = obstacleOf(guest.state);
  const why = obstacle === undefined ? '' : ` (${obstacle})`;
  const painted = paintState(stateOf(guest), guest, style) + why;
  return [`${style.bold(guest.name)}: ${painted}`, ...renderFields(fields)].join('\n');
}

const count = (number: number) => number.toLocaleString('en');

function describeTarget(guest: GuestStatus): string {
  const target = describeProgress(guest);
  const kept = keptWords(guest, formatSize);
  const owner = policyWords(guest);
  const whose = owner === '' ? target : `${target}; ${owner}`;
  return kept === '' ? whose : `${whose}; ${kept}, and the target follows its memory`;
}

function describeProgress(guest: GuestStatus): string {
  const { targetBytes, shownTargetBytes } = guest;
  const stuck = stuckWords(guest, formatSize, formatDuration);
  if (stuck !== '') return `${size(targetBytes)}, ${stuck}`;
  const lowered = shownTargetBytes !== null && targetBytes !== null && shownTargetBytes < targetBytes;
  return lowered
    ? `${size(targetBytes)}, of which the driver is shown ${size(shownTargetBytes)}`
    : size(targetBytes);
}

function describeBalloon(guest: GuestStatus): string {
  const { balloonedBytes, actualBytes } = guest;
  const waiting = incompleteWords(guest, formatSize);
  const rest = waiting === '' ? '' : `, of which ${waiting}`;
  if (actualBytes === null) return `${size(balloonedBytes)}${rest}`;
  const says = `the guest says ${formatSize(actualBytes)}`;
  return balloonedBytes === null ? says : `${formatSize(balloonedBytes)} (${says})${rest}`;
}

function describeRemoved(guest: GuestStatus): string {
  const removed = removedWords(guest, formatSize);
  return removed === '' ? '' : `; ${removed}`;
}

function describeResident(guest: GuestStatus): string {
  const what = residentWords(guest);
  return what === '' ? size(guest.residentBytes) : `${size(guest.residentBytes)} (${what})`;
}

const describeGivenBack = ({ discardedBytes, reportedBytes }: GuestStatus): string =>
  discardedBytes === null && reportedBytes === null
    ? '-'
    : `${size(discardedBytes)} by inflating, ${size(reportedBytes)} by reporting`;

function describeDiscard({ discard, counters }: GuestStatus): string {
  if (discard === null || counters === null) return discard ?? '-';
  const { pages, punches, hugePagesCut } = counters;
  const cut = hugePagesCut > 0 ? `, of which the host split ${count(hugePagesCut)} huge pages` : '';
  return `${discard}, ${count(pages)} pages in ${count(punches)} punches${cut}`;
}

function describeHints({ hint }: GuestStatus): string {
  if (hint === null || hint.state === 'unsupported') return hint?.state ?? '-';
  return `${hintWords(hint, formatSize)}, ${formatSize(hint.hintedBytes)} in ${count(hint.ranges)} ranges`;
}

function describeRefused({ counters }: GuestStatus): string {
  if (counters === null) return '-';
  const refused: [number, string][] = [
    [counters.badBuffers, 'buffers'],
    [counters.badPages, 'pages'],
    [counters.badRequests, 'requests'],
    [counters.brokenRings, 'rings'],
  ];
  const some = refused.filter(([number]) => number > 0);
  return some.map(([number, what]) => `${count(number)} ${what}`).join(', ') || 'nothing';
}
