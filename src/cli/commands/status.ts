/** `aerostat status`: how guests are, as a table, or one guest in full. */
import { Command } from 'commander';
import type { GuestStatus } from '../../control/contract.ts';
import { isStuck, stuckWords } from '../../control/judgement.ts';
import { balloonOf } from '../../control/memory-use.ts';
import { AerostatError } from '../../sys/error.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { type GuestsChoice, lookAt, withGuestOptions, withGuests } from '../guests.ts';
import { formatSize } from '../size.ts';
import { type Style, styleOf } from '../style.ts';
import { type Column, renderFields, renderTable } from '../table.ts';

const EXAMPLES = `
Examples:
  aerostat status              all guests
  aerostat status vm1          one guest in full
  aerostat status --json       {"guests": [...]}, sizes in bytes
  aerostat status --qmp /run/qemu/web.qmp
                               a guest of QEMU's; - is what QEMU does not tell`;

export function statusCommand(context: CliContext): Command {
  const command = new Command('status')
    .description('show guests, their memory and their balloons')
    .argument('[guest]', 'only this guest')
    .addHelpText('after', EXAMPLES)
    .action((name: string | undefined, choice: GuestsChoice) =>
      withGuests(context, choice, async (control, failuresOf) => {
        const guests = await lookAt(control, name);
        const failures = failuresOf();
        showGuests(context, choice, { guests, name, failures });
        // A script must not take a table with gaps for a whole one.
        const [failed] = failures.keys();
        if (failed !== undefined) throw notAll(guests.length, failures);
      }),
    );
  return withGuestOptions(command);
}

type Failures = ReadonlyMap<string, AerostatError>;

interface Shown {
  readonly guests: readonly GuestStatus[];
  readonly name: string | undefined;
  readonly failures: Failures;
}

function showGuests(
  { stdout, env }: CliContext,
  choice: GuestsChoice,
  { guests, name, failures }: Shown,
): void {
  if (choice.json) return void printJson(stdout, { guests });
  const style = styleOf(stdout, env);
  if (name !== undefined) return void printLine(stdout, describeGuest(guests[0], style));
  if (guests.length === 0) return void printLine(stdout, 'The daemon runs, but serves no guest.');
  const columns = [...guestColumns(style, failures), errorColumn];
  printLine(stdout, renderTable(columns, guests).join('\n'));
}

/** With the code of the first failure, which decides what the command exits with. */
function notAll(count: number, failures: Failures): AerostatError {
  const [[name, first]] = failures;
  const others = failures.size === 1 ? '' : ` (and ${failures.size - 1} more)`;
  const message = `${failures.size} of ${count} guests cannot be asked: ${name}: ${first.message}${others}`;
  return new AerostatError(first.code, message);
}

const size = (bytes: number | null) => (bytes === null ? '-' : formatSize(bytes));
const stateOf = (guest: GuestStatus) =>
  !guest.connected ? 'waiting' : isStuck(guest) ? 'stuck' : 'connected';

const STATE_COLOURS: Readonly<Record<ReturnType<typeof stateOf>, keyof Style>> = {
  waiting: 'dim',
  stuck: 'red',
  connected: 'green',
};

const paintState = (text: string, guest: GuestStatus, style: Style) =>
  style[STATE_COLOURS[stateOf(guest)]](text);

/** `failures` are the guests of which nothing is known, for what hosts them does not answer. */
export const guestColumns = (
  style: Style,
  failures: Failures = new Map(),
): readonly Column<GuestStatus>[] => [
  { title: 'GUEST', text: guest => guest.name, paint: style.bold },
  {
    title: 'STATE',
    text: guest => (failures.has(guest.name) ? 'unreachable' : stateOf(guest)),
    paint: (text, guest) => paintState(text, guest, style),
  },
  { title: 'MEMORY', align: 'right', text: guest => size(guest.memoryBytes) },
  { title: 'TARGET', align: 'right', text: guest => size(guest.targetBytes) },
  { title: 'BALLOON', align: 'right', text: guest => size(balloonOf(guest)) },
  { title: 'PENDING', align: 'right', text: guest => size(guest.pendingBytes) },
  { title: 'RESIDENT', align: 'right', text: guest => size(guest.residentBytes) },
];

export const errorColumn: Column<GuestStatus> = {
  title: 'LAST ERROR',
  text: guest => guest.lastError ?? '-',
};

function describeGuest(guest: GuestStatus, style: Style): string {
  const fields: [string, string][] = [
    ['memory', size(guest.memoryBytes)],
    ['target', describeTarget(guest)],
    ['balloon', describeBalloon(guest)],
    ['pending', size(guest.pendingBytes)],
    ['resident', size(guest.residentBytes)],
    ['given back', describeGivenBack(guest)],
    ['discard', describeDiscard(guest)],
    ['hints', describeHints(guest)],
    ['profile', guest.profile ?? '-'],
    ['features', guest.features?.join(' ') || '-'],
    ['socket', guest.socketPath ?? '-'],
    ['refused', describeRefused(guest)],
    ['last error', guest.lastError ?? '-'],
  ];
  const painted = paintState(stateOf(guest), guest, style);
  return [`${style.bold(guest.name)}: ${painted}`, ...renderFields(fields)].join('\n');
}

const count = (number: number) => number.toLocaleString('en');

function describeTarget(guest: GuestStatus): string {
  const { targetBytes, shownTargetBytes } = guest;
  const stuck = stuckWords(guest, formatSize, formatDuration);
  if (stuck !== '') return `${size(targetBytes)}, ${stuck}`;
  const lowered = shownTargetBytes !== null && targetBytes !== null && shownTargetBytes < targetBytes;
  return lowered
    ? `${size(targetBytes)}, of which the driver is shown ${size(shownTargetBytes)}`
    : size(targetBytes);
}

function describeBalloon({ balloonedBytes, actualBytes }: GuestStatus): string {
  if (actualBytes === null) return size(balloonedBytes);
  const says = `the guest says ${formatSize(actualBytes)}`;
  return balloonedBytes === null ? says : `${formatSize(balloonedBytes)} (${says})`;
}

const describeGivenBack = ({ discardedBytes, reportedBytes }: GuestStatus): string =>
  discardedBytes === null && reportedBytes === null
    ? '-'
    : `${size(discardedBytes)} by inflating, ${size(reportedBytes)} by reporting`;

function describeDiscard({ discard, counters }: GuestStatus): string {
  if (discard === null || counters === null) return discard ?? '-';
  return `${discard}, ${count(counters.pages)} pages in ${count(counters.punches)} punches`;
}

function describeHints({ hint }: GuestStatus): string {
  if (hint === null || hint.state === 'unsupported') return hint?.state ?? '-';
  return `${hint.state}, ${formatSize(hint.hintedBytes)} in ${count(hint.ranges)} ranges`;
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
