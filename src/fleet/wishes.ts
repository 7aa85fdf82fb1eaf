/**
 * What persons wish of a fleet: hosts that are to be empty, and guests that are to be elsewhere. They are kept under one key
 * that only the leader writes, so that they outlive it; a leader that is none any more cannot write it.
 */
import type { Bucket } from './bus.ts';
import {
  inWords,
  type OrderOutcome,
  readMessage,
  VERSION,
  type WishedMove,
  type WishRecord,
  writeMessage,
} from './messages.ts';

const KEY = 'wishes';
const ENDED_KEPT = 64;
const NONE: WishRecord = { version: VERSION, draining: [], moves: [], ended: [] };

export class WishList {
  readonly #bucket: Bucket;
  #wishes: WishRecord = NONE;
  #revision: number | null = null;

  constructor(bucket: Bucket) {
    this.#bucket = bucket;
  }

  get draining(): readonly string[] {
    return this.#wishes.draining;
  }

  get moves(): readonly WishedMove[] {
    return this.#wishes.moves;
  }

  get ended(): readonly OrderOutcome[] {
    return this.#wishes.ended;
  }

  /** What a stranger wrote there is no wish. */
  async load(): Promise<void> {
    const entry = await this.#bucket.get(KEY);
    const read = entry === null ? undefined : readMessage('wishes', entry.bytes);
    this.#wishes = read !== undefined && 'value' in read ? read.value : NONE;
    this.#revision = entry?.revision ?? null;
  }

  /** @throws RevisionError when another leader has written it */
  async drain(host: string): Promise<void> {
    if (this.draining.includes(host)) return;
    await this.#save({ ...this.#wishes, draining: [...this.draining, host] });
  }

  /** @throws RevisionError */
  async undrain(host: string): Promise<void> {
    if (!this.draining.includes(host)) return;
    await this.#save({ ...this.#wishes, draining: this.draining.filter(other => other !== host) });
  }

  /** Wished again by the same id, it is the same wish. @throws RevisionError */
  async move(wish: WishedMove): Promise<void> {
    if ([...this.moves, ...this.ended].some(({ id }) => id === wish.id)) return;
    await this.#save({ ...this.#wishes, moves: [...this.moves, wish] });
  }

  /** @throws RevisionError */
  async end(outcomes: readonly OrderOutcome[]): Promise<void> {
    if (outcomes.length === 0) return;
    const over = new Set(outcomes.map(({ id }) => id));
    await this.#save({
      ...this.#wishes,
      moves: this.moves.filter(({ id }) => !over.has(id)),
      ended: [
        ...this.ended,
        ...outcomes.map(({ why, ...rest }) => ({ ...rest, why: why === null ? null : inWords(why) })),
      ].slice(-ENDED_KEPT),
    });
  }

  async #save(wishes: WishRecord): Promise<void> {
    const text = writeMessage('wishes', wishes);
    this.#revision =
      this.#revision === null
        ? await this.#bucket.create(KEY, text)
        : await this.#bucket.update(KEY, text, this.#revision);
    this.#wishes = wishes;
  }
}
