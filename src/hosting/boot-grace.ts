/**
 * The boot grace of one guest: how long a driver that has just started is left alone before it sees its target. A kernel
 * that boots (after a crash, say, or at the least memory that it can run on) needs its memory more than its host does.
 * Times only: target-steering.ts decides what the driver is shown meanwhile.
 */
import type { Reactor, Timer } from '../sys/poll.ts';

export class BootGrace {
  readonly #graceMs: number;
  readonly #reactor: Pick<Reactor, 'schedule'>;
  readonly #over: () => void;
  #timer: Timer | undefined;
  #holds: boolean;

  /** `over` is called when it ends for a driver that is there. 0 is no grace. */
  constructor(graceMs: number, reactor: Pick<Reactor, 'schedule'>, over: () => void) {
    this.#graceMs = graceMs;
    this.#reactor = reactor;
    this.#over = over;
    this.#holds = graceMs > 0;
  }

  /** No driver may see the target yet. */
  get holds(): boolean {
    return this.#holds;
  }

  /** The driver is gone. The next one reads its configuration before it starts, and must not see the target there. */
  awaitDriver(): void {
    this.#stopTimer();
    this.#holds = this.#graceMs > 0;
  }

  /** A driver has just started. */
  started(): void {
    this.awaitDriver();
    if (this.#holds) this.#timer = this.#reactor.schedule(this.#graceMs, () => this.end());
  }

  /** The driver needs no grace, or none any more. */
  end(): void {
    this.#stopTimer();
    if (!this.#holds) return;
    this.#holds = false;
    this.#over();
  }

  #stopTimer(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }
}
