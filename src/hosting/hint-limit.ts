/**
 * The end of a hint session that its caller does not end: a guest keeps what it named out of use until it hears DONE, and a session
 * that is forgotten would keep it for ever. Sessions of a migration are the migration's own to end.
 */
import type { HintChannel } from '../device/hint-channel.ts';
import { monotonicMs, type Reactor, type Timer } from '../sys/poll.ts';

export class HintLimit {
  readonly #reactor: Pick<Reactor, 'schedule'>;
  readonly #ended: (limitMs: number) => void;
  #timer: Timer | undefined;
  #endsMs = 0;
  /** The session that is to end. */
  #id: number | null = null;

  /** `ended` is told of a session that was ended here. */
  constructor(reactor: Pick<Reactor, 'schedule'>, ended: (limitMs: number) => void) {
    this.#reactor = reactor;
    this.#ended = ended;
  }

  /** The session that has just begun on `hints` ends after `limitMs`. */
  start(hints: HintChannel, limitMs: number): void {
    this.cancel();
    this.#id = hints.session.id;
    this.#endsMs = monotonicMs() + limitMs;
    this.#timer = this.#reactor.schedule(limitMs, () => {
      this.#timer = undefined;
      // Another session, of a migration, is none of ours.
      if (hints.session.id !== this.#id || hints.phase === 'done') return;
      hints.done();
      this.#ended(limitMs);
    });
  }

  cancel(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** Until the session with this id ends by itself; null for one that does not. */
  endsInMs(id: number | null): number | null {
    return this.#timer === undefined || id !== this.#id ? null : Math.max(0, this.#endsMs - monotonicMs());
  }
}
