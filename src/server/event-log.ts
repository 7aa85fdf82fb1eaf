/**
 * The newest events of all guests, bounded, each with an id, so that a client that lost its connection resumes where it
 * stopped, or learns that it missed some. No HTTP here.
 */
import { randomBytes } from 'node:crypto';
import type { GuestEvent, GuestEventType } from '../control/contract.ts';

/** Of what happened, and as many of figures that changed; about 200 bytes each. */
const EVENTS_KEPT_MAX = 4096;

/**
 * A guest that lives tells these every second and says nothing in them that its status does not. They are kept apart:
 * among a hundred such guests an error would be forgotten within a minute.
 */
const FIGURES: readonly GuestEventType[] = ['actual', 'statistics'];

/** Ids are `EPOCH-NUMBER`; longer ones cannot be ours. */
const ID = /^([0-9a-f]{8})-(\d{1,15})$/;

interface LoggedEvent {
  readonly id: string;
  readonly event: GuestEvent;
}

/** Where a reader stands. */
interface Cursor {
  /** The number of the next event that it has not seen. */
  next: number;
  /** It asked to resume after an event that we do not know, and was not told yet. */
  lost: boolean;
  /** The newest event that was gone before it came to it, and of which it knows. */
  missed: number;
  readonly rings: readonly Ring[];
}

interface Numbered {
  readonly number: number;
  readonly event: GuestEvent;
}

class Ring {
  readonly #capacity: number;
  readonly #kept: Numbered[] = [];
  #count = 0;
  /** The number of the newest event that had to go; negative when none had. */
  #dropped = -1;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get dropped(): number {
    return this.#dropped;
  }

  push(entry: Numbered): void {
    const at = this.#count++ % this.#capacity;
    this.#dropped = this.#kept[at]?.number ?? this.#dropped;
    this.#kept[at] = entry;
  }

  /** The oldest event whose number is `number` or above. */
  from(number: number): Numbered | undefined {
    let low = Math.max(0, this.#count - this.#capacity);
    let high = this.#count;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.#at(middle).number < number) low = middle + 1;
      else high = middle;
    }
    return low < this.#count ? this.#at(low) : undefined;
  }

  #at(index: number): Numbered {
    return this.#kept[index % this.#capacity];
  }
}

export class EventLog {
  /** Tells this log's ids from those of a daemon that ran before, whose numbers mean other events. */
  readonly #epoch: string;
  readonly #happenings: Ring;
  readonly #figures: Ring;
  readonly #waiting = new Set<() => void>();
  #count = 0;

  constructor(capacity = EVENTS_KEPT_MAX, epoch = randomBytes(4).toString('hex')) {
    this.#happenings = new Ring(capacity);
    this.#figures = new Ring(capacity);
    this.#epoch = epoch;
  }

  /** Readers that wait for the next event. */
  get waiting(): number {
    return this.#waiting.size;
  }

  push(event: GuestEvent): void {
    this.#ringOf(event.type).push({ number: this.#count++, event });
    this.wake();
  }

  /** Wakes all readers that wait. */
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
   * A reader that resumes after event `lastId`, or begins with the next event when none is given. One with
   * an id that is not ours, such as from another life of the daemon, gets all that is kept. A reader that names `types` may
   * get others as well, and is not told of others that are gone.
   */
  open(lastId: string | undefined, types?: readonly string[]): Cursor {
    const all = [this.#happenings, this.#figures];
    const rings = all.filter(ring => types?.some(type => this.#ringOf(type) === ring) ?? true);
    const at = (next: number, lost = false): Cursor => ({ next, lost, missed: -1, rings });
    if (lastId === undefined || lastId === '') return at(this.#count);
    const match = ID.exec(lastId);
    const known = match !== null && match[1] === this.#epoch && Number(match[2]) <= this.#count;
    return known ? at(Number(match[2])) : at(0, true);
  }

  /** The next event for this reader, or undefined when it has seen all; `missed` when some before it are gone. */
  read(cursor: Cursor): { missed: boolean; logged: LoggedEvent | undefined } {
    const dropped = Math.max(...cursor.rings.map(ring => ring.dropped));
    const missed = cursor.lost || dropped >= Math.max(cursor.next, cursor.missed + 1);
    cursor.lost = false;
    cursor.missed = Math.max(cursor.missed, dropped);
    const found = cursor.rings.flatMap(ring => ring.from(cursor.next) ?? []);
    if (found.length === 0) {
      cursor.next = this.#count;
      return { missed, logged: undefined };
    }
    const { number, event } = found.reduce((a, b) => (a.number < b.number ? a : b));
    cursor.next = number + 1;
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

  #ringOf(type: string): Ring {
    return (FIGURES as readonly string[]).includes(type) ? this.#figures : this.#happenings;
  }
}
