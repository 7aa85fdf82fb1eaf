/**
 * What others are told of a guest: events for those who watch, and lines of the log. Guests and front-ends set most of it
 * off, as often as they like, and it costs threads that they share with others; so everything that they can repeat has
 * its pace.
 */

import type { GuestEventType } from '../control/contract.ts';
import { monotonicMs, type Reactor, type Timer } from '../sys/poll.ts';
import { LogLimiter } from './log-limiter.ts';
import type { LogLevel } from './options.ts';

/** Between two events of something that changes all the time; a page that shows it redraws no more often. */
const EVENT_MS = 50;

type EventDetail = Readonly<Record<string, string | number | boolean | null>>;

/** Where news go. */
export interface EventOutlet {
  emit(guest: string, type: GuestEventType, detail: EventDetail): void;
  log(guest: string, level: LogLevel, message: string, detail?: EventDetail): void;
}

/** An event that was told a moment ago. */
interface Paced {
  readonly timer: Timer;
  /** What is to be told when the moment is over, if it changed meanwhile. */
  next: (() => EventDetail) | undefined;
}

export class GuestEvents {
  readonly #guest: string;
  readonly #outlet: EventOutlet;
  readonly #reactor: Pick<Reactor, 'schedule'>;
  readonly #limiter = new LogLimiter(monotonicMs);
  readonly #paced = new Map<GuestEventType, Paced>();
  /** The newest problem, logged or not. */
  lastProblem: string | null = null;

  constructor(guest: string, outlet: EventOutlet, reactor: Pick<Reactor, 'schedule'>) {
    this.#guest = guest;
    this.#outlet = outlet;
    this.#reactor = reactor;
  }

  emit(type: GuestEventType, detail: EventDetail = {}): void {
    this.#outlet.emit(this.#guest, type, detail);
  }

  /** Something changed that may change without end: told at once, and from then on its newest state now and then. */
  changed(type: GuestEventType, detail: () => EventDetail): void {
    const paced = this.#paced.get(type);
    if (paced === undefined) this.#emitAndPause(type, detail);
    else paced.next = detail;
  }

  /** What changed and is not told yet is told now. */
  hurry(type: GuestEventType): void {
    const paced = this.#paced.get(type);
    if (paced?.next === undefined) return;
    paced.timer.cancel();
    this.#emitAndPause(type, paced.next);
  }

  /** What is not told yet is of no interest any more. What comes next has its pace all the same. */
  drop(): void {
    for (const paced of this.#paced.values()) paced.next = undefined;
  }

  /** Notes what is wrong: always here, in the log and as an event once in a while for each `kind`. */
  problem(kind: string, message: string, level: LogLevel = 'warn'): void {
    this.lastProblem = message;
    const suppressed = this.#limiter.admit(kind);
    if (suppressed === undefined) return;
    this.log(level, message, suppressed === 0 ? undefined : { suppressed });
    this.emit('error', { message });
  }

  log(level: LogLevel, message: string, detail?: EventDetail): void {
    this.#outlet.log(this.#guest, level, message, detail);
  }

  #emitAndPause(type: GuestEventType, detail: () => EventDetail): void {
    const timer = this.#reactor.schedule(EVENT_MS, () => {
      this.#paced.delete(type);
      if (paced.next !== undefined) this.#emitAndPause(type, paced.next);
    });
    const paced: Paced = { timer, next: undefined };
    this.#paced.set(type, paced);
    this.emit(type, detail());
  }
}
