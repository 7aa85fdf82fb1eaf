/** `aerostat status`: how guests are, as a table, or one guest in full. */
import { Command } from 'commander';
import type { GuestStatus } from '../../daemon/control.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { type CommonChoice, connect, withJson } from '../options.ts';
import { formatSize } from '../size.ts';
import { type Style, styleOf } from '../style.ts';
import { type Column, renderFields, renderTable } from '../table.ts';

const EXAMPLES = `
Examples:
  aerostat status              all guests
  aerostat status vm1          one guest in full
  aerostat status --json       {"guests": [...]}, sizes in bytes`;

export function statusCommand(context: CliContext): Command {
  const command = new Command('status')
    .description('show guests, their memory and their balloons')
    .argument('[guest]', 'only this guest')
    .addHelpText('after', EXAMPLES)
    .action(async (name: string | undefined, choice: CommonChoice) => {
      const control = connect(context, choice);
      const guests = name === undefined ? await control.guests() : [await control.guest(name)];
      const { stdout } = context;
      if (choice.json) return void printJson(stdout, { guests });
      const style = styleOf(stdout, context.env);
      if (name !== undefined) return void printLine(stdout, describeGuest(guests[0], style));
      if (guests.length === 0) return void printLine(stdout, 'The daemon runs, but serves no guest.');
      printLine(stdout, renderTable([...guestColumns(style), errorColumn], guests).join('\n'));
    });
  return withJson(command);
}

const size = (bytes: number | null) => (bytes === null ? '-' : formatSize(bytes));
const state = (guest: GuestStatus) => (guest.connected ? 'connected' : 'waiting');

export const guestColumns = (style: Style): readonly Column<GuestStatus>[] => [
  { title: 'GUEST', text: guest => guest.name, paint: style.bold },
  {
    title: 'STATE',
    text: state,
    paint: (text, { connected }) => (connected ? style.green : style.dim)(text),
  },
  { title: 'MEMORY', align: 'right', text: guest => size(guest.memoryBytes) },
  { title: 'TARGET', align: 'right', text: guest => size(guest.targetBytes) },
  { title: 'BALLOON', align: 'right', text: guest => size(guest.balloonedBytes) },
  { title: 'PENDING', align: 'right', text: guest => size(guest.pendingBytes) },
  { title: 'RESIDENT', align: 'right', text: guest => size(guest.residentBytes) },
];

export const errorColumn: Column<GuestStatus> = {
  title: 'LAST ERROR',
  text: guest => guest.lastError ?? '-',
};

function describeGuest(guest: GuestStatus, style: Style): string {
  const { counters, hint } = guest;
  const count = (number: number) => number.toLocaleString('en');
  const hinted =
    hint.state === 'unsupported' ? '' : `, ${formatSize(hint.hintedBytes)} in ${count(hint.ranges)} ranges`;
  const says = guest.actualBytes === null ? '' : ` (the guest says ${formatSize(guest.actualBytes)})`;
  const refused = [
    [counters.badBuffers, 'buffers'],
    [counters.badPages, 'pages'],
    [counters.badRequests, 'requests'],
    [counters.brokenRings, 'rings'],
  ].filter(([number]) => Number(number) > 0);
  const fields: [string, string][] = [
    ['memory', size(guest.memoryBytes)],
    ['target', formatSize(guest.targetBytes)],
    ['balloon', `${formatSize(guest.balloonedBytes)}${says}`],
    ['pending', formatSize(guest.pendingBytes)],
    ['resident', size(guest.residentBytes)],
    [
      'given back',
      `${formatSize(guest.discardedBytes)} by inflating, ${formatSize(guest.reportedBytes)} by reporting`,
    ],
    ['discard', `${guest.discard}, ${count(counters.pages)} pages in ${count(counters.punches)} punches`],
    ['hints', `${hint.state}${hinted}`],
    ['profile', guest.profile],
    ['features', guest.features.join(' ') || '-'],
    ['socket', guest.socketPath ?? '-'],
    ['refused', refused.map(([number, what]) => `${count(Number(number))} ${what}`).join(', ') || 'nothing'],
    ['last error', guest.lastError ?? '-'],
  ];
  const painted = guest.connected ? style.green(state(guest)) : style.dim(state(guest));
  return [`${style.bold(guest.name)}: ${painted}`, ...renderFields(fields)].join('\n');
}
