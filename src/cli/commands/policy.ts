/** `aerostat policy`: the memory policy that runs, asked and steered; running it is policy-run.ts's. */
import { existsSync } from 'node:fs';
import { Command, Option } from 'commander';
import type { Control } from '../../control/operations.ts';
import {
  type GuestPolicy,
  type GuestPolicyChanges,
  POLICY_MODES,
  type PolicyStatus,
  RESERVATION_MS,
  RESERVATION_MS_MAX,
  SHARES_MAX,
} from '../../control/policy.ts';
import { isUnsaid, policyDirectory, policySocket } from '../../server/address.ts';
import { UnreachableError } from '../../server/client.ts';
import { defined } from '../../sys/defined.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { type CliContext, printJson, printLine, sleep } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { wholeNumber } from '../measure.ts';
import { type ApiChoice, connect, durationOption, value, withJson } from '../options.ts';
import { formatSize, parsePages } from '../size.ts';
import { renderFields, renderTable } from '../table.ts';
import { UsageError } from '../usage.ts';
import { NotReachedError } from '../wait.ts';
import { policyReplayCommand } from './policy-replay.ts';
import { policyGuardCommand, policyRecordCommand, policyRunCommand } from './policy-run.ts';

const EXAMPLES = `
Examples:
  aerostat policy run --dry-run          decides and explains, and moves nothing
  aerostat policy status
  aerostat policy explain web            why web has what it has
  aerostat policy set web --min 512M --shares 2000
  aerostat policy reserve 4G --for web2  returns when the memory is free at the host

docs/policy.md says how it decides, how it compares with others, and when not to balloon.`;

const WHERE = `
Without --api, the policy that runs by itself is asked (policy.sock in the user's runtime directory, or AEROSTAT_POLICY_API),
and where there is none the daemon, which may have one inside (aerostat device --policy).`;

interface AskChoice extends ApiChoice {
  readonly json?: boolean;
}

export function policyCommand(context: CliContext): Command {
  const command = new Command('policy')
    .description('steer the memory of all guests, and say why each has what it has')
    .addHelpText('after', EXAMPLES);
  for (const one of [
    policyRunCommand,
    statusCommand,
    explainCommand,
    holdCommand,
    resumeCommand,
    setCommand,
    reserveCommand,
    releaseCommand,
    dryRunCommand,
    reloadCommand,
    policyRecordCommand,
    policyReplayCommand,
  ]) {
    command.addCommand(one(context));
  }
  command.addCommand(policyGuardCommand(context), { hidden: true });
  return command;
}

/** The policy that is meant. */
function policyOf(context: CliContext, choice: AskChoice): Control {
  const { env } = context;
  const named = env.AEROSTAT_POLICY_API;
  const own = named ?? policySocket(env);
  // What is said of the policy wins over what is said of daemons.
  const isOwn =
    choice.api === undefined && (named !== undefined || (isUnsaid(choice.api, env) && existsSync(own)));
  return connect(context, isOwn ? { ...choice, api: own } : choice);
}

const asking = (command: Command, examples: string): Command =>
  withJson(command).addHelpText('after', `\nExamples:\n${examples}\n${WHERE}`);

function statusCommand(context: CliContext): Command {
  const command = new Command('status')
    .description('how the policy is, the host’s memory, and what each guest needs and has')
    .action(async (choice: AskChoice) => {
      const { status, left } = await statusOrLeft(context, choice);
      if (choice.json) printJson(context.stdout, status);
      else for (const line of [...describeStatus(status), ...left]) printLine(context.stdout, line);
    });
  return asking(command, '  aerostat policy status\n  aerostat policy status --json');
}

