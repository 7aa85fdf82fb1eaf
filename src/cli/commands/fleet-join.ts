/** `aerostat fleet join`: makes this host, with its machines, part of a fleet for as long as the command runs. */
import { hostname, totalmem } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { Command } from 'commander';
import type { PlacementSettings } from '../../placement/types.ts';
import { fleetSocket, formatAddress, machineDirectory, parseAddress } from '../../server/address.ts';
import { readTokens } from '../../server/token.ts';
import { monotonicMs } from '../../sys/poll.ts';
import type { FleetText } from '../configuration/schema.ts';
import { type CliContext, interrupted } from '../context.ts';
import { parseDuration } from '../duration.ts';
import { busTo, type FleetChoice, type FleetPlace, fleetPlace, withFleet } from '../fleet-options.ts';
import { type ReceiversOptions, receiversOf } from '../fleet-receivers.ts';
import { connect, durationOption, type LogChoice, list, sizeOption, withLog } from '../options.ts';
import { parseRate } from '../rate.ts';
import { openLog } from '../serve.ts';
import { parsePages } from '../size.ts';
import { UsageError } from '../usage.ts';

const EXAMPLES = `
Examples:
  aerostat fleet join nats://nats1:4222,nats://nats2:4222 --address 10.0.0.1 --replicas 3
  aerostat fleet join --config /etc/aerostat/aerostat.toml
  aerostat vm --name web --memory 2G --api $XDG_RUNTIME_DIR/aerostat/machines/web.sock
                                       a machine of this host, in another terminal

The machines of this host are those whose APIs are in the folder --machines. They are processes of their own: they run on
when this command ends, and are found again. Without NATS this command waits for it, and the host goes on alone.
--api (fleet.sock in the user's runtime directory) answers GET /v1/fleet, /metrics and /healthz.`;

interface JoinChoice extends FleetChoice, LogChoice {
  readonly name?: string;
  readonly address?: string;
  readonly machines?: string;
  readonly memory?: number;
  readonly reserve?: number;
  readonly period?: number;
  readonly replicas?: number;
  readonly link?: string;
  readonly migrationTls?: readonly string[];
  readonly api?: string;
  readonly apiRemote?: boolean;
  readonly tokenFile?: string;
}

export function fleetJoinCommand(context: CliContext): Command {
  const command = new Command('join')
    .description('make this host part of a fleet')
    .argument('[servers]', 'servers of NATS, by commas', (words: string) => list(words))
    .option('--name <host>', "how the fleet calls this host (default: the machine's name)")
    .option('--address <host>', 'a name or address of this host, where others send machines to')
    .option('--machines <folder>', 'where the sockets of the machines are')
    .addOption(sizeOption('--memory <size>', "what guests and reserve have (default: this host's memory)"))
    .addOption(sizeOption('--reserve <size>', 'what the host keeps of it for itself (default: 0)'))
    .option('--link <rate>', 'what migrations can use, for example 10gbit (the default)')
    .addOption(durationOption('--period <duration>', 'how often to report and decide (default: 2s)', 60_000))
    .option(
      '--replicas <number>',
      'copies of what the fleet keeps, each at another server (default: 1)',
      replicasOf,
    )
    .option(
      '--migration-tls <files>',
      'migrate under TLS: certificate, key and CA, by commas; machines are started with the same',
      list,
    )
    .option('--api <address>', "where this host's view of the fleet is: PATH or HOST:PORT")
    .option('--token-file <path>', 'file with the tokens, needed over TCP')
    .option('--api-remote', 'let --api be an address that other machines can reach')
    .addHelpText('after', EXAMPLES)
    .action((servers: readonly string[] | undefined, choice: JoinChoice) =>
      runJoin(context, choice, servers),
    );
  return withLog(withFleet(command), 'info');
}

function replicasOf(text: string): number {
  if (/^[1-5]$/.test(text)) return Number(text);
  throw new UsageError(`${text} is not a number of copies; there may be 1 to 5`);
}

/** What the host is, by the options and the file. */
interface Host {
  readonly name: string;
  readonly machines: string;
  readonly memoryBytes: number;
  readonly reserveBytes: number;
  readonly linkBytesPerSecond: number;
  readonly receivers: ReceiversOptions;
  readonly placement: PlacementSettings;
}

