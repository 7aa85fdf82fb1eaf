/** `aerostat fleet drain`, `undrain` and `move`: wishes of a person, and how they come true. */
import { Command } from 'commander';
import type { FleetClient } from '../../fleet/client.ts';
import { type CliContext, printJson, printLine, sleep } from '../context.ts';
import { type FleetChoice, withFleet, withFleetClient } from '../fleet-options.ts';
import { durationOption } from '../options.ts';
import { UsageError } from '../usage.ts';
import { NotReachedError } from '../wait.ts';

const LOOK_MS = 200;
/** Between two questions why it takes so long. */
const REASONS_MS = 2000;

interface WaitChoice extends FleetChoice {
  readonly wait?: boolean;
  readonly timeout?: number;
}

const waiting = (command: Command): Command =>
  withFleet(
    command
      .option('--no-wait', 'return as soon as the leader has it')
      .addOption(durationOption('--timeout <duration>', 'wait no longer than this; the wish stays')),
  );

export function fleetDrainCommand(context: CliContext): Command {
  const command = new Command('drain')
    .description('move all guests of a host elsewhere, and let none come')
    .argument('<host>')
    .addHelpText(
      'after',
      `
Examples:
  aerostat fleet drain host2                  returns when host2 is empty
  aerostat fleet drain host2 --timeout 10m    exit code 4 when it is not by then
  aerostat fleet undrain host2                take it back; guests may come again

A host stays drained until it is undrained, also when the leader changes or the host is started anew. Ctrl-C ends the
waiting, not the drain.`,
    )
    .action((host: string, choice: WaitChoice) =>
      withFleetClient(context, choice, async client => {
        await client.ask({ ask: 'drain', host });
        if (choice.wait !== false) await untilEmpty(context, client, host, choice);
        if (choice.json)
          printJson(context.stdout, { host, draining: true, empty: guestsAt(client, host) === 0 });
        else if (choice.wait !== false) printLine(context.stdout, `${host} is empty`);
        else printLine(context.stdout, `${host} is to be empty`);
      }),
    );
  return waiting(command);
}

/** Null while the host's report is of unknown age. */
function guestsAt(client: FleetClient, host: string): number | null {
  const seen = client.hosts.find(({ report }) => report.host === host);
  if (seen === undefined || seen.ageMs === null) return null;
  return seen.report.guests.length + seen.report.departures.length + seen.report.incoming.length;
}

async function untilEmpty(
  context: CliContext,
  client: FleetClient,
  host: string,
  choice: WaitChoice,
): Promise<void> {
  const told = new Teller(context, client, choice.json === true);
  for (let waitedMs = 0; guestsAt(client, host) !== 0; waitedMs += LOOK_MS) {
    if (waitedMs >= (choice.timeout ?? Number.POSITIVE_INFINITY))
      throw new NotReachedError(
        `${host} has ${guestsAt(client, host) ?? 'an unknown number of'} guests still; it is drained further`,
      );
    await told.about(waitedMs);
    await sleep(LOOK_MS, context.interrupt);
  }
}

/** Says each reason once, on the error output: what is printed is for programs. */
class Teller {
  readonly #context: CliContext;
  readonly #client: FleetClient;
  readonly #isQuiet: boolean;
  readonly #told = new Set<string>();

  constructor(context: CliContext, client: FleetClient, isQuiet: boolean) {
    this.#context = context;
    this.#client = client;
    this.#isQuiet = isQuiet;
  }

  async about(waitedMs: number): Promise<void> {
    if (this.#isQuiet || waitedMs % REASONS_MS !== 0) return;
    const { reasons } = await this.#client.ask({ ask: 'plan' });
    for (const reason of reasons.filter(each => !this.#told.has(each))) {
      this.#told.add(reason);
      printLine(this.#context.stderr, reason);
    }
  }
}

export function fleetUndrainCommand(context: CliContext): Command {
  const command = new Command('undrain')
    .description('let guests come to a host again')
    .argument('<host>')
    .addHelpText(
      'after',
      '\nExamples:\n  aerostat fleet undrain host2\n\nGuests that were moved away stay where they are.',
    )
    .action((host: string, choice: FleetChoice) =>
      withFleetClient(context, choice, async client => {
        await client.ask({ ask: 'undrain', host });
        if (choice.json) printJson(context.stdout, { host, draining: false });
        else printLine(context.stdout, `guests may come to ${host} again`);
      }),
    );
  return withFleet(command);
}

export function fleetMoveCommand(context: CliContext): Command {
  const command = new Command('move')
    .description('move one guest to a host')
    .argument('<guest>', 'its name, or HOST/GUEST to say where it is now')
    .argument('<host>', 'where to')
    .addHelpText(
      'after',
      `
Examples:
  aerostat fleet move web host3
  aerostat fleet move host1/web host3 --timeout 5m

The order goes through the leader like any other: the destination reserves the memory first, and a failure leaves the guest
where it is.`,
    )
    .action((word: string, to: string, choice: WaitChoice) =>
      withFleetClient(context, choice, async client => {
        const { guest, from } = guestOf(word);
        const { id } = await client.ask({ ask: 'move', guest, from, to });
        if (choice.wait !== false) await untilMoved(context, client, id, choice);
        if (choice.json) printJson(context.stdout, { guest, to, wish: id, moved: choice.wait !== false });
        else
          printLine(
            context.stdout,
            choice.wait !== false ? `${guest} runs at ${to}` : `${guest} is to move to ${to}`,
          );
      }),
    );
  return waiting(command);
}

function guestOf(word: string): { readonly guest: string; readonly from: string | null } {
  const [first, second, ...rest] = word.split('/');
  if (rest.length > 0 || first === '' || second === '')
    throw new UsageError(`${word} is no guest: write GUEST or HOST/GUEST`);
  return second === undefined ? { guest: first, from: null } : { guest: second, from: first };
}

async function untilMoved(
  context: CliContext,
  client: FleetClient,
  id: string,
  choice: WaitChoice,
): Promise<void> {
  const { FleetRefusalError } = await import('../../fleet/errors.ts');
  const told = new Teller(context, client, choice.json === true);
  for (let waitedMs = 0; ; waitedMs += LOOK_MS) {
    const outcome = await client.endOf(id);
    if (outcome?.result === 'moved') return;
    if (outcome !== null) throw new FleetRefusalError(`it was not moved: ${outcome.why ?? outcome.result}`);
    if (waitedMs >= (choice.timeout ?? Number.POSITIVE_INFINITY))
      throw new NotReachedError('it has not moved yet; the wish stays');
    await told.about(waitedMs);
    await sleep(LOOK_MS, context.interrupt);
  }
}
