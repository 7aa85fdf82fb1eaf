/**
 * The newest events of all guests in a bounded ring, each with an id, so that a client that lost its
 * connection goes on where it stopped, or learns that it missed some. No HTTP here.
 */
import { randomBytes } from 'node:crypto';
import type { GuestEvent } from '../daemon/control.ts';

/** Some minutes of a hundred guests that move; about 200 bytes each. */
export const EVENTS_KEPT_MAX = 4096;

/** Ids are `EPOCH-NUMBER`; longer ones cannot be ours. */
const ID = /^([0-9a-f]{8})-(\d{1,15})$/;

export interface LoggedEvent {
  readonly id: string;
  readonly event: GuestEvent;
}

/** Where a reader stands. */
export interface Cursor {
  /** The number of the next event that it has not seen. */
  next: number;
  /** It asked to go on after an event that we do not know, and was not told yet. */
  lost: boolean;
}

export class EventLog {
  readonly #capacity: number;
  /** Tells this log's ids from those of a daemon that ran before, whose numbers mean other events. */
  readonly #epoch: string;
  readonly #ring: GuestEvent[] = [];
  readonly #waiting = new Set<() => void>();
  #count = 0;

  constructor(capacity = EVENTS_KEPT_MAX, epoch = randomBytes(4).toString('hex')) {
    this.#capacity = capacity;
    this.#epoch = epoch;
  }

  /** Readers that wait for the next event. */
  get waiting(): number {
    return this.#waiting.size;
  }

  push(event: GuestEvent): void {
    this.#ring[this.#count % this.#capacity] = event;
    this.#count++;
    this.wake();
  }

  /** Lets all who wait look again. */
  wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const resume of waiting) resume();
  }

  /** The id of the event before the one that this reader reads next: what it would resume after. */
  idAt({ next }: Cursor): string {
    return `${this.#epoch}-${next}`;
  }

  isAtEnd({ next }: Cursor): boolean {
    return next >= this.#count;
  }

  /**
   * A reader that goes on after event `lastId`, or begins with the next event when none is given. One with
   * an id that is not ours, such as from another life of the daemon, gets all that is kept.
   */
  open(lastId: string | undefined): Cursor {
    if (lastId === undefined || lastId === '') return { next: this.#count, lost: false };
    const match = ID.exec(lastId);
    const known = match !== null && match[1] === this.#epoch && Number(match[2]) <= this.#count;
    return known ? { next: Number(match[2]), lost: false } : { next: this.#oldest, lost: true };
  }

  /** The next event for this reader, or undefined when it has seen all; `missed` when some before it are gone. */
  read(cursor: Cursor): { missed: boolean; logged: LoggedEvent | undefined } {
    const missed = cursor.lost || cursor.next < this.#oldest;
    cursor.lost = false;
    cursor.next = Math.max(cursor.next, this.#oldest);
    if (cursor.next >= this.#count) return { missed, logged: undefined };
    const event = this.#ring[cursor.next % this.#capacity];
    cursor.next++;
    return { missed, logged: { id: this.idAt(cursor), event } };
  }

  /** Resolves when there may be something to read, at the latest after `timeoutMs`. */
  wait(timeoutMs: number): Promise<void> {
    return new Promise(resolve => {
      const resume = () => {
        clearTimeout(timer);
        this.#waiting.delete(resume);
        resolve();
      };
      const timer = setTimeout(resume, timeoutMs);
      this.#waiting.add(resume);
    });
  }

  get #oldest(): number {
    return Math.max(0, this.#count - this.#capacity);
  }
}
