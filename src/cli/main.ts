/** The process around the commands: its streams, its signals and its end. */
import type { Output } from './context.ts';
import { invocationOf } from './invocation.ts';
import { runCli } from './program.ts';
import { EXIT, EXIT_BY_SIGNAL, type ExitCode, InterruptedError, type StopSignal } from './usage.ts';

const stop = new AbortController();

/** Within this time a second signal is the first once more: a terminal sends Ctrl-C to npm and to us, and npm hands it on. */
const SAME_SIGNAL_MS_MAX = 500;
let stoppedAtMs = 0;

/**
 * Node up to 23 aborts when it ends and the terminal whose mode it wants to restore is gone (nodejs/node#58200); the
 * signal that told of it ends the process without that, after all that there is to be done at its end.
 */
function end(code: ExitCode): never {
  const hungUp = stop.signal.aborted && stop.signal.reason.signal === 'SIGHUP';
  if (hungUp && (process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY)) {
    process.once('exit', () => {
      process.removeAllListeners('SIGHUP');
      process.kill(process.pid, 'SIGHUP');
    });
  }
  process.exit(code);
}

/** What SIGHUP does where a command has taken it: guests and policy of one file are read anew by one each. */
const onHangUp: (() => void)[] = [];

for (const signal of Object.keys(EXIT_BY_SIGNAL) as StopSignal[]) {
  process.on(signal, () => {
    if (signal === 'SIGHUP' && onHangUp.length > 0) {
      for (const listener of onHangUp) listener();
      return;
    }
    if (stop.signal.aborted) {
      // A second signal ends the process at once, whatever is still under way.
      if (performance.now() - stoppedAtMs < SAME_SIGNAL_MS_MAX) return;
      end(EXIT_BY_SIGNAL[signal]);
    }
    stoppedAtMs = performance.now();
    stop.abort(new InterruptedError(signal));
  });
}

// `aerostat watch | head` closes the pipe when it has read enough, which is no failure.
// What was to be read and is not there, because a disk is full, is one.
function outputLost(error: NodeJS.ErrnoException): void {
  // A terminal that was closed takes no more; the command is to clean up all the same.
  if (stop.signal.aborted) return;
  if (error.code === 'EPIPE') end(EXIT.ok);
  process.stderr.write(`aerostat: the output is not complete, for it cannot be written: ${error.message}\n`);
  end(EXIT.failed);
}
process.stdout.on('error', outputLost);
// Standard error is closed, so no message can be written.
process.stderr.on('error', () => {});
// Of a terminal that was closed, which a signal tells as well.
process.stdin.on('error', () => {});

async function main(): Promise<never> {
  // The streams of a process carry their terminal's size only when it has one, which TypeScript's types hide.
  const code = await runCli(process.argv.slice(2), {
    stdin: process.stdin,
    stdout: process.stdout as Output,
    stderr: process.stderr as Output,
    env: process.env,
    interrupt: stop.signal,
    onHangUp: listener => void onHangUp.push(listener),
    onUpgrade: listener => void process.on('SIGUSR2', listener),
    program: {
      file: process.execPath,
      start: [...process.execArgv, process.argv[1]],
      words: [...process.execArgv, ...process.argv.slice(1)],
    },
    invocation: invocationOf(process.argv[1], process.env.PATH, process.cwd()),
    startDaemon: async options => (await import('../daemon/daemon.ts')).startDaemon(options),
  });
  // The event of a write that failed just now would come too late.
  if (process.stdout.errored) outputLost(process.stdout.errored);
  // Nothing that a command left open, a thread or a connection, may keep it from ending.
  end(code);
}

void main();