/** Of a policy that was killed, what it left word of: its status, and lines about its targets. */
async function statusOrLeft(
  context: CliContext,
  choice: AskChoice,
): Promise<{ readonly status: PolicyStatus; readonly left: readonly string[] }> {
  try {
    return { status: await policyOf(context, choice).policy(), left: [] };
  } catch (error) {
    if (!(error instanceof UnreachableError)) throw error;
    const [{ readHeartbeats, leaseEndMs }, { statusLeft }] = await Promise.all([
      import('../../steering/heartbeat.ts'),
      import('../../steering/left-leases.ts'),
    ]);
    const { env } = context;
    const api = choice.api ?? env.AEROSTAT_POLICY_API ?? policySocket(env);
    const heartbeat = readHeartbeats(policyDirectory(env)).find(one => one.api === api);
    if (heartbeat === undefined) throw error;
    const ended = new Date(leaseEndMs(heartbeat)).toLocaleTimeString('en-GB');
    const left = heartbeat.guests.map(({ name, targetBytes, released }) =>
      released
        ? `${name}: all memory is its own again`
        : `${name}: was told to give ${formatSize(targetBytes)}`,
    );
    const silence = `process ${heartbeat.pid} answers no more; the leases of its targets end or ended at ${ended} (${heartbeat.onSilence})`;
    return { status: statusLeft(heartbeat, monotonicMs()), left: [silence, ...left] };
  }
}

function describeStatus(status: PolicyStatus): string[] {
  const { state, periodMs, decidedAgoMs, budget, reservations, guests } = status;
  if (state === 'off') return ['no memory policy runs here; start one with "aerostat policy run"'];
  const ago =
    decidedAgoMs === null ? 'has decided nothing yet' : `decided ${formatDuration(decidedAgoMs)} ago`;
  const words = { running: 'running', 'dry-run': 'dry run: nothing is moved', silent: 'SILENT' }[state];
  return [
    `${words}; ${ago}, every ${formatDuration(periodMs ?? 0)}; ${status.moves} targets set`,
    ...(status.settingsError === null ? [] : [`settings refused: ${status.settingsError}`]),
    ...(budget === null ? [] : [budget.sentence]),
    ...reservations.map(
      ({ name, bytes, ready, missingBytes }) =>
        `${formatSize(bytes)} reserved for ${name}: ${ready ? 'free' : `${formatSize(missingBytes)} missing`}`,
    ),
    ...(guests.length > 0 ? guestTable(guests) : budget === null ? [] : ['no guests']),
  ];
}

const sizeOrDash = (bytes: number | null | undefined): string =>
  bytes === null || bytes === undefined ? '-' : formatSize(bytes);

function guestTable(guests: readonly GuestPolicy[]): string[] {
  const right = 'right' as const;
  return renderTable<GuestPolicy>(
    [
      { title: 'GUEST', text: guest => guest.name },
      { title: 'MODE', text: guest => guest.mode },
      { title: 'MEMORY', align: right, text: guest => sizeOrDash(guest.decision?.memoryBytes) },
      { title: 'USES', align: right, text: guest => sizeOrDash(guest.decision?.usedBytes) },
      { title: 'NEEDS', align: right, text: guest => sizeOrDash(guest.decision?.needBytes) },
      { title: 'KEEPS', align: right, text: guest => sizeOrDash(guest.decision?.keepBytes) },
      { title: 'WANTS', align: right, text: guest => sizeOrDash(guest.decision?.wantBytes) },
      { title: 'BY', text: guest => guest.decision?.bound ?? '-' },
      { title: 'HELD', text: guest => guest.decision?.held.replace(/^no$/, '-') ?? '-' },
      { title: 'ERROR', text: guest => guest.error ?? '' },
    ],
    guests,
  );
}

function explainCommand(context: CliContext): Command {
  const command = new Command('explain')
    .description('why a guest has what it has')
    .argument('<guest>')
    .action(async (name: string, choice: AskChoice) => {
      const guest = await policyOf(context, choice).guestPolicy(name);
      if (choice.json) printJson(context.stdout, guest);
      else for (const line of describeGuest(guest)) printLine(context.stdout, line);
    });
  return asking(command, '  aerostat policy explain web\n  aerostat policy explain web --json');
}

