/** A process of its own that takes part in a bench, and what it says in turn. */
import { type ChildProcess, fork, type Serializable } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { AerostatError } from '../sys/error.ts';

export class PeerProcess<To extends Serializable, From extends { readonly kind: string }> {
  readonly #child: ChildProcess;
  readonly #heard: From[] = [];
  #wake: () => void = () => {};
  #gone = false;

  constructor(program: URL) {
    this.#child = fork(fileURLToPath(program));
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
    this.#child.send(message);
  }

  /** The next thing that it says, which has to be this. */
  async hear<K extends From['kind']>(kind: K): Promise<Extract<From, { readonly kind: K }>> {
    while (this.#heard.length === 0 && !this.#gone) {
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
    const message = this.#heard.shift();
    if (message?.kind === kind) return message as Extract<From, { readonly kind: K }>;
    const why =
      message !== undefined && 'message' in message ? message.message : `it ended before it had ${kind}`;
    throw new AerostatError('AEROSTAT_BENCH', `the other process of the bench failed: ${why}`);
  }

  /** Resolves when it is gone. */
  async end(): Promise<void> {
    if (this.#gone) return;
    const exited = once(this.#child, 'exit');
    if (this.#child.connected) this.#child.disconnect();
    await exited;
  }
}
