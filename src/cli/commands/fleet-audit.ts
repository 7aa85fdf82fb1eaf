/** `aerostat fleet audit`: what was decided, ordered and done, from the stream; and whether it leads to the state that is. */
import { Command } from 'commander';
import type { AuditReplay } from '../../fleet/audit.ts';
import type { FleetClient } from '../../fleet/client.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { type FleetChoice, withFleet, withFleetClient } from '../fleet-options.ts';

interface AuditChoice extends FleetChoice {
  readonly replay?: boolean;
}

export function fleetAuditCommand(context: CliContext): Command {
  const command = new Command('audit')
    .description('every decision, order and outcome of the fleet')
    .option('--replay', 'decide all anew, and compare what the stream leads to with the fleet as it is')
    .addHelpText(
      'after',
      `
Examples:
  aerostat fleet audit
  aerostat fleet audit --json | jq 'select(.event.event == "outcome")'
  aerostat fleet audit --replay        exit code 1 where the stream and the fleet differ

With --json it prints a line for each event. Times are those of the server of NATS that stored them.`,
    )
    .action((choice: AuditChoice) =>
      withFleetClient(context, choice, client =>
        choice.replay ? replay(context, client, choice) : show(context, client, choice),
      ),
    );
  return withFleet(command);
}

async function show({ stdout }: CliContext, client: FleetClient, { json }: AuditChoice): Promise<void> {
  const [{ auditRecord }, { eventWords }] = await Promise.all([
    import('../../fleet/audit.ts'),
    import('../../fleet/reasons.ts'),
  ]);
  for await (const recorded of client.recorded()) {
    const record = auditRecord(recorded);
    if (record === undefined) continue;
    if (json) printJson(stdout, record);
    else printLine(stdout, `${new Date(record.timeMs).toISOString()}  ${eventWords(record.event)}`);
  }
}

async function replay({ stdout }: CliContext, client: FleetClient, { json }: AuditChoice): Promise<void> {
  const [{ AuditReplay, differences }, { ReplayError }] = await Promise.all([
    import('../../fleet/audit.ts'),
    import('../../fleet/errors.ts'),
  ]);
  const run: AuditReplay = new AuditReplay();
  for await (const recorded of client.recorded()) run.take(recorded);
  const { state } = run;
  const [hosts, { draining }] = await Promise.all([client.look(), client.wishes()]);
  const found = differences(
    state,
    hosts.filter(({ ageMs }) => ageMs !== null).map(({ report }) => report),
    draining,
  );
  const { orders, guests } = state;
  if (json) {
    printJson(stdout, {
      ...state,
      orders: Object.fromEntries(orders),
      guests: Object.fromEntries(guests),
      differences: found,
    });
  } else {
    const { same, other, withoutInput } = state.decisions;
    printLine(
      stdout,
      `${state.events} events, ${orders.size} orders; ${state.leader ?? 'no host'} led last (epoch ${state.epoch})`,
    );
    printLine(
      stdout,
      `${same + other} decisions made anew, ${other} of them another one; ${withoutInput} too large to be recorded whole`,
    );
    for (const [guest, host] of guests) printLine(stdout, `${guest} was moved to ${host}`);
    for (const line of found) printLine(stdout, line);
  }
  if (found.length > 0) throw new ReplayError(`the stream and the fleet differ in ${found.length} things`);
  if (!json) printLine(stdout, 'the stream leads to the state that the fleet is in');
}