function describeGuest(guest: GuestPolicy): string[] {
  const { name, mode, decision, heldSinceMs, error, harms, oomKills, settings } = guest;
  const fields: [string, string][] = [['mode', mode]];
  if (heldSinceMs !== null) fields.push(['held since', new Date(heldSinceMs).toISOString()]);
  if (settings.minBytes !== null) fields.push(['minimum', formatSize(settings.minBytes)]);
  if (decision !== null) {
    fields.push(
      ['uses', sizeOrDash(decision.usedBytes)],
      ['needs', formatSize(decision.needBytes)],
      ['floor', formatSize(decision.floorBytes)],
      ['maximum', formatSize(decision.maxBytes)],
      ['shares', String(decision.shares)],
      ['learned', formatSize(decision.learnedBytes)],
      ['balloon', `${sizeOrDash(decision.actualBytes)} of ${sizeOrDash(decision.targetBytes)}`],
      ['bound by', decision.bound],
      ['held back by', decision.held],
    );
    const { statisticsAgeMs } = decision;
    fields.push(['statistics', statisticsAgeMs === null ? 'none' : `${formatDuration(statisticsAgeMs)} old`]);
  }
  if (harms > 0) fields.push(['suffered', `${harms} times after memory was taken`]);
  if (oomKills > 0) fields.push(['killed', `${oomKills} programs for want of memory`]);
  if (error !== null) fields.push(['error', error]);
  return [decision?.sentence ?? `nothing was decided about ${name} yet.`, ...renderFields(fields)];
}

/** Prints the guest as it is after a change. */
function tell(context: CliContext, { json }: AskChoice, guest: GuestPolicy): void {
  if (json) printJson(context.stdout, guest);
  else
    printLine(
      context.stdout,
      `${guest.name}: ${guest.mode}; ${guest.decision?.sentence ?? 'not decided yet'}`,
    );
}

function holdCommand(context: CliContext): Command {
  const command = new Command('hold')
    .description('leave a guest’s target as it is')
    .argument('<guest>')
    .action(async (name: string, choice: AskChoice) =>
      tell(context, choice, await policyOf(context, choice).changeGuestPolicy(name, { mode: 'hold' })),
    );
  return asking(command, '  aerostat policy hold web');
}

function resumeCommand(context: CliContext): Command {
  const command = new Command('resume')
    .description('steer a guest again that a person holds')
    .argument('<guest>')
    .action(async (name: string, choice: AskChoice) =>
      tell(context, choice, await policyOf(context, choice).resumePolicy(name)),
    );
  return asking(
    command,
    '  aerostat set web --balloon 1G      the policy lets go of web\n  aerostat policy resume web',
  );
}

interface SetChoice extends AskChoice {
  readonly min?: number | 'default';
  readonly max?: number | 'default';
  readonly shares?: number | 'default';
  readonly mode?: GuestPolicyChanges['mode'];
}

/** `default` takes a setting away again. */
const orDefault =
  <Value>(parse: (text: string) => Value) =>
  (text: string): Value | 'default' =>
    text === 'default' ? text : parse(text);
const orNull = (value: number | 'default'): number | null => (value === 'default' ? null : value);

function setCommand(context: CliContext): Command {
  const size = orDefault(value(parsePages));
  const command = new Command('set')
    .description('set a guest’s minimum, maximum, shares or mode')
    .argument('<guest>')
    .addOption(new Option('--min <size>', 'what it keeps whatever happens, or default').argParser(size))
    .addOption(new Option('--max <size>', 'the most that it gets, or default').argParser(size))
    .addOption(
      new Option('--shares <number>', 'its weight among the guests, or default').argParser(
        orDefault(sharesOf),
      ),
    )
    .addOption(new Option('--mode <mode>', 'who sets its target').choices([...POLICY_MODES]))
    .action(async (name: string, choice: SetChoice) => {
      const { min, max, shares, mode } = choice;
      const changes: GuestPolicyChanges = {
        ...(min === undefined ? {} : { minBytes: orNull(min) }),
        ...(max === undefined ? {} : { maxBytes: orNull(max) }),
        ...(shares === undefined ? {} : { shares: orNull(shares) }),
        ...defined({ mode }),
      };
      if (Object.keys(changes).length === 0) {
        throw new UsageError('name what is to be set: --min, --max, --shares or --mode');
      }
      tell(context, choice, await policyOf(context, choice).changeGuestPolicy(name, changes));
    });
  return asking(
    command,
    `  aerostat policy set web --min 512M --shares 2000
  aerostat policy set web --min default
What is set like this wins over the file of settings, and is remembered.`,
  );
}

