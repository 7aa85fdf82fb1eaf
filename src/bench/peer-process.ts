/** A process of its own that takes part in a bench, and what it says in turn. Its side is told in peer-side.ts. */
import { type ChildProcess, fork, type Serializable } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { AerostatError } from '../sys/error.ts';

/** Who says nothing for this long never will. */
const SILENCE_MS_MAX = 180_000;
/** A process that was let go and does not end in this time is killed. */
const END_MS_MAX = 5000;

export interface PeerProcessOptions {
  readonly args?: readonly string[];
  /** Nothing more is heard when it aborts. */
  readonly signal?: AbortSignal | undefined;
}

export class PeerProcess<To extends Serializable, From extends { readonly kind: string }> {
  readonly #child: ChildProcess;
  readonly #signal: AbortSignal | undefined;
  readonly #heard: From[] = [];
  #wake: () => void = () => {};
  #gone = false;

  constructor(program: URL, { args = [], signal }: PeerProcessOptions = {}) {
    this.#child = fork(fileURLToPath(program), args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    this.#signal = signal;
    this.#child.on('message', (message: From) => {
      this.#heard.push(message);
      this.#wake();
    });
    this.#child.once('exit', () => {
      this.#gone = true;
      this.#wake();
    });
  }

  /** Its process id. @throws AerostatError when it could not be started */
  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new AerostatError('AEROSTAT_BENCH', 'the other process did not start');
    return pid;
  }

  send(message: To): void {
    // One that is gone is missed where its answer is waited for.
    this.#child.send(message, () => {});
  }

  /**
   * The next thing that it says, which has to be one of these.
   * @throws AerostatError AEROSTAT_BENCH when it says something else, ends or is silent; the signal's reason when that aborts
   */
  async hear<K extends From['kind']>(...kinds: readonly K[]): Promise<Extract<From, { readonly kind: K }>> {
    const awaited = kinds.join(' or ');
    if (this.#heard.length === 0 && !this.#gone) await this.#news(awaited);
    const message = this.#heard.shift();
    if (kinds.some(kind => kind === message?.kind)) return message as Extract<From, { readonly kind: K }>;
    const why =
      message !== undefined && 'message' in message ? message.message : `it ended before it had ${awaited}`;
    throw new AerostatError('AEROSTAT_BENCH', `the other process of the bench failed: ${why}`);
  }

  /** Lets it go; resolves when it is gone. */
  async end(): Promise<void> {
    if (this.#gone) return;
    const exited = once(this.#child, 'exit');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), END_MS_MAX);
    if (this.#child.connected) this.#child.disconnect();
    await exited;
    clearTimeout(timer);
  }

  /** Resolves when it has said something, or ended. */
  async #news(awaited: string): Promise<void> {
    const signal = this.#signal;
    signal?.throwIfAborted();
    let abort = () => {};
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve, reject) => {
      this.#wake = resolve;
      abort = () => reject(signal?.reason);
      signal?.addEventListener('abort', abort);
      const silent = `the other process of the bench is silent; it should have ${awaited}`;
      timer = setTimeout(() => reject(new AerostatError('AEROSTAT_BENCH', silent)), SILENCE_MS_MAX);
    }).finally(() => {
      signal?.removeEventListener('abort', abort);
      clearTimeout(timer);
    });
  }
}
