/**
 * A libvirtd, asked through a process of its own (child.ts). A question has a deadline: a process that misses it is killed,
 * and the next question starts another. That, and the next connection after one that failed, comes no sooner than a back-off
 * after the last failure: one over SSH costs both hosts a process, and each failure a line in a log.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { bound } from '../peers/lifeline.ts';
import { PendingCalls } from '../sys/deferred.ts';
import { AerostatError, type ErrorCode } from '../sys/error.ts';
import type { LibvirtEvent } from '../sys/libvirt-events.ts';
import { monotonicMs } from '../sys/poll.ts';
import { EVENTS, type LibvirtAnswers, type LibvirtQuestion, type NumberedAnswer } from './questions.ts';

/** libvirtd answers in milliseconds; one that starts a domain may take a second. */
const DEADLINE_MS = 5000;
const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 30_000;
/** Where a libvirt is asked because an answer is waited for. */
const IMPATIENT_BACKOFF_MS_MAX = 1000;

/** libvirtd did not answer in time. */
export class LibvirtTimeoutError extends AerostatError {
  constructor(uri: string, deadlineMs: number) {
    super(
      'AEROSTAT_LIBVIRT_TIMEOUT',
      `libvirt at ${uri} has not answered within ${deadlineMs / 1000} s; is libvirtd stopped or overloaded?`,
    );
  }
}

/** The process that talks to libvirt ended by itself. */
class LibvirtEndedError extends AerostatError {
  constructor(uri: string, how: string) {
    super('AEROSTAT_LIBVIRT_ENDED', `the process that talks to libvirt at ${uri} ended (${how})`);
  }
}

export interface LibvirtConnectionOptions {
  readonly uri: string;
  /** Starts child.ts, without its argument: the rooms do not know where the program is. */
  readonly commandLine: readonly [string, ...string[]];
  readonly deadlineMs?: number;
  readonly backoffMsMax?: number;
}

/** A libvirtd that can be asked. */
export interface LibvirtAsker {
  readonly uri: string;
  /**
   * `deadlineMs`: of this question; Infinity where its answer may take any time.
   * @throws AerostatError with libvirt's own words, or why there is no answer
   */
  ask<Name extends LibvirtQuestion['ask']>(
    question: Extract<LibvirtQuestion, { ask: Name }>,
    options?: { readonly deadlineMs?: number },
  ): Promise<LibvirtAnswers[Name]>;
  /** Tells `hear` what happens at libvirt from the next connection on; without an answer of libvirt's there is none. */
  listen(hear: (event: LibvirtEvent) => void): void;
  /** In a process of its own, which what is asked here does not hold up. It is closed by itself. */
  another(options: { readonly uri?: string; readonly deadlineMs: number }): LibvirtAsker;
  close(): void;
}

export class LibvirtConnection implements LibvirtAsker {
  readonly uri: string;
  readonly #options: LibvirtConnectionOptions;
  readonly #calls = new PendingCalls();
  #child: ChildProcess | undefined;
  #failure:
    | { readonly error: AerostatError; readonly retryAtMs: number; readonly backoffMs: number }
    | undefined;
  #hear: ((event: LibvirtEvent) => void) | undefined;
  #closed = false;

  constructor(options: LibvirtConnectionOptions) {
    this.uri = options.uri;
    this.#options = options;
  }

  /**
   * @throws LibvirtTimeoutError, and AerostatError with libvirt's own words. Until the back-off is over after a process that
   * was lost or a connection that failed, what was wrong with that one.
   */
  ask<Name extends LibvirtQuestion['ask']>(
    question: Extract<LibvirtQuestion, { ask: Name }>,
    { deadlineMs = this.#options.deadlineMs ?? DEADLINE_MS } = {},
  ): Promise<LibvirtAnswers[Name]> {
    const failure = this.#failure;
    if (failure !== undefined && monotonicMs() < failure.retryAtMs) {
      return Promise.reject(failure.error);
    }
    const child = this.#child ?? this.#start();
    const late = () => this.#lose(child, new LibvirtTimeoutError(this.uri, deadlineMs));
    const timer = Number.isFinite(deadlineMs) ? setTimeout(late, deadlineMs) : undefined;
    const id = this.#calls.number();
    child.send({ id, question });
    return this.#calls.wait<LibvirtAnswers[Name]>(id).finally(() => clearTimeout(timer));
  }

  listen(hear: (event: LibvirtEvent) => void): void {
    this.#hear = hear;
  }

  another(options: { readonly uri?: string; readonly deadlineMs: number }): LibvirtConnection {
    return new LibvirtConnection({
      ...this.#options,
      backoffMsMax: IMPATIENT_BACKOFF_MS_MAX,
      ...options,
    });
  }

  /** Ends the process, whatever it waits for. Idempotent. */
  close(): void {
    this.#closed = true;
    if (this.#child !== undefined) this.#lose(this.#child, new LibvirtEndedError(this.uri, 'closed'));
  }

  #start(): ChildProcess {
    const [program, ...args] = this.#options.commandLine;
    const [guard, words] = bound(program, [...args, this.uri, ...(this.#hear === undefined ? [] : [EVENTS])]);
    const child = spawn(guard, words, {
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      serialization: 'advanced',
    });
    this.#child = child;
    child.on('message', (message: NumberedAnswer | LibvirtEvent) => {
      // One that was given up has nothing to tell.
      if (this.#child !== child) return;
      if ('event' in message) this.#hear?.(message);
      else this.#receive(message);
    });
    child.on('error', error => this.#lose(child, new LibvirtEndedError(this.uri, error.message)));
    child.on('exit', (code, signal) =>
      this.#lose(child, new LibvirtEndedError(this.uri, signal ?? `exit code ${code}`)),
    );
    return child;
  }

  #receive(message: NumberedAnswer): void {
    if (!('code' in message)) {
      this.#failure = undefined;
      this.#calls.answer(message.id, message.answer);
      return;
    }
    const error = new AerostatError(message.code as ErrorCode, message.message);
    if (message.reached) this.#failure = undefined;
    else this.#backOff(error);
    this.#calls.refuse(message.id, error);
  }

  #backOff(error: AerostatError): void {
    const { backoffMsMax = BACKOFF_MS_MAX } = this.#options;
    // Questions that were asked at once fail as one.
    if (this.#failure !== undefined && monotonicMs() < this.#failure.retryAtMs) return;
    const backoffMs = Math.min(backoffMsMax, 2 * (this.#failure?.backoffMs ?? BACKOFF_MS_MIN / 2));
    this.#failure = { error, backoffMs, retryAtMs: monotonicMs() + backoffMs };
  }

  #lose(child: ChildProcess, error: AerostatError): void {
    if (this.#child !== child) return;
    this.#child = undefined;
    child.kill('SIGKILL');
    if (!this.#closed) this.#backOff(error);
    this.#calls.refuseAll(error);
  }
}
