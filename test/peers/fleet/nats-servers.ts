/** Servers of NATS of a test's own, alone or as a cluster on loopback, with JetStream below one directory. None outlives the test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { bound } from '../../../src/peers/lifeline.ts';

const PATIENCE_MS = 60_000;

interface Ports {
  readonly client: number;
  readonly monitor: number;
  readonly cluster: number;
}

export class NatsServers {
  readonly #directory: string;
  readonly #words: readonly string[];
  readonly #ports: readonly { readonly client: number; readonly monitor: number; readonly cluster: number }[];
  readonly #children: (ChildProcess | undefined)[] = [];

  private constructor(directory: string, ports: readonly Ports[], words: readonly string[]) {
    this.#directory = directory;
    this.#ports = ports;
    this.#words = words;
  }

  static async start(directory: string, count: number, words: readonly string[] = []): Promise<NatsServers> {
    const free = await freePorts(3 * count);
    const ports = Array.from({ length: count }, (_, at) => {
      const [client, monitor, cluster] = free.slice(3 * at);
      return { client, monitor, cluster };
    });
    const servers = new NatsServers(directory, ports, words);
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

  startOne(at: number): void {
    const { client, monitor, cluster } = this.#ports[at];
    const store = join(this.#directory, `nats${at}`);
    mkdirSync(store, { recursive: true });
    const routes = this.#ports.map(port => `nats://127.0.0.1:${port.cluster}`).join(',');
    const clustered = [
      '--cluster_name',
      'test',
      '--cluster',
      `nats://127.0.0.1:${cluster}`,
      '--routes',
      routes,
    ];
    const [program, args] = bound('nats-server', [
      ...[
        '-a',
        '127.0.0.1',
        '-p',
        String(client),
        '-m',
        String(monitor),
        '-n',
        `n${at}`,
        '-js',
        '-sd',
        store,
      ],
      ...(this.#ports.length > 1 ? clustered : []),
      ...this.#words,
    ]);
    this.#children[at] = spawn(program, args, { stdio: 'ignore' });
  }

  async kill(at: number): Promise<void> {
    const child = this.#children[at];
    this.#children[at] = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  signal(at: number, signal: NodeJS.Signals): void {
    this.#children[at]?.kill(signal);
  }

  /** Until all that run have caught up with each other. */
  async healthy(): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    for (const [at, { monitor }] of this.#ports.entries()) {
      while (this.#children[at] !== undefined && !(await isHealthy(monitor))) {
        if (Date.now() > deadline) throw new Error(`server ${at} of NATS does not come up`);
        await delay(50);
      }
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#ports.map((_, at) => this.kill(at)));
  }
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
