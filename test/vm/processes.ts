/** Machines as processes: `aerostat vm` and `aerostat receive`, told what to do over their consoles and their APIs. */

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { Control } from '../../src/control/operations.ts';
import type { CommandAnswer } from '../../src/embedded/answers.ts';
import type { CommandName, CommandOf } from '../../src/embedded/commands.ts';
import { parseAddress } from '../../src/server/address.ts';
import { remoteControl } from '../../src/server/client.ts';
import { program } from '../cli/built.ts';

/** Far above what anything here takes; only what hangs reaches it. */
const PATIENCE_MS = 60_000;

interface Line {
  readonly event?: string;
  readonly address?: string;
  readonly id?: number;
  readonly answer?: unknown;
  readonly error?: { readonly code: string; readonly message: string };
}

export class MachineProcess {
  readonly directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  readonly control: Control;
  /** Exit code; null when a signal ended it. */
  readonly ended: Promise<number | null>;
  complaint = '';
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #lines: Line[] = [];
  readonly #waiting = new Set<() => void>();
  #over = false;
  #rest = '';
  #nextId = 1;

  private constructor(words: readonly string[]) {
    const api = join(this.directory, 'api.sock');
    this.control = remoteControl(parseAddress(api));
    this.#child = spawn(process.execPath, [program, ...words, '--json', '--api', api], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => this.#read(text));
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.complaint += text;
    });
    this.#child.stdin.on('error', () => {});
    this.ended = once(this.#child, 'exit').then(([code]) => {
      this.#over = true;
      this.#wake();
      return code as number | null;
    });
    process.once('exit', this.#kill);
  }

  /** A machine that runs. */
  static async vm(...words: string[]): Promise<MachineProcess> {
    const machine = new MachineProcess(['vm', ...words]);
    await machine.event('ready');
    return machine;
  }

  /** A place for one, and where it listens. */
  static async place(...words: string[]): Promise<{ machine: MachineProcess; address: string }> {
    const machine = new MachineProcess(['receive', '--listen', '127.0.0.1:0', ...words]);
    const { address } = await machine.event('listening');
    return { machine, address: address ?? '' };
  }

  /** The machine of a snapshot, running. */
  static async restored(...words: string[]): Promise<MachineProcess> {
    const machine = new MachineProcess(['restore', ...words]);
    await machine.event('ready');
    return machine;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get over(): boolean {
    return this.#over;
  }

  /** Whether it has said so yet. */
  has(event: string): boolean {
    return this.#lines.some(line => line.event === event);
  }

  event(name: string): Promise<Line> {
    return this.#line(line => line.event === name, `event ${name}`);
  }

  async tell<Name extends CommandName>(command: CommandOf<Name>): Promise<CommandAnswer<Name>> {
    const id = this.#nextId++;
    this.#child.stdin.write(`${JSON.stringify({ id, ...command })}\n`);
    const { answer, error } = await this.#line(line => line.id === id, command.do);
    if (error !== undefined) throw new Error(`${command.do}: ${error.message}`);
    return answer as CommandAnswer<Name>;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async close(): Promise<void> {
    process.removeListener('exit', this.#kill);
    if (!this.#over) {
      this.#child.stdin.end('{"do":"exit"}\n');
      const timer = setTimeout(this.#kill, 20_000);
      await this.ended;
      clearTimeout(timer);
    }
    rmSync(this.directory, { recursive: true, force: true });
  }

  async #line(found: (line: Line) => boolean, what: string): Promise<Line> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const line = this.#lines.find(found);
      if (line !== undefined) return line;
      if (this.#over || Date.now() > deadline) throw new Error(`no ${what}: ${this.complaint}`);
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, PATIENCE_MS);
        this.#waiting.add(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#lines.push(JSON.parse(line) as Line);
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  readonly #kill = (): void => {
    this.#child.kill('SIGKILL');
  };
}
