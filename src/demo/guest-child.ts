/**
 * An embedded guest as a process of its own, as `aerostat guest` starts it: told what to do in JSON on its standard
 * input, and gone when it is closed. It blocks its thread while it has nothing to do, which is why it is not in ours.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { Answer } from '../embedded/answers.ts';
import type { CommandName, CommandOf } from '../embedded/commands.ts';
import type { ConsoleMessage } from '../embedded/console.ts';
import { AerostatError, type ErrorCode } from '../sys/error.ts';

/** The command line, of which the embedded guest is a command. */
export const PROGRAM = fileURLToPath(new URL('../../bin/aerostat', import.meta.url));

/** A guest that was told to end has this long before it is killed. */
const END_MS_MAX = 5000;

export interface GuestChildOptions {
  /** Where the device's back-end listens. */
  readonly socketPath: string;
  readonly memoryBytes: number;
  /** Further options of `aerostat guest`. */
  readonly words?: readonly string[];
}

interface Waiting {
  readonly resolve: (answer: never) => void;
  readonly reject: (error: Error) => void;
}

export class GuestChild {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #waiting = new Map<number, Waiting>();
  readonly #ready: Promise<void>;
  #becomeReady: () => void = () => {};
  #fail: (error: Error) => void = () => {};
  /** Why it is gone, once it is. */
  #end: Error | undefined;
  #rest = '';
  #complaint = '';
  #nextId = 1;

  private constructor({ socketPath, memoryBytes, words = [] }: GuestChildOptions) {
    this.#child = spawn(
      process.execPath,
      [PROGRAM, 'guest', '--json', '--connect', socketPath, '--memory', String(memoryBytes), ...words],
      { stdio: ['pipe', 'pipe', 'pipe'] },
    );
    this.#ready = new Promise((resolve, reject) => {
      this.#becomeReady = resolve;
      this.#fail = reject;
    });
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => this.#read(text));
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#complaint += text;
    });
    // What is told to a guest that has ended goes nowhere; that it ended is said elsewhere.
    this.#child.stdin.on('error', () => {});
    this.#child.once('error', error => this.#ended(error.message));
    this.#child.once('exit', () => this.#ended(this.#complaint.trim() || 'it ended'));
    process.once('exit', this.#kill);
  }

  /** @throws AerostatError AEROSTAT_GUEST_ENDED when it does not come up */
  static async start(options: GuestChildOptions): Promise<GuestChild> {
    const guest = new GuestChild(options);
    await guest.#ready;
    return guest;
  }

  /** Of its process, once it runs. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Resolves with the guest's answer. @throws AerostatError with the code that the guest gave */
  tell<Name extends CommandName>(command: CommandOf<Name>): Promise<Answer<Name>> {
    if (this.#end !== undefined) return Promise.reject(this.#end);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#child.stdin.write(`${JSON.stringify({ id, ...command })}\n`);
    });
  }

  async close(): Promise<void> {
    process.removeListener('exit', this.#kill);
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.stdin.end('{"do":"exit"}\n');
    const timer = setTimeout(this.#kill, END_MS_MAX);
    await ended;
    clearTimeout(timer);
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#take(JSON.parse(line) as ConsoleMessage);
  }

  #take(message: ConsoleMessage): void {
    if ('event' in message) {
      if (message.event === 'ready') this.#becomeReady();
      return;
    }
    const waiting = this.#waiting.get(message.id ?? 0);
    this.#waiting.delete(message.id ?? 0);
    if ('answer' in message) waiting?.resolve(message.answer as never);
    else waiting?.reject(new AerostatError(message.error.code as ErrorCode, message.error.message));
  }

  #ended(why: string): void {
    const error = new AerostatError('AEROSTAT_GUEST_ENDED', `the embedded guest is gone: ${why}`);
    this.#end ??= error;
    this.#fail(error);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  readonly #kill = (): void => {
    this.#child.kill('SIGKILL');
  };
}
