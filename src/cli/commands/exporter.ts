/** `aerostat exporter`: the figures of many daemons at one address, for Prometheus. It steers nothing. */
import { existsSync } from 'node:fs';
import { Command } from 'commander';
import { combinedControl } from '../../control/combined-control.ts';
import { hostedControl } from '../../control/hosted-control.ts';
import {
  defaultSocket,
  formatAddress,
  parseAddress,
  policyDirectory,
  systemSockets,
} from '../../server/address.ts';
import type { MeasuredDaemon } from '../../server/metrics.ts';
import { readTokens } from '../../server/token.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { readVersion } from '../../sys/version.ts';
import { type CliContext, interrupted } from '../context.ts';
import { configuredGuests } from '../guests.ts';
import { connect, each, type LogChoice, withLog, withVerbose } from '../options.ts';
import { openLog } from '../serve.ts';
import { type OpenedSource, openSources } from '../sources.ts';

const EXAMPLES = `
Examples:
  aerostat exporter --token-file tokens
                                     of the daemons that systemd's units run, and of the user's own
  aerostat exporter --token-file tokens --api /run/a/api.sock --api /run/b/api.sock
  aerostat exporter --token-file tokens --qmp-dir /var/run/qemu-server
  aerostat exporter --token-file tokens --config aerostat.toml --listen 10.0.0.5:9774 --listen-remote

Make the file of tokens, with one that may only read:
  (umask 077; echo "$(openssl rand -hex 32) read-only prometheus" > tokens)

GET /metrics has all figures, each daemon's with a label "daemon"; aerostat_daemon_up is 0 for one that does not answer.
GET /healthz answers 200 while the exporter lives, and asks for no token. Daemons are looked for anew at each scrape.`;

const LISTEN_DEFAULT = '127.0.0.1:9774';

interface ExporterChoice extends LogChoice {
  readonly listen: string;
  readonly listenRemote?: boolean;
  readonly tokenFile?: string;
  readonly api?: readonly string[];
  readonly qmpDir?: string;
  readonly config?: string;
}

export function exporterCommand(context: CliContext): Command {
  const command = new Command('exporter')
    .description('give the figures of many daemons to Prometheus')
    .option('--listen <address>', 'where Prometheus scrapes: HOST:PORT', LISTEN_DEFAULT)
    .option('--listen-remote', 'let --listen be an address that other machines can reach')
    .option('--token-file <path>', 'file with the tokens that may scrape; one that reads only is enough')
    .option('--api <address>', 'a daemon, instead of those that are found; once for each', each)
    .option('--qmp-dir <directory>', "the guests of QEMU's whose monitors are in there, as they come and go")
    .option('--config <file>', 'the sources of this aerostat.toml (env: AEROSTAT_CONFIG)')
    .addHelpText('after', EXAMPLES)
    .action((choice: ExporterChoice) => runExporter(context, choice));
  return withLog(withVerbose(command), 'info');
}

async function runExporter(context: CliContext, choice: ExporterChoice): Promise<void> {
  const { env, interrupt } = context;
  // The token for a daemon is AEROSTAT_TOKEN, or the one of the file that names the daemon.
  const tokens = readTokens(choice.tokenFile, choice.tokenFile === undefined ? env : {});
  const address = parseAddress(choice.listen);
  const log = await openLog(context, choice);
  const found = await findDaemons(context, choice);
  const { close } = found;
  const policies = await policiesOf(context);
  const daemons = () => [...found.daemons(), ...policies()];
  try {
    const { serveExporter } = await import('../../server/exporter.ts');
    const server = await serveExporter(daemons, {
      address,
      tokens,
      chosenBy: '--listen',
      allowRemote: choice.listenRemote ?? false,
      allowedBy: '--listen-remote',
      onError: (error, request) => log({ level: 'error', message: `${request} failed`, error }),
    });
    try {
      const names = daemons().map(({ labels }) => labels.daemon);
      const of = names.length === 0 ? 'no daemon so far' : names.join(', ');
      log({ level: 'info', message: `figures on ${formatAddress(server.address)}/metrics, of ${of}` });
      const signal = await interrupted(interrupt);
      log({ level: 'info', message: `ending for ${signal}` });
    } finally {
      await server.close();
    }
  } finally {
    close();
  }
}

/** Policies that run by themselves; of one that was killed, what it left word of. */
async function policiesOf(context: CliContext): Promise<() => readonly MeasuredDaemon[]> {
  const [{ readHeartbeats }, { statusLeft }] = await Promise.all([
    import('../../steering/heartbeat.ts'),
    import('../../steering/left-leases.ts'),
  ]);
  const none = hostedControl(combinedControl([]), readVersion());
  return () =>
    readHeartbeats(policyDirectory(context.env)).map(heartbeat => ({
      labels: { daemon: heartbeat.api },
      control: {
        ...none,
        policy: () =>
          connect(context, { api: heartbeat.api })
            .policy()
            .catch(() => statusLeft(heartbeat, monotonicMs())),
      },
    }));
}

interface Found {
  readonly daemons: () => readonly MeasuredDaemon[];
  readonly close: () => void;
}

async function findDaemons(context: CliContext, { api, qmpDir, config }: ExporterChoice): Promise<Found> {
  const configured = await configuredGuests(context, { api, qmpDir, config });
  if (configured !== undefined) {
    const { sources, close } = await openSources(context, configured);
    const measured = sources.map(measuredSource);
    return { daemons: () => measured, close };
  }
  if (qmpDir !== undefined) {
    const { MonitorDirectory } = await import('../../qemu/monitor-directory.ts');
    const qemus = new MonitorDirectory(qmpDir);
    const measured = [{ labels: { daemon: qmpDir }, control: hostedControl(qemus, readVersion()) }];
    return { daemons: () => measured, close: () => qemus.close() };
  }
  const known = new Map<string, MeasuredDaemon>();
  const measuredAt = (address: string): MeasuredDaemon => {
    const measured = known.get(address) ?? {
      labels: { daemon: address },
      control: connect(context, { api: address }),
    };
    known.set(address, measured);
    return measured;
  };
  const own = defaultSocket(context.env);
  const addresses = (): readonly string[] =>
    api ?? [...systemSockets(context.env), ...(existsSync(own) ? [own] : [])];
  return { daemons: () => addresses().map(measuredAt), close: () => {} };
}

/** The guests that a file names one by one are shown under the names that it gives them, and no others of their hosts. */
function measuredSource({ place, control, routes, daemon }: OpenedSource): MeasuredDaemon {
  const guests = hostedControl(routes === undefined ? control : combinedControl(routes), readVersion());
  const asked = daemon === undefined ? {} : { daemon: () => daemon.daemon() };
  return { labels: { daemon: place }, control: { ...guests, ...asked } };
}
