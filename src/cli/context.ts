/**
 * What a command has of the world: streams, environment, the wish to stop, and a way to start a daemon. All of
 * it is handed in, so that a test runs a command in its own process and sees what a person would.
 */
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { StartDaemon } from '../daemon/options.ts';
import type { Program } from '../daemon/successor.ts';
import { InterruptedError, type StopSignal } from './usage.ts';

export type Output = Writable & {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
};

export interface CliContext {
  readonly stdin: Readable;
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted by SIGINT, SIGTERM and SIGHUP, with an {@link InterruptedError} as its reason. */
  readonly interrupt: AbortSignal;
  /** From now on SIGHUP calls `listener` and ends nothing: for commands that read their settings anew. */
  readonly onHangUp?: (listener: () => void) => void;
  /** From now on SIGUSR2 calls `listener`. */
  readonly onUpgrade?: (listener: () => void) => void;
  /** How this very program is started anew, where it can be. */
  readonly program?: Program;
  readonly startDaemon: StartDaemon;
  /** How the person runs this program; `aerostat` unless said otherwise. */
  readonly invocation?: string;
}

/** @throws InterruptedError when the person stops the command meanwhile */
export async function sleep(ms: number, interrupt: AbortSignal): Promise<void> {
  interrupt.throwIfAborted();
  try {
    await delay(ms, undefined, { signal: interrupt });
  } catch (error) {
    interrupt.throwIfAborted();
    throw error;
  }
}

/** Resolves with the signal that asks the command to stop. */
export async function interrupted(interrupt: AbortSignal): Promise<StopSignal> {
  if (!interrupt.aborted) await once(interrupt, 'abort');
  return interrupt.reason instanceof InterruptedError ? interrupt.reason.signal : 'SIGTERM';
}

export const printLine = (output: Output, line: string) => output.write(`${line}\n`);

/** One line, so that what reads it can read line by line. */
export const printJson = (output: Output, value: unknown) => printLine(output, JSON.stringify(value));