async function runJoin(
  context: CliContext,
  choice: JoinChoice,
  servers: readonly string[] | undefined,
): Promise<void> {
  const read = await fleetPlace(context, choice, servers);
  const place = {
    ...read,
    periodMs: choice.period ?? read.periodMs,
    replicas: choice.replicas ?? read.replicas,
  };
  const { staleMsOf, placementOf, FLEET_PERIOD_MS_MIN } = await import('../../fleet/settings.ts');
  if (place.periodMs < FLEET_PERIOD_MS_MIN)
    throw new UsageError(`the shortest period is ${FLEET_PERIOD_MS_MIN}ms`);
  const host = await hostOf(context, choice, place);
  const address = parseAddress(choice.api ?? fleetSocket(context.env));
  const tokens = readTokens(choice.tokenFile, context.env);
  const [log, { Agent }, { Machines }, { serveAgent }] = await Promise.all([
    openLog(context, choice),
    import('../../fleet/agent.ts'),
    import('../../fleet/machines.ts'),
    import('../../fleet/agent-api.ts'),
  ]);
  const { periodMs, fleet } = place;
  const agent = new Agent({
    ...{ fleet, host: host.name, periodMs },
    memoryBytes: host.memoryBytes,
    reserveBytes: host.reserveBytes,
    linkBytesPerSecond: host.linkBytesPerSecond,
    placement: placementOf(periodMs, host.placement),
    staleMs: 2 * staleMsOf(periodMs),
    machines: new Machines(host.machines, socket => connect(context, { api: socket }), monotonicMs),
    startReceiver: receiversOf(host.receivers),
    openBus: () => busTo(place, `aerostat fleet ${host.name}`, true),
    now: monotonicMs,
    wallClock: Date.now,
    sleep: async ms => void (await delay(ms, undefined, { ref: false })),
    log: (level, message) => log({ level, message }),
  });
  const api = await serveAgent(agent, {
    address,
    tokens,
    allowRemote: choice.apiRemote ?? false,
    onError: (error, request) => log({ level: 'error', message: `${request} failed`, error }),
  });
  try {
    log({
      level: 'info',
      message: `${host.name}: its view of the fleet is at ${formatAddress(api.address)}`,
    });
    agent.start();
    const signal = await Promise.race([interrupted(context.interrupt), agent.failed]);
    log({ level: 'info', message: `leaving the fleet for ${signal}` });
  } finally {
    await agent.close();
    await api.close();
  }
}

async function hostOf(context: CliContext, choice: JoinChoice, { text }: FleetPlace): Promise<Host> {
  const [{ HOST_NAME }, { LINK_DEFAULT }] = await Promise.all([
    import('../../fleet/messages.ts'),
    import('../../fleet/settings.ts'),
  ]);
  const name = choice.name ?? text.host ?? hostname();
  if (!HOST_NAME.test(name))
    throw new UsageError(
      `no host can be called ${name}: letters, digits, dashes, underscores and single dots`,
    );
  const address = choice.address ?? text.address;
  if (address === undefined)
    throw new UsageError(
      'where do other hosts send machines to? Give --address, a name or address of this host',
    );
  return {
    name,
    machines: choice.machines ?? text.machines ?? machineDirectory(context.env),
    memoryBytes: choice.memory ?? sizeOf(text.memory) ?? totalmem(),
    reserveBytes: choice.reserve ?? sizeOf(text.reserve) ?? 0,
    linkBytesPerSecond: parseRate(choice.link ?? text.link ?? LINK_DEFAULT),
    receivers: { address, tls: tlsWords(choice.migrationTls) },
    placement: settingsOf(text),
  };
}

const sizeOf = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : parsePages(text);

function tlsWords(files: readonly string[] | undefined): readonly string[] {
  if (files === undefined) return [];
  if (files.length !== 3) throw new UsageError('--migration-tls needs three files: certificate, key and CA');
  const [cert, key, ca] = files;
  return ['--tls-cert', cert, '--tls-key', key, '--tls-ca', ca];
}

function settingsOf(text: FleetText): PlacementSettings {
  const { settle, patience, drains } = text;
  const coolDown = text['cool-down'];
  return {
    ...(settle === undefined ? {} : { settleMs: parseDuration(settle) }),
    ...(patience === undefined ? {} : { patienceMs: parseDuration(patience) }),
    ...(drains === undefined ? {} : { drainsMax: drains }),
    ...(coolDown === undefined ? {} : { coolDownMs: parseDuration(coolDown) }),
  };
}
