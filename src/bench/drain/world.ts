/**
 * The process in whose namespace `bench drain` has its two hosts: it starts a server of NATS, an agent for each host and
 * the machines of one, has that one drained, and copies the same bytes plainly afterwards.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import type { Bus } from '../../fleet/bus.ts';
import { FleetClient } from '../../fleet/client.ts';
import { openBus } from '../../fleet/nats.ts';
import { livesOf } from '../../fleet/settings.ts';
import { AerostatError } from '../../sys/error.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { copyPlainly } from '../migrate/loopback.ts';
import { tellBench, whenLetGo } from '../peer-side.ts';
import type { Drained, FromDrainWorld, ToDrainWorld } from './drain.ts';
import { LinkWatch, roleTimes, timesSince } from './processor-time.ts';

const SERVER = 'nats://127.0.0.1:4222';
const FROM = 'host1';
const TO = 'host2';
const LOOK_MS = 20;
const PATIENCE_MS = 120_000;
/** A drain of a large host over a slow link. */
const DRAIN_MS_MAX = 900_000;
const MIB = 2 ** 20;

const tell = (message: FromDrainWorld): void => tellBench(message);

async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  msMax = PATIENCE_MS,
): Promise<void> {
  for (const endMs = monotonicMs() + msMax; !(await holds()); await delay(LOOK_MS)) {
    if (monotonicMs() > endMs) throw new AerostatError('AEROSTAT_BENCH', `${what} does not come about`);
  }
}

class World {
  readonly #order: ToDrainWorld;
  readonly #directory = mkdtempSync(join(tmpdir(), 'dr-'));
  readonly #children: ChildProcess[] = [];

  constructor(order: ToDrainWorld) {
    this.#order = order;
  }

  async run(): Promise<Drained> {
    const { guests, periodMs } = this.#order;
    this.#start(['nats-server', '-a', '127.0.0.1', '-js', '-sd', join(this.#directory, 'nats')]);
    this.#configure();
    for (const host of [FROM, TO]) this.#join(host);
    const bus = await this.#bus();
    const client = await FleetClient.over(bus, monotonicMs, ms => delay(ms));
    const counts = () =>
      [FROM, TO].map(host => client.hosts.find(({ report }) => report.host === host)?.report.guests.length);
    await Promise.all(Array.from({ length: guests }, (_, at) => this.#guest(`guest${at}`)));
    await until('a fleet with all guests', () => counts()[0] === guests && counts()[1] === 0);
    // A new leader looks on at first.
    await until('a leader that moves guests', async () => {
      const { reasons } = await client.ask({ ask: 'plan' });
      return !reasons.some(reason => /just begun|silent/.test(reason));
    });
    // What the host holds now has been reported since the last guest was ready.
    await delay(2 * periodMs);
    const bytes = this.#heldBytes(client);
    const before = roleTimes();
    const link = new LinkWatch(this.#order.bytesPerSecond, monotonicMs);
    const startMs = monotonicMs();
    await client.ask({ ask: 'drain', host: FROM });
    // A guest has left when it runs elsewhere; there it is reported soon after.
    await until('an empty host', () => counts()[0] === 0, DRAIN_MS_MAX);
    const elapsedMs = monotonicMs() - startMs;
    const [times, idleMs] = [timesSince(before), link.end()];
    await until('a host that has all guests', () => counts()[1] === guests);
    await client.close();
    await this.close();
    const floor = await copyOf(bytes, guests);
    return {
      kind: 'drained',
      elapsedMs,
      bytes,
      times,
      idleMs,
      copyMs: floor.elapsedMs,
      copyCpuMs: floor.cpuMs,
    };
  }

  #heldBytes({ hosts }: FleetClient): number {
    const guests = hosts.find(({ report }) => report.host === FROM)?.report.guests ?? [];
    return guests.reduce((sum, { residentBytes }) => sum + residentBytes, 0);
  }

  async #bus(): Promise<Bus> {
    const { periodMs } = this.#order;
    let bus: Bus | undefined;
    await until('a fleet that is kept', async () => {
      bus = await openBus({
        ...{ servers: [SERVER], fleet: 'default', client: 'bench', replicas: 1, joins: false },
        lifeMs: livesOf(periodMs),
        timeoutMs: 2000,
      }).catch(() => undefined);
      return bus !== undefined;
    });
    return bus as Bus;
  }

  #configure(): void {
    const { periodMs, bytesPerSecond, guests, memoryBytes, concurrency } = this.#order;
    const memory = Math.ceil((4 * (guests + 1) * memoryBytes) / MIB);
    const lines = [
      '[fleet]',
      `servers = ["${SERVER}"]`,
      'address = "127.0.0.1"',
      `period = "${periodMs}ms"`,
      `settle = "${periodMs}ms"`,
      `memory = "${memory}M"`,
      `link = "${Math.round((bytesPerSecond * 8) / 1e6)}mbit"`,
      `drains = ${concurrency}`,
    ];
    writeFileSync(this.#config, `${lines.join('\n')}\n`);
  }

  get #config(): string {
    return join(this.#directory, 'aerostat.toml');
  }

  #join(host: string): void {
    const folder = join(this.#directory, host);
    mkdirSync(folder, { mode: 0o700 });
    const of = ['--name', host, '--machines', folder, '--api', join(this.#directory, `${host}.api`)];
    this.#start([...this.#order.aerostat, 'fleet', 'join', '--config', this.#config, ...of]);
  }

  /** Resolves when it has used its memory. */
  async #guest(name: string): Promise<void> {
    const { aerostat, memoryBytes, usedShare } = this.#order;
    const socket = join(this.#directory, FROM, `${name}.sock`);
    const words = ['--name', name, '--memory', String(memoryBytes), '--api', socket, '--json'];
    const child = this.#start([...aerostat, 'vm', ...words]);
    const bytes = Math.floor((memoryBytes * usedShare) / MIB) * MIB;
    for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
      if (line.includes('"ready"')) child.stdin?.write(`{"id":1,"do":"use","bytes":${bytes}}\n`);
      if (line.includes('"answer"')) return;
    }
    throw new AerostatError('AEROSTAT_BENCH', `${name} ended`);
  }

  #start([program, ...words]: readonly string[]): ChildProcess {
    const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'ignore'] });
    child.stdin?.on('error', () => {});
    child.stdout?.resume();
    this.#children.push(child);
    return child;
  }

  /** What agents started ends with the namespace, and holds no processor until then. */
  async close(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL');
    rmSync(this.#directory, { recursive: true, force: true, maxRetries: 10 });
  }
}

/** One guest's bytes after the other's, so that no more than those are held twice. */
async function copyOf(
  bytes: number,
  parts: number,
): Promise<{ readonly elapsedMs: number; readonly cpuMs: number }> {
  const each = Math.ceil(bytes / parts / MIB) * MIB;
  const sum = { elapsedMs: 0, cpuMs: 0 };
  for (let part = 0; part < parts; part++) {
    const copy = await copyPlainly(each);
    sum.elapsedMs += copy.elapsedMs;
    sum.cpuMs += copy.cpuMs;
  }
  const share = bytes / (each * parts);
  return { elapsedMs: sum.elapsedMs * share, cpuMs: sum.cpuMs * share };
}

process.once('message', (order: ToDrainWorld) => {
  const world = new World(order);
  world.run().then(tell, async (error: Error) => {
    await world.close();
    tell({ kind: 'failed', message: error.message });
  });
});
whenLetGo(() => process.exit());
