/** Servers of NATS of a test's own, alone or as a cluster on loopback, with JetStream below one directory. None outlives the test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { bound } from '../../../src/peers/lifeline.ts';

const PATIENCE_MS = 120_000;

interface Ports {
  readonly client: number;
  readonly monitor: number;
  readonly cluster: number;
}

/** What a server says of a group of servers that keeps something together. */
interface Group {
  readonly leader?: string;
  readonly replicas?: readonly {
    readonly name: string;
    readonly current: boolean;
    readonly offline?: boolean;
  }[];
}

interface JetStreamSaid {
  readonly meta_cluster?: Group;
  readonly account_details?: readonly {
    readonly stream_detail?: readonly { readonly name: string; readonly cluster?: Group }[];
  }[];
}

export class NatsServers {
  readonly #directory: string;
  readonly #configuration: string;
  readonly #ports: readonly Ports[];
  readonly #children: (ChildProcess | undefined)[] = [];
  readonly #stopped = new Set<number>();

  private constructor(directory: string, ports: readonly Ports[], configuration: string) {
    this.#directory = directory;
    this.#ports = ports;
    this.#configuration = configuration;
  }

  /** @param configuration more of a server's, in its own words; nothing but JetStream when it is empty */
  static async start(directory: string, count: number, configuration = ''): Promise<NatsServers> {
    const free = await freePorts(3 * count);
    const ports = Array.from({ length: count }, (_, at) => {
      const [client, monitor, cluster] = free.slice(3 * at);
      return { client, monitor, cluster };
    });
    const servers = new NatsServers(directory, ports, configuration);
    for (let at = 0; at < count; at++) servers.startOne(at);
    await servers.healthy();
    return servers;
  }

  get count(): number {
    return this.#ports.length;
  }

  get urls(): readonly string[] {
    return this.#ports.map(({ client }) => `nats://127.0.0.1:${client}`);
  }

  runs(at: number): boolean {
    return this.#children[at] !== undefined;
  }

  startOne(at: number): void {
    const { client, monitor, cluster } = this.#ports[at];
    const store = join(this.#directory, `nats${at}`);
    mkdirSync(store, { recursive: true });
    const routes = this.#ports.map(port => `nats://127.0.0.1:${port.cluster}`).join(', ');
    const lines = [
      `server_name: n${at}`,
      `listen: 127.0.0.1:${client}`,
      `http: 127.0.0.1:${monitor}`,
      `jetstream { store_dir: ${JSON.stringify(store)} }`,
      `log_file: ${JSON.stringify(this.#log(at))}`,
      ...(this.count > 1
        ? [`cluster { name: test, listen: 127.0.0.1:${cluster}, routes: [${routes}] }`]
        : []),
      this.#configuration,
    ];
    const file = join(this.#directory, `nats${at}.conf`);
    writeFileSync(file, `${lines.join('\n')}\n`);
    this.#children[at] = spawn(...bound('nats-server', ['-c', file]), { stdio: 'ignore' });
  }

  async kill(at: number): Promise<void> {
    const child = this.#children[at];
    this.#children[at] = undefined;
    this.#stopped.delete(at);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  stop(at: number): void {
    this.#stopped.add(at);
    this.#children[at]?.kill('SIGSTOP');
  }

  goOn(at: number): void {
    this.#stopped.delete(at);
    this.#children[at]?.kill('SIGCONT');
  }

  /** All of them run again, whatever was done to them. */
  startAll(): void {
    for (const at of this.#ports.keys()) {
      if (this.#stopped.has(at)) this.goOn(at);
      if (!this.runs(at)) this.startOne(at);
    }
  }

  /** Until all that run answer, and have caught up with what the servers themselves agree about. */
  async healthy(): Promise<void> {
    await this.#until('healthy servers', async () => {
      const healths = await Promise.all(this.#running.map(at => isHealthy(this.#ports[at].monitor)));
      return healths.every(isHealthy => isHealthy);
    });
  }

  /**
   * Until each stream has a leader that all servers agree about and that finds every copy current: from then on any one
   * of them may die.
   */
  async caughtUp(): Promise<void> {
    await this.healthy();
    await this.#until('streams with leaders, and their copies current', async () => {
      const running = this.#running;
      const said = await Promise.all(running.map(at => jetStreamOf(this.#ports[at].monitor)));
      return areWhole(
        said,
        running.map(at => `n${at}`),
      );
    });
  }

  /** The end of what each has said. */
  get log(): string {
    return this.#ports.map((_, at) => `n${at}:\n${tailOf(this.#log(at))}`).join('\n');
  }

  async close(): Promise<void> {
    await Promise.all(this.#ports.map((_, at) => this.kill(at)));
  }

  get #running(): readonly number[] {
    return [...this.#ports.keys()].filter(at => this.runs(at) && !this.#stopped.has(at));
  }

  #log(at: number): string {
    return join(this.#directory, `nats${at}.log`);
  }

  async #until(what: string, look: () => Promise<boolean>): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    while (!(await look().catch(() => false))) {
      if (Date.now() > deadline) throw new Error(`not seen: ${what}\n${this.log}`);
      await delay(100);
    }
  }
}

/** Whether, by what each of the servers says, all that they keep has a leader that finds every copy current. */
function areWhole(said: readonly JetStreamSaid[], servers: readonly string[]): boolean {
  const views = said.map(viewsOf);
  const names = new Set(views.flatMap(view => [...view.keys()]));
  return [...names].every(name => {
    const leader = views[0].get(name)?.leader ?? '';
    // Only the leader knows how far the others are.
    const copies = views[servers.indexOf(leader)]?.get(name)?.replicas ?? [];
    const others = servers.filter(server => server !== leader);
    return (
      views.every(view => view.get(name)?.leader === leader) &&
      others.every(other => copies.some(copy => copy.name === other && copy.current && copy.offline !== true))
    );
  });
}

/** By the name of the stream; the servers' own is the empty one. */
function viewsOf({
  meta_cluster: meta = {},
  account_details: accounts = [],
}: JetStreamSaid): Map<string, Group> {
  const streams = accounts.flatMap(({ stream_detail: details = [] }) => details);
  return new Map([['', meta], ...streams.map(({ name, cluster = {} }) => [name, cluster] as const)]);
}

async function jetStreamOf(port: number): Promise<JetStreamSaid> {
  const address = `http://127.0.0.1:${port}/jsz?accounts=true&streams=true`;
  const response = await fetch(address, { signal: AbortSignal.timeout(2000) });
  return (await response.json()) as JetStreamSaid;
}

/** Of the server alone: 2.9 calls itself unhealthy for good when a watcher's consumer ended while it was away. */
async function isHealthy(port: number): Promise<boolean> {
  const address = `http://127.0.0.1:${port}/healthz?js-server-only=true`;
  try {
    const response = await fetch(address, { signal: AbortSignal.timeout(1000) });
    return response.ok;
  } catch {
    return false;
  }
}

function tailOf(path: string): string {
  try {
    return readFileSync(path, 'utf8').slice(-6000);
  } catch {
    return '';
  }
}

/** Ports that no program listens at now, all different. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map(server => (server.address() as { port: number }).port);
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))));
  return ports;
}
