/**
 * Hosts of a fleet on one machine: for each an agent as a process, and its machines in a folder of its own. All of them
 * end with the test, also what agents started, which is to outlive agents: support/sweeper.ts.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Control } from '../../../src/control/operations.ts';
import type { AgentStatus } from '../../../src/fleet/status.ts';
import { bound } from '../../../src/peers/lifeline.ts';
import { parseAddress } from '../../../src/server/address.ts';
import { remoteControl } from '../../../src/server/client.ts';
import { program } from '../../cli/built.ts';
import { Sweeper } from '../../support/sweeper.ts';
import { MachineProcess } from '../../vm/processes.ts';

/** The host whose wall clock is an hour behind those of the others. */
const HOUR_BEHIND = 'c';
const CLOCK = fileURLToPath(new URL('../../support/hour-behind.mjs', import.meta.url));

export class Hosts {
  /** A short name: sockets lie below it. */
  readonly directory = mkdtempSync(join(tmpdir(), 'fl-'));
  readonly #sweeper = new Sweeper(this.directory);
  readonly #agents = new Map<string, ChildProcess>();
  readonly #guests: ChildProcess[] = [];
  config = '';

  /** What all agents and commands go by. */
  configure(servers: readonly string[], settings: readonly string[]): void {
    this.config = join(this.directory, 'aerostat.toml');
    const lines = ['[fleet]', `servers = ${JSON.stringify(servers)}`, 'address = "127.0.0.1"', ...settings];
    writeFileSync(this.config, `${lines.join('\n')}\n`);
  }

  join(host: string): void {
    const folder = join(this.directory, host);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const of = ['--name', host, '--machines', folder, '--api', this.#api(host)];
    const [guard, args] = bound(process.execPath, [
      ...[program, 'fleet', 'join', '--config', this.config, '--memory', '1G', ...of],
    ]);
    const env = {
      ...this.#sweeper.env,
      ...(host === HOUR_BEHIND ? { NODE_OPTIONS: `--import ${CLOCK}` } : {}),
    };
    const child = spawn(guard, args, { stdio: ['ignore', 'ignore', 'pipe'], env });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.log += text.replaceAll(/^(?=.)/gm, `${host}: `);
    });
    this.#agents.set(host, child);
  }

  log = '';

  signal(host: string, signal: NodeJS.Signals): void {
    this.#agents.get(host)?.kill(signal);
  }

  /** All agents run again, whatever was done to them. */
  joinAll(hosts: readonly string[]): void {
    for (const host of hosts) {
      this.signal(host, 'SIGCONT');
      if (!this.runs(host)) this.join(host);
    }
  }

  runs(host: string): boolean {
    const child = this.#agents.get(host);
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  /** Its machines run on. */
  async kill(host: string): Promise<void> {
    const child = this.#agents.get(host);
    if (child === undefined || !this.runs(host)) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  /** Null while it does not answer. */
  status(host: string): Promise<AgentStatus | null> {
    return new Promise(resolve => {
      const asked = request({ socketPath: this.#api(host), path: '/v1/fleet', timeout: 500 }, response => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part;
        });
        response.once('end', () => resolve(JSON.parse(text) as AgentStatus));
        response.once('error', () => resolve(null));
      });
      asked.once('timeout', () => asked.destroy());
      asked.once('error', () => resolve(null));
      asked.end();
    });
  }

  /** A machine of the host, which has written to that much of its memory. */
  async guest(host: string, name: string, usedBytes: number, words: readonly string[] = []): Promise<void> {
    const [guard, args] = bound(process.execPath, [
      ...[program, 'vm', '--name', name, '--json', '--api', this.#machine(host, name), ...words],
    ]);
    const child = spawn(guard, args, { stdio: ['pipe', 'pipe', 'ignore'], env: this.#sweeper.env });
    this.#guests.push(child);
    child.stdin?.on('error', () => {});
    const said = linesOf(child);
    await said(line => line.includes('"ready"'));
    child.stdin?.write(`{"id":1,"do":"use","bytes":${usedBytes}}\n`);
    await said(line => line.includes('"answer"'));
  }

  control(host: string, guest: string): Control {
    return remoteControl(parseAddress(this.#machine(host, guest)));
  }

  /** A machine of that name is here, whether the guest runs in it or not. */
  async has(host: string, guest: string): Promise<boolean> {
    return this.control(host, guest)
      .guests()
      .then(
        () => true,
        () => false,
      );
  }

  /** Moves the guest out of the fleet, to where it can be told to check all that was written. */
  async verify(host: string, guest: string): Promise<number> {
    const { machine, address } = await MachineProcess.place('--name', guest);
    try {
      await this.control(host, guest).migrate(guest, { to: `tcp:${address}` });
      await machine.event('ready');
      return (await machine.tell({ do: 'verify' })).checkedBytes;
    } finally {
      await machine.close();
    }
  }

  async close(): Promise<void> {
    for (const child of [...this.#agents.values(), ...this.#guests]) child.kill('SIGKILL');
    await this.#sweeper.close();
  }

  #api(host: string): string {
    return join(this.directory, `${host}.api`);
  }

  #machine(host: string, guest: string): string {
    return join(this.directory, host, `${guest}.sock`);
  }
}

/** Resolves with the first line that is wanted, or rejects when the process ends. */
function linesOf(child: ChildProcess): (wanted: (line: string) => boolean) => Promise<string> {
  let rest = '';
  const lines: string[] = [];
  const listeners = new Set<() => void>();
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    const all = (rest + text).split('\n');
    rest = all.pop() ?? '';
    lines.push(...all);
    for (const listener of listeners) listener();
  });
  return wanted =>
    new Promise((resolve, reject) => {
      const look = () => {
        const found = lines.find(wanted);
        if (found === undefined) return;
        listeners.delete(look);
        resolve(found);
      };
      listeners.add(look);
      child.once('exit', () => reject(new Error('the machine ended')));
      look();
    });
}
