/** A process of its own that takes part in a bench, and what it says in turn. Its side is told in peer-side.ts. */
import { type ChildProcess, fork, type Serializable } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { AerostatError } from '../sys/error.ts';
import { Mailbox } from './mailbox.ts';

/** A process that was let go and does not end in this time is killed. */
const END_MS_MAX = 5000;

interface PeerProcessOptions {
  readonly args?: readonly string[];
  /** Nothing more is heard when it aborts. */
  readonly signal?: AbortSignal | undefined;
}

export class PeerProcess<To extends Serializable, From extends { readonly kind: string }> {
  readonly #child: ChildProcess;
  readonly #mailbox: Mailbox<From>;
  #gone = false;

  constructor(program: URL, { args = [], signal }: PeerProcessOptions = {}) {
    this.#child = fork(fileURLToPath(program), args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    this.#mailbox = new Mailbox('the other process of the bench', signal);
    this.#child.on('message', (message: From) => this.#mailbox.put(message));
    this.#child.once('exit', () => {
      this.#gone = true;
      this.#mailbox.end();
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

  /** The next thing that it says, which has to be one of these. @throws as {@link Mailbox.next} does */
  hear<K extends From['kind']>(...kinds: readonly K[]): Promise<Extract<From, { readonly kind: K }>> {
    return this.#mailbox.next(...kinds);
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
}
