/**
 * The hint queue of the small machine: what the guest has put into it and the host has not taken yet. A buffer is a number
 * of four bits: STOP, a hinted page, or a command id. What taking one means is hint-model.ts's.
 */
import { HINT_ID_MIN, HINT_STOP } from '../balloon/hint-session.ts';
import { PAGES_MAX, RING_SLOTS_MAX } from './hint-options.ts';

/** 0 is no buffer; then STOP, then pages, then command ids. */
const BUFFER_STOP = 1;
const BUFFER_PAGE = 2;
const BUFFER_ID = BUFFER_PAGE + PAGES_MAX;

type HintBuffer = { readonly id: number } | { readonly page: number };

export class HintRing {
  length = 0;
  readonly #slots = new Uint8Array(RING_SLOTS_MAX);

  clear(): void {
    this.#slots.fill(0);
    this.length = 0;
  }

  pushPage(page: number): void {
    this.#slots[this.length++] = BUFFER_PAGE + page;
  }

  /** A session's id, or STOP. */
  pushId(id: number): void {
    this.#slots[this.length++] = id === HINT_STOP ? BUFFER_STOP : BUFFER_ID + id - HINT_ID_MIN;
  }

  /** Takes the first; there is one. */
  pop(): HintBuffer {
    const buffer = this.#slots[0];
    this.#slots.copyWithin(0, 1);
    this.#slots[--this.length] = 0;
    if (buffer === BUFFER_STOP) return { id: HINT_STOP };
    return buffer >= BUFFER_ID ? { id: HINT_ID_MIN + buffer - BUFFER_ID } : { page: buffer - BUFFER_PAGE };
  }

  /** Whether the buffer in `slot` hints `page`. */
  hintsAt(slot: number, page: number): boolean {
    return this.#slots[slot] === BUFFER_PAGE + page;
  }

  /** Whether any buffer hints a page that `is` says yes to. */
  hintsAny(is: (page: number) => boolean): boolean {
    for (let slot = 0; slot < this.length; slot++) {
      const page = this.#slots[slot] - BUFFER_PAGE;
      if (page >= 0 && page < PAGES_MAX && is(page)) return true;
    }
    return false;
  }

  /** Pages `page` and `page + 1` change names. */
  swap(page: number): void {
    for (let slot = 0; slot < this.length; slot++) {
      if (this.hintsAt(slot, page)) this.#slots[slot]++;
      else if (this.hintsAt(slot, page + 1)) this.#slots[slot]--;
    }
  }

  /** All buffers as one number; their count is {@link length}. */
  save(): number {
    let saved = 0;
    for (let slot = 0; slot < this.length; slot++) saved |= this.#slots[slot] << (slot * 4);
    return saved;
  }

  load(saved: number, length: number): void {
    this.clear();
    this.length = length;
    for (let slot = 0; slot < length; slot++) this.#slots[slot] = (saved >>> (slot * 4)) & 15;
  }
}
