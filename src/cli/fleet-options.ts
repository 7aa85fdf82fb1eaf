/** The fleet that a command is about: words of its options over those of the configuration, and the way to it. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { Bus } from '../fleet/bus.ts';
import type { FleetClient } from '../fleet/client.ts';
import type { Credentials } from '../fleet/nats.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { FleetText } from './configuration/schema.ts';
import { type CliContext, sleep } from './context.ts';
import { parseDuration } from './duration.ts';
import { list, withVerbose } from './options.ts';
import { UsageError } from './usage.ts';

export interface FleetChoice {
  readonly nats?: readonly string[];
  readonly fleet?: string;
  readonly config?: string;
  readonly creds?: string;
  readonly nkey?: string;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly json?: boolean;
}

/** What every command of the fleet has. */
export const withFleet = (command: Command): Command =>
  withVerbose(
    command
      .option('--nats <servers>', 'servers of NATS, by commas (env: AEROSTAT_NATS)', list)
      .option('--fleet <name>', 'which fleet (default: default)')
      .option('--config <file>', 'an aerostat.toml with [fleet] (env: AEROSTAT_CONFIG)')
      .option('--creds <file>', 'credentials of NATS: a JWT and its seed')
      .option('--nkey <file>', 'or the seed of an nkey')
      .option('--tls-ca <file>', 'the CA whose servers are trusted')
      .option('--tls-cert <file>', 'our certificate, where the servers want one')
      .option('--tls-key <file>', 'its key')
      .option('--json', 'print JSON'),
  );

/** What the options say, and what the file says where they do not. */
export interface FleetPlace {
  readonly servers: readonly string[];
  readonly fleet: string;
  readonly credentials: Credentials;
  readonly periodMs: number;
  readonly replicas: number;
  /** Of the file. */
  readonly text: FleetText;
}

/** @throws UsageError, ConfigurationError */
export async function fleetPlace(
  { env }: CliContext,
  choice: FleetChoice,
  named: readonly string[] = [],
): Promise<FleetPlace> {
  const [{ configurationPath }, { readConfiguration }, { FLEET_DEFAULT, FLEET_PERIOD_MS }, { HOST_NAME }] =
    await Promise.all([
      import('./configuration/place.ts'),
      import('./configuration/read.ts'),
      import('../fleet/settings.ts'),
      import('../fleet/messages.ts'),
    ]);
  const path = configurationPath(choice.config, env);
  const text = path === undefined ? {} : readConfiguration(path).fleet;
  const typed = named.length > 0 ? named : choice.nats;
  const servers = typed ?? (env.AEROSTAT_NATS ? list(env.AEROSTAT_NATS) : (text.servers ?? []));
  if (servers.length === 0)
    throw new UsageError(
      'which servers of NATS? Give --nats nats://HOST:4222, AEROSTAT_NATS, or servers of [fleet] in an aerostat.toml',
    );
  const fleet = choice.fleet ?? text.name ?? FLEET_DEFAULT;
  // A stream's name has no dots.
  if (!HOST_NAME.test(fleet) || fleet.includes('.'))
    throw new UsageError(`no fleet can be called ${fleet}: letters, digits, dashes and underscores`);
  return {
    servers,
    fleet,
    credentials: credentialsOf(choice, text),
    periodMs: text.period === undefined ? FLEET_PERIOD_MS : parseDuration(text.period),
    replicas: text.replicas ?? 1,
    text,
  };
}

function credentialsOf(choice: FleetChoice, text: FleetText): Credentials {
  const creds = contents('--creds', choice.creds ?? text.creds);
  const nkey = contents('--nkey', choice.nkey ?? text.nkey);
  const ca = contents('--tls-ca', choice.tlsCa ?? text['tls-ca']);
  const cert = contents('--tls-cert', choice.tlsCert ?? text['tls-cert']);
  const key = contents('--tls-key', choice.tlsKey ?? text['tls-key']);
  if (creds !== undefined && nkey !== undefined)
    throw new UsageError('credentials are --creds or --nkey, not both');
  if ((cert === undefined) !== (key === undefined))
    throw new UsageError('--tls-cert and --tls-key go together');
  const tls = {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  };
  return {
    ...(creds === undefined ? {} : { creds }),
    ...(nkey === undefined ? {} : { nkey }),
    ...(Object.keys(tls).length === 0 ? {} : { tls }),
  };
}

function contents(option: string, path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`${option} ${path} cannot be read: ${(error as Error).message}`);
  }
}

const ANSWER_MS = 4000;

/** @param joins what is not kept there yet is made, and servers are looked for until there is one */
export async function busTo(place: FleetPlace, client: string, joins: boolean): Promise<Bus> {
  const [{ openBus }, { livesOf }] = await Promise.all([
    import('../fleet/nats.ts'),
    import('../fleet/settings.ts'),
  ]);
  const { servers, fleet, credentials, periodMs, replicas } = place;
  return openBus({
    ...credentials,
    servers,
    fleet,
    client,
    replicas,
    lifeMs: livesOf(periodMs),
    timeoutMs: joins ? Math.min(ANSWER_MS, Math.max(1000, 2 * periodMs)) : ANSWER_MS,
    joins,
  });
}

/** Runs `body` with a fleet that is asked; the connection is closed afterwards. */
export async function withFleetClient(
  context: CliContext,
  choice: FleetChoice,
  body: (client: FleetClient) => Promise<void>,
): Promise<void> {
  const place = await fleetPlace(context, choice);
  const bus = await busTo(place, 'aerostat fleet', false);
  const { FleetClient } = await import('../fleet/client.ts');
  let client: FleetClient;
  try {
    client = await FleetClient.over(bus, monotonicMs, ms => sleep(ms, context.interrupt));
  } catch (error) {
    await bus.close();
    throw error;
  }
  try {
    await body(client);
  } finally {
    await client.close();
  }
}
