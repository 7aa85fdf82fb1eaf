/**
 * News of front-ends that come and go. A few in a row are told one by one, for that is what a guest does that crashes and
 * is started again; a front-end that connects and hangs up without end is told of once an interval, with how often.
 */
import type { Reactor, Timer } from '../sys/poll.ts';
import type { GuestEvents } from './guest-events.ts';

/** One interval's news are told when it is over. */
const INTERVAL_MS = 10_000;
/** Connections of one interval that are told one by one. */
const SINGLY_MAX = 5;

export class ConnectionEvents {
  readonly #events: GuestEvents;
  readonly #reactor: Pick<Reactor, 'schedule'>;
  /** Runs while an interval does. */
  #interval: Timer | undefined;
  /** Connections of the interval. */
  #count = 0;
  /** Those that were not told, connected and disconnected. */
  #untold = 0;
  #connected = false;
  #told = false;

  constructor(events: GuestEvents, reactor: Pick<Reactor, 'schedule'>) {
    this.#events = events;
    this.#reactor = reactor;
  }

  /** Whether what a front-end does now is told, or it is one of too many. */
  get quiet(): boolean {
    return this.#count > SINGLY_MAX;
  }

  opened(): void {
    this.#connected = true;
    this.#count++;
    this.#interval ??= this.#reactor.schedule(INTERVAL_MS, () => this.#over());
    if (this.quiet) return;
    this.#tell();
  }

  closed(): void {
    this.#connected = false;
    if (this.quiet) this.#untold++;
    else this.#tell();
  }

  #over(): void {
    this.#interval = undefined;
    const untold = this.#untold;
    this.#untold = 0;
    this.#count = 0;
    if (untold > 0) {
      const times = untold === 1 ? 'once' : `${untold} times`;
      this.#events.log(
        'info',
        `front-ends connected and disconnected ${times} more in ${INTERVAL_MS / 1000} s`,
      );
    }
    if (this.#told !== this.#connected) this.#tell();
    // Who goes on like that has the whole interval for nothing but its sum.
    if (untold > SINGLY_MAX) {
      this.#count = SINGLY_MAX;
      this.#interval = this.#reactor.schedule(INTERVAL_MS, () => this.#over());
    }
  }

  /** What is true now. */
  #tell(): void {
    const what = this.#connected ? 'connected' : 'disconnected';
    this.#told = this.#connected;
    this.#events.emit(what);
    this.#events.log('info', `front-end ${what}`);
  }
}
