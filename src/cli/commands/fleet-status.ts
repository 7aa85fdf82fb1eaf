/** `aerostat fleet status`, `top` and `plan`: how a fleet is, and what its leader would do. */
import { Command } from 'commander';
import type { FleetClient } from '../../fleet/client.ts';
import type { HostSeen } from '../../fleet/hosts-seen.ts';
import type { Refusal } from '../../fleet/messages.ts';
import { type CliContext, printJson, printLine, sleep } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { type FleetChoice, withFleet, withFleetClient } from '../fleet-options.ts';
import { readKeys } from '../keys.ts';
import { durationOption } from '../options.ts';
import { Screen } from '../screen.ts';
import { formatSize } from '../size.ts';
import { isScreen } from '../style.ts';
import { renderTable } from '../table.ts';

/** A report that is older is marked. */
const OLD_PERIODS = 3;

interface FleetSeen {
  readonly leader: { readonly host: string; readonly epoch: number } | null;
  readonly draining: readonly string[];
  readonly hosts: readonly HostSeen[];
  readonly messagesRefused: Readonly<Record<Refusal, number>>;
}

export function fleetStatusCommand(context: CliContext): Command {
  const command = new Command('status')
    .description('hosts of the fleet, how old their reports are, their guests, and who leads')
    .addHelpText(
      'after',
      `
Examples:
  aerostat fleet status
  aerostat fleet status --json | jq '.hosts[] | select(.ageMs > 10000) | .report.host'

A host whose report could not be seen to change is marked with ?: its age is not known.`,
    )
    .action((choice: FleetChoice) =>
      withFleetClient(context, choice, async client => {
        await client.look();
        const seen = await lookAt(client);
        if (choice.json) printJson(context.stdout, seen);
        else for (const line of describe(seen)) printLine(context.stdout, line);
      }),
    );
  return withFleet(command);
}

interface TopChoice extends FleetChoice {
  readonly interval: number;
}

export function fleetTopCommand(context: CliContext): Command {
  const command = new Command('top')
    .description('the same, over and over; q ends it')
    .addOption(durationOption('--interval <duration>', 'how often to look').default(1000, '1s'))
    .addHelpText(
      'after',
      '\nExamples:\n  aerostat fleet top\n  aerostat fleet top --interval 5s\n\nWithout a terminal it prints one table and ends.',
    )
    .action((choice: TopChoice) => withFleetClient(context, choice, client => top(context, client, choice)));
  return withFleet(command);
}

async function top(
  { stdin, stdout, env, interrupt }: CliContext,
  client: FleetClient,
  choice: TopChoice,
): Promise<void> {
  await client.look();
  if (choice.json) return void printJson(stdout, await lookAt(client));
  if (!isScreen(stdout, env)) {
    for (const line of describe(await lookAt(client))) printLine(stdout, line);
    return;
  }
  const screen = new Screen(stdout);
  const end = new AbortController();
  const release = readKeys(stdin, key => {
    if (key === 'q') end.abort();
  });
  const over = AbortSignal.any([end.signal, interrupt]);
  try {
    while (!over.aborted) {
      screen.draw(describe(await lookAt(client)));
      await sleep(choice.interval, over).catch(() => {});
    }
    interrupt.throwIfAborted();
  } finally {
    release();
    screen.close();
  }
}

async function lookAt(client: FleetClient): Promise<FleetSeen> {
  const [leader, { draining }] = await Promise.all([client.leader(), client.wishes()]);
  return { leader, draining, hosts: client.hosts, messagesRefused: client.messagesRefused };
}

function describe({ leader, draining, hosts, messagesRefused }: FleetSeen): string[] {
  const refused = Object.values(messagesRefused).reduce((sum, count) => sum + count, 0);
  return [
    leader === null ? 'no host leads' : `${leader.host} leads (epoch ${leader.epoch})`,
    ...(draining.length === 0 ? [] : [`to be empty: ${draining.join(', ')}`]),
    ...(refused === 0 ? [] : [`${refused} reports were refused as nonsense, or as those of a newer version`]),
    ...(hosts.length === 0 ? ['no host has reported'] : hostTable(hosts, draining)),
    ...guestLines(hosts),
  ];
}

function hostTable(hosts: readonly HostSeen[], draining: readonly string[]): string[] {
  const right = 'right' as const;
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  return renderTable<HostSeen>(
    [
      { title: 'HOST', text: ({ report }) => report.host },
      { title: 'REPORT', align: right, text: ageWords },
      { title: 'GUESTS', align: right, text: ({ report }) => String(report.guests.length) },
      {
        title: 'NEED',
        align: right,
        text: ({ report }) => formatSize(sum(report.guests.map(guest => guest.needBytes))),
      },
      {
        title: 'OF',
        align: right,
        text: ({ report }) => formatSize(report.memoryBytes - report.reserveBytes),
      },
      { title: 'COMING', align: right, text: ({ report }) => String(report.incoming.length) },
      { title: 'LEAVING', align: right, text: ({ report }) => String(report.departures.length) },
      { title: 'STATE', text: seen => stateWords(seen, draining) },
    ],
    hosts,
  );
}

const ageWords = ({ ageMs }: HostSeen): string => (ageMs === null ? '?' : `${formatDuration(ageMs)} ago`);

function stateWords({ report, ageMs }: HostSeen, draining: readonly string[]): string {
  if (ageMs === null || ageMs > OLD_PERIODS * report.periodMs) return 'silent';
  return draining.includes(report.host) ? (report.guests.length === 0 ? 'drained' : 'draining') : 'steady';
}

function guestLines(hosts: readonly HostSeen[]): string[] {
  const rows = hosts.flatMap(({ report }) =>
    report.guests.map(guest => ({ host: report.host, guest, report })),
  );
  if (rows.length === 0) return [];
  const table = renderTable(
    [
      { title: 'GUEST', text: row => row.guest.guest },
      { title: 'HOST', text: row => row.host },
      { title: 'MEMORY', align: 'right', text: row => formatSize(row.guest.sizeBytes) },
      { title: 'RESIDENT', align: 'right', text: row => formatSize(row.guest.residentBytes) },
      { title: 'NEED', align: 'right', text: row => formatSize(row.guest.needBytes) },
      {
        title: 'WRITES',
        align: 'right',
        text: ({ guest: { dirtyBytesPerSecond: rate } }) => (rate === null ? '-' : `${formatSize(rate)}/s`),
      },
      {
        title: 'MOVE',
        text: ({ guest, report }) => {
          const departure = report.departures.find(({ guest: name }) => name === guest.guest);
          return departure === undefined ? (guest.obstacle ?? '') : `to ${departure.to}: ${departure.status}`;
        },
      },
    ],
    rows,
  );
  return ['', ...table];
}

export function fleetPlanCommand(context: CliContext): Command {
  const command = new Command('plan')
    .description('what the leader would order now, and why; nothing is moved by it')
    .addHelpText('after', '\nExamples:\n  aerostat fleet plan\n  aerostat fleet plan --json')
    .action((choice: FleetChoice) =>
      withFleetClient(context, choice, async client => {
        const { host, epoch, orders, reasons } = await client.ask({ ask: 'plan' });
        if (choice.json) return void printJson(context.stdout, { leader: host, epoch, orders, reasons });
        printLine(context.stdout, `${host} leads (epoch ${epoch})`);
        for (const reason of reasons) printLine(context.stdout, reason);
        if (orders.length === 0) printLine(context.stdout, 'nothing would be moved');
      }),
    );
  return withFleet(command);
}
