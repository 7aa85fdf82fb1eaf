/**
 * An embedded guest in a process of its own, whose console (console.ts) is the standard input and output of that process.
 * The guest blocks its thread while it has nothing to do, so it cannot share the thread of its caller. The caller says
 * which command starts the guest; the command line of Aerostat is unknown here.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { deferred, PendingCalls } from '../sys/deferred.ts';
import { AerostatError, type ErrorCode } from '../sys/error.ts';
import type { CommandAnswer } from './answers.ts';
import type { CommandName, CommandOf } from './commands.ts';
import type { ConsoleMessage } from './console.ts';

/** A guest that was told to end has this long before it is killed. */
const END_MS_MAX = 5000;

/** A program and its arguments. The program runs one guest and speaks JSON on its console. */
export type GuestCommandLine = readonly [program: string, ...args: string[]];

export class GuestProcess {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #calls = new PendingCalls();
  readonly #ready = deferred();
  /** Why it is gone, once it is. */
  #end: Error | undefined;
  #rest = '';
  #complaint = '';

  private constructor([program, ...args]: GuestCommandLine) {
    this.#child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => this.#read(text));
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#complaint += text;
    });
    // Writing to a guest that has ended fails; `exit` below says that it ended.
    this.#child.stdin.on('error', () => {});
    this.#child.once('error', error => this.#ended(error.message));
    this.#child.once('exit', () => this.#ended(this.#complaint.trim() || 'it ended'));
    process.once('exit', this.#kill);
  }

  /** @throws AerostatError AEROSTAT_GUEST_ENDED when it does not come up */
  static async start(command: GuestCommandLine): Promise<GuestProcess> {
    const guest = new GuestProcess(command);
    await guest.#ready.promise;
    return guest;
  }

  /** Of its process, once it runs. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Resolves with the guest's answer. @throws AerostatError with the code that the guest gave */
  async tell<Name extends CommandName>(command: CommandOf<Name>): Promise<CommandAnswer<Name>> {
    if (this.#end !== undefined) throw this.#end;
    const id = this.#calls.number();
    this.#child.stdin.write(`${JSON.stringify({ id, ...command })}\n`);
    return this.#calls.wait(id);
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
      if (message.event === 'ready') this.#ready.resolve();
      return;
    }
    const id = message.id ?? 0;
    if ('answer' in message) this.#calls.answer(id, message.answer);
    else this.#calls.refuse(id, new AerostatError(message.error.code as ErrorCode, message.error.message));
  }

  #ended(why: string): void {
    const error = new AerostatError('AEROSTAT_GUEST_ENDED', `the embedded guest is gone: ${why}`);
    this.#end ??= error;
    this.#ready.reject(error);
    this.#calls.refuseAll(error);
  }

  readonly #kill = (): void => {
    this.#child.kill('SIGKILL');
  };
}
