/** Reads a stream of Server-Sent Events from text that arrives in pieces (HTML Living Standard, 9.2.6). */

/** Proxies cut a silent connection after a minute or so; comments keep it open, and a write finds readers that are gone. */
export const HEARTBEAT_MS = 15_000;

/** A stream on which nothing came for so long counts as ended, though no end of it arrived. */
export const SILENCE_MS_MAX = 3 * HEARTBEAT_MS;

/** An id that no daemon gives to an event: a reader that resumes after it gets all that the daemon remembers. */
export const BEFORE_ALL = 'the-beginning';

interface ParsedEvent {
  readonly event: string;
  readonly data: string;
}

export class EventParser {
  /** The id to resume after; empty when there was none. */
  lastId = '';
  readonly #listener: (event: ParsedEvent) => void;
  #rest = '';
  #event = '';
  #data: string[] = [];
  #id = '';

  constructor(listener: (event: ParsedEvent) => void) {
    this.#listener = listener;
  }

  /** Forgets an event that the lost connection left half told; keeps {@link lastId}. */
  restart(): void {
    this.#rest = '';
    this.#event = '';
    this.#data = [];
    this.#id = this.lastId;
  }

  push(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#line(line.endsWith('\r') ? line.slice(0, -1) : line);
  }

  #line(line: string): void {
    if (line === '') {
      this.#dispatch();
      return;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') this.#event = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'id') this.#id = value;
  }

  #dispatch(): void {
    // An id counts once its event is whole: resuming after a half-told event would lose it.
    this.lastId = this.#id;
    const [event, data] = [this.#event || 'message', this.#data.join('\n')];
    const some = this.#data.length > 0;
    this.#event = '';
    this.#data = [];
    if (some) this.#listener({ event, data });
  }
}