function sharesOf(text: string): number {
  const shares = wholeNumber(text);
  if (shares <= SHARES_MAX) return shares;
  throw new UsageError(`shares are 1 to ${SHARES_MAX}`);
}

interface ReserveChoice extends AskChoice {
  readonly for: string;
  readonly keep: number;
  readonly timeout: number;
  readonly wait: boolean;
}

const LOOK_MS = 250;

function reserveCommand(context: CliContext): Command {
  const command = new Command('reserve')
    .description('keep memory for a guest that is about to start, and wait until it is free')
    .argument('<size>', 'how much', value(parsePages))
    .requiredOption('--for <name>', 'the guest; by connecting it ends the reservation')
    .addOption(
      durationOption('--keep <duration>', 'end the reservation after this', RESERVATION_MS_MAX).default(
        RESERVATION_MS,
        formatDuration(RESERVATION_MS),
      ),
    )
    .addOption(durationOption('--timeout <duration>', 'longest wait').default(60_000, '1m'))
    .option('--no-wait', 'return at once, and say what is missing')
    .action((bytes: number, choice: ReserveChoice) => reserve(context, bytes, choice));
  return asking(
    command,
    `  aerostat policy reserve 4G --for web2 && start-web2
  aerostat policy reserve 4G --for web2 --timeout 10s
It ends with 0 when the memory is physically free at the host beyond its reserve, with 4 when it is not in time.`,
  );
}

async function reserve(context: CliContext, bytes: number, choice: ReserveChoice): Promise<void> {
  const policy = policyOf(context, choice);
  const order = { name: choice.for, bytes, forMs: choice.keep };
  let reservation = await policy.reserve(order);
  for (let waitedMs = 0; choice.wait && !reservation.ready; waitedMs += LOOK_MS) {
    if (waitedMs >= choice.timeout) {
      throw new NotReachedError(
        `${formatSize(reservation.missingBytes)} of ${formatSize(bytes)} for ${choice.for} are not free after ${formatDuration(choice.timeout)}; they stay reserved ("aerostat policy release ${choice.for}" gives them up)`,
      );
    }
    await sleep(LOOK_MS, context.interrupt);
    const found = (await policy.policy()).reservations.find(({ name }) => name === choice.for);
    if (found === undefined)
      throw new NotReachedError(`the reservation for ${choice.for} was given up meanwhile`);
    reservation = found;
  }
  if (choice.json) printJson(context.stdout, reservation);
  else {
    const state = reservation.ready ? 'free' : `${formatSize(reservation.missingBytes)} missing`;
    printLine(context.stdout, `${formatSize(bytes)} reserved for ${choice.for}: ${state}`);
  }
}

function releaseCommand(context: CliContext): Command {
  const command = new Command('release')
    .description('give a reservation up')
    .argument('<name>', 'whom it is for')
    .action(async (name: string, choice: AskChoice) => {
      const status = await policyOf(context, choice).releaseReservation({ name });
      if (choice.json) printJson(context.stdout, status);
      else printLine(context.stdout, `nothing is reserved for ${name} any more`);
    });
  return asking(command, '  aerostat policy release web2');
}

function dryRunCommand(context: CliContext): Command {
  const command = new Command('dry-run')
    .description('whether it only decides and explains')
    .argument('<state>', 'on or off')
    .action(async (state: string, choice: AskChoice) => {
      if (state !== 'on' && state !== 'off') throw new UsageError(`dry run is on or off, not ${state}`);
      const status = await policyOf(context, choice).changePolicy({ dryRun: state === 'on' });
      if (choice.json) printJson(context.stdout, status);
      else printLine(context.stdout, status.dryRun ? 'dry run: nothing is moved' : 'targets are set');
    });
  return asking(command, '  aerostat policy dry-run on\n  aerostat policy dry-run off');
}

function reloadCommand(context: CliContext): Command {
  const command = new Command('reload')
    .description('read the file of settings anew')
    .action(async (choice: AskChoice) => {
      const status = await policyOf(context, choice).reloadPolicy();
      if (choice.json) printJson(context.stdout, status);
      else printLine(context.stdout, `${status.settingsPath} is in force`);
    });
  return asking(command, '  aerostat policy reload      the same as SIGHUP, and says what is wrong');
}
