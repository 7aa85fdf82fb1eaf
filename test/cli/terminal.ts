/** A command line run in this process, with what a person would see of it. */
import { Readable, Writable } from 'node:stream';
import type { CliContext, Output } from '../../src/cli/context.ts';
import { runCli } from '../../src/cli/program.ts';
import { InterruptedError, type StopSignal } from '../../src/cli/usage.ts';
import type { StartDaemon } from '../../src/daemon/options.ts';

/** Keeps what was written to it; a terminal when it has columns. */
export class Captured extends Writable {
  text = '';
  readonly isTTY: boolean;
  readonly columns: number;
  readonly rows = 30;

  constructor(columns = 0) {
    super({ decodeStrings: false });
    this.isTTY = columns > 0;
    this.columns = columns || 80;
  }

  override _write(chunk: string, _encoding: string, done: () => void): void {
    this.text += chunk;
    done();
  }

  // cli-progress moves the cursor of a terminal by these.
  cursorTo(): boolean {
    return true;
  }
  moveCursor(): boolean {
    return true;
  }
  clearLine(): boolean {
    return true;
  }
}

export interface Terminal {
  readonly env?: Record<string, string>;
  /** Columns of the terminal; none for a pipe. */
  readonly columns?: number;
  readonly startDaemon?: StartDaemon;
}

export interface Session {
  /** Aborted by {@link Session.interrupt}. */
  readonly signal: AbortSignal;
  readonly stdout: Captured;
  readonly stderr: Captured;
  readonly ended: Promise<number>;
  interrupt(signal?: StopSignal): void;
  /** SIGHUP, for a command that reads its settings anew. */
  hangUp(): void;
}

export function start(
  words: readonly string[],
  { env = {}, columns = 0, startDaemon }: Terminal = {},
): Session {
  const stdout = new Captured(columns);
  const stderr = new Captured(columns);
  const stop = new AbortController();
  const hungUp: (() => void)[] = [];
  const context: CliContext = {
    stdin: Readable.from([]),
    stdout: stdout as unknown as Output,
    stderr: stderr as unknown as Output,
    env,
    interrupt: stop.signal,
    onHangUp: listener => void hungUp.push(listener),
    startDaemon: startDaemon ?? (() => Promise.reject(new Error('this test starts no daemon'))),
  };
  return {
    signal: stop.signal,
    stdout,
    stderr,
    ended: runCli(words, context),
    interrupt: (signal = 'SIGINT') => stop.abort(new InterruptedError(signal)),
    hangUp: () => {
      for (const listener of hungUp) listener();
    },
  };
}

export async function run(words: readonly string[], terminal?: Terminal) {
  const session = start(words, terminal);
  const code = await session.ended;
  return { code, out: session.stdout.text, err: session.stderr.text };
}
