/**
 * The end of memory: first a chain of those who can give some back (the balloon), then the process that holds
 * most is ended.
 */
import type { OomNotifier } from '../memory/kernel-memory.ts';
import type { VmEvents } from './vm-events.ts';

/** A process whose memory the killer may take. */
export interface Victim {
  readonly name: string;
  /** Pages that ending it would free. */
  readonly residentPages: number;
  readonly killable: boolean;
  kill(): void;
}

interface OomOutcome {
  /** Pages that notifiers freed or promised. */
  readonly released: number;
  readonly killed: Victim | undefined;
}

export class OutOfMemory {
  readonly #notifiers: OomNotifier[] = [];
  readonly #victims: () => Iterable<Victim>;
  readonly #events: VmEvents;

  constructor(victims: () => Iterable<Victim>, events: VmEvents) {
    this.#victims = victims;
    this.#events = events;
  }

  /** Registers a notifier; the returned function takes it out again. */
  addNotifier(notifier: OomNotifier): () => void {
    this.#notifiers.push(notifier);
    return () => {
      const at = this.#notifiers.indexOf(notifier);
      if (at >= 0) this.#notifiers.splice(at, 1);
    };
  }

  run(): OomOutcome {
    let released = 0;
    for (const notifier of [...this.#notifiers]) released += notifier.release();
    if (released > 0) return { released, killed: undefined };
    let killed: Victim | undefined;
    for (const victim of this.#victims()) {
      if (!victim.killable || victim.residentPages === 0) continue;
      if (killed === undefined || victim.residentPages > killed.residentPages) killed = victim;
    }
    if (killed !== undefined) {
      this.#events.oomKills++;
      killed.kill();
    }
    return { released: 0, killed };
  }
}
