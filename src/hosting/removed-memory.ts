/**
 * Says in the log what a guest's balloon held in memory that was taken out of the guest: that part leaves the account, and
 * returns when the memory does. Front-ends cut the same memory anew region by region, so the log waits until that is over.
 */
import { monotonicMs, type Reactor, type Timer } from '../sys/poll.ts';
import { formatSize } from '../sys/size.ts';
import type { GuestEvents } from './guest-events.ts';
import { LogLimiter } from './log-limiter.ts';

const SETTLES_MS = 50;

export class RemovedMemory {
  readonly #removedBytes: () => number;
  readonly #events: Pick<GuestEvents, 'log'>;
  readonly #reactor: Pick<Reactor, 'schedule'>;
  readonly #limiter = new LogLimiter(monotonicMs);
  #timer: Timer | undefined;
  #toldBytes = 0;

  /** `removedBytes`: what the balloon held in memory that is gone now. */
  constructor(
    removedBytes: () => number,
    events: Pick<GuestEvents, 'log'>,
    reactor: Pick<Reactor, 'schedule'>,
  ) {
    this.#removedBytes = removedBytes;
    this.#events = events;
    this.#reactor = reactor;
  }

  /** Memory was added to the guest or removed from it. */
  changed(): void {
    this.#timer ??= this.#reactor.schedule(SETTLES_MS, () => this.#tell());
  }

  /** The guest left with all its memory, which explains itself. */
  gone(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#toldBytes = this.#removedBytes();
  }

  #tell(): void {
    this.#timer = undefined;
    const removedBytes = this.#removedBytes();
    const before = this.#toldBytes;
    this.#toldBytes = removedBytes;
    if (removedBytes === before || this.#limiter.admit('removed') === undefined) return;
    const rest =
      removedBytes === 0
        ? 'all of it is back, and counts again'
        : `${formatSize(removedBytes)} of its balloon lie in memory that was removed, and count no more until that memory comes back`;
    this.#events.log(
      'info',
      `memory of the guest was ${removedBytes > before ? 'removed' : 'added'}: ${rest}`,
      {
        removedBytes,
      },
    );
  }
}
