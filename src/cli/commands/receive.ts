/** `aerostat receive`: a place for a machine that comes from elsewhere, and its host once it is there. */
import { Command, Option } from 'commander';
import type { MigrationDestination } from '../../migration/destination.ts';
import { defined } from '../../sys/defined.ts';
import type { TransferAddress } from '../../transfer/address.ts';
import { parseTransferAddress } from '../../transfer/address.ts';
import type { WarmUp } from '../../vm/warm-up.ts';
import { type CliContext, interrupted, printLine } from '../context.ts';
import { formatDuration } from '../duration.ts';
import { checkNames } from '../guest-options.ts';
import { type MachineChoice, serveMachine, tlsOf, withTls } from '../machine.ts';
import { durationOption, memoryMaxOption, value, withApi, withLog } from '../options.ts';
import { openLog } from '../serve.ts';
import { styleOf } from '../style.ts';
import { InterruptedError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat receive --listen 0.0.0.0:4444
  aerostat receive --listen '[::1]:4444' --api there --memory-max 4G
  aerostat receive --listen 0.0.0.0:4444 --tls-cert host2.pem --tls-key host2.key --tls-ca ca.pem

It waits for one machine. When that is there, its API and its console are here, as those of aerostat vm; when it does not
arrive, this ends with an error, and the machine is where it was. Without TLS anyone who reaches the port can send one.`;

interface ReceiveChoice extends MachineChoice {
  readonly listen: TransferAddress;
  readonly name: string;
  readonly memoryMax: number;
  readonly warmUp: WarmUp;
  readonly wait?: number;
}

export function receiveCommand(context: CliContext): Command {
  const command = new Command('receive')
    .description('wait for a machine that another host sends, and run it')
    .addOption(
      new Option('--listen <host:port>', 'where it is sent to; port 0 for any')
        .argParser(value(parseTransferAddress))
        .makeOptionMandatory(),
    )
    .option('--name <name>', 'what it is called here', 'vm')
    .addOption(memoryMaxOption())
    .addOption(
      durationOption('--wait <duration>', 'give up when no machine has come by then (default: never)'),
    )
    .addOption(
      new Option(
        '--warm-up <how>',
        'before it listens: thorough, or brief: it takes a third less of a processor, and the guest stands still some milliseconds longer',
      )
        .choices(['thorough', 'brief'])
        .default('thorough'),
    )
    .option('--json', "print JSON: a line for each of the console's answers and events")
    .addHelpText('after', EXAMPLES)
    .action((choice: ReceiveChoice) => receive(context, choice));
  return withTls(withLog(withApi(command), 'warn'));
}

async function receive(context: CliContext, choice: ReceiveChoice): Promise<void> {
  checkNames([choice.name]);
  const tls = await tlsOf(choice);
  const [
    log,
    { IncomingVm },
    { TransferListener },
    { MigrationDestination },
    { systemClock },
    { formatTransferAddress },
  ] = await Promise.all([
    openLog(context, choice),
    import('../../vm/incoming-vm.ts'),
    import('../../transfer/listener.ts'),
    import('../../migration/destination.ts'),
    import('../../transfer/clock.ts'),
    import('../../transfer/address.ts'),
  ]);
  const place = await IncomingVm.open({ name: choice.name, log, warmUp: choice.warmUp });
  const destination = new MigrationDestination({
    machine: place,
    ramOf: () => place.ram,
    memoryBytesMax: choice.memoryMax,
    clock: systemClock,
  });
  try {
    const listener = await TransferListener.open({
      address: choice.listen,
      accept: inlet => destination.accept(inlet),
      ...defined({ tls }),
    });
    try {
      announce(context, choice, formatTransferAddress(listener.address));
      const { wait } = choice;
      const impatience = wait === undefined ? undefined : setTimeout(() => giveUp(destination, wait), wait);
      const signal = interrupted(context.interrupt).then(name => {
        destination.cancel(`it was interrupted by ${name}`);
        // A machine that is being handed over at this moment arrives, and is switched off.
        throw new InterruptedError(name);
      });
      await Promise.race([destination.outcome, signal]).finally(() => clearTimeout(impatience));
      place.vm.arrival = () => destination.arrival;
      // It keeps listening: a source that lost its connections asks over a new one where its guest is.
      await serveMachine(context, choice, { vm: place.vm, tls, log });
    } finally {
      await listener.close();
    }
  } finally {
    await place.close();
  }
}

/** A machine that is on its way is waited for as long as it takes. */
function giveUp(destination: MigrationDestination, waitedMs: number): void {
  if (destination.phase === 'waiting')
    destination.cancel(`no machine came within ${formatDuration(waitedMs)}`);
}

function announce({ stdout, stderr, env }: CliContext, { json }: ReceiveChoice, address: string): void {
  if (json === true) printLine(stdout, JSON.stringify({ event: 'listening', address }));
  else printLine(stderr, styleOf(stderr, env).dim(`Waiting for a machine at ${address}.`));
}
