/**
 * The thread's loop as one guest sees it: what its descriptors bring is clocked, and while the guest rests
 * (`ThreadTurns`) they are passed over. How long a guest rests is decided there; what is served, by its owner.
 */
import type { OwnedFd } from '../sys/fd.ts';
import { type Reactor, type Readiness, type Timer, type Watch, WatchGroup } from '../sys/poll.ts';
import { type GuestTurns, MESSAGE_WEIGHT } from './thread-turns.ts';

/** {@link GuestLoop} is within a step already, or has the thread alone. */
const UNCLOCKED = -1;

export class GuestLoop {
  readonly #reactor: Reactor;
  readonly #turns: GuestTurns;
  readonly #group = new WatchGroup();
  /** What is to be done when the guest has rested, each once. */
  readonly #postponed = new Set<() => void>();
  #rest: Timer | undefined;
  #clocked = false;

  constructor(reactor: Reactor, turns: GuestTurns) {
    this.#reactor = reactor;
    this.#turns = turns;
  }

  get resting(): boolean {
    return this.#rest !== undefined;
  }

  /** As {@link Reactor.watch}, but for the time in which the guest rests. */
  watch(fd: OwnedFd, onReady: (readiness: Readiness) => void): Watch {
    return this.#watch(fd, onReady, 1);
  }

  /** The same for descriptors that bring messages and connections. */
  readonly messages: Pick<Reactor, 'watch'> = {
    watch: (fd, onReady) => this.#watch(fd, onReady, MESSAGE_WEIGHT),
  };

  #watch(fd: OwnedFd, onReady: (readiness: Readiness) => void, weight: number): Watch {
    const clocked = (readiness: Readiness): void => {
      const fromMs = this.#begin();
      try {
        onReady(readiness);
      } finally {
        this.#end(fromMs, weight);
      }
    };
    return this.#reactor.watch(fd, clocked, this.#group);
  }

  /** As {@link Reactor.schedule}: what the host does at its own pace. */
  schedule(delayMs: number, run: () => void): Timer {
    return this.#reactor.schedule(delayMs, run);
  }

  /** Takes the step now, or when the guest has rested. */
  step(step: () => void): void {
    if (this.resting) {
      this.#postponed.add(step);
      return;
    }
    const fromMs = this.#begin();
    try {
      step();
    } finally {
      this.#end(fromMs);
    }
  }

  /** Takes the step after the other guests had their turn. */
  stepLater(step: () => void): void {
    this.#reactor.schedule(0, () => this.step(step));
  }

  /** What was done for the guest since `fromMs`, because the main thread asked for it, counts as the guest's. */
  charge(fromMs: number): void {
    if (!this.#turns.alone) this.#restFor(this.#turns.cost(fromMs, performance.now()));
  }

  /** The guest is gone, and what it was to do. */
  close(): void {
    this.#rest?.cancel();
    this.#rest = undefined;
    this.#postponed.clear();
    this.#group.paused = false;
    this.#turns.leave();
  }

  #begin(): number {
    // A guest that has the thread for itself is not kept up by a clock.
    if (this.#clocked || this.#turns.alone) return UNCLOCKED;
    this.#clocked = true;
    return performance.now();
  }

  #end(fromMs: number, weight = 1): void {
    if (fromMs === UNCLOCKED) return;
    this.#clocked = false;
    this.#restFor(this.#turns.served(fromMs, performance.now(), weight));
  }

  #restFor(ms: number): void {
    if (ms === 0) return;
    this.#group.paused = true;
    this.#rest?.cancel();
    this.#rest = this.#reactor.schedule(ms, () => this.#resume());
  }

  #resume(): void {
    this.#rest = undefined;
    this.#group.paused = false;
    const postponed = [...this.#postponed];
    this.#postponed.clear();
    // One that takes long has the others postponed again.
    for (const step of postponed) this.step(step);
  }
}
