/** States as they come in, part after part: bounded in number and in bytes, and whole when they are taken. */
import type { SavedState } from './machine.ts';
import { StreamError } from './stream/section.ts';

/** Bytes of all states together: what a guest's own books need a page, and room for a device. */
const STATE_BYTES_PER_PAGE = 128;
const STATE_BYTES_BASE = 2 ** 24;
/** Parts of a device and a guest that save a state of their own. */
const STATES_MAX = 64;

/** What all states of a guest of so many pages may come to. */
export const stateBytesMax = (pages: number): number => STATE_BYTES_BASE + STATE_BYTES_PER_PAGE * pages;

export class StateParts {
  readonly #states = new Map<string, { readonly parts: Uint8Array[]; complete: boolean }>();
  #bytes = 0;

  /** `pages` of the guest. @throws StreamError when it is too much, or comes again */
  take(name: string, bytes: Uint8Array, last: boolean, pages: number): void {
    let state = this.#states.get(name);
    if (state === undefined) {
      if (this.#states.size >= STATES_MAX) throw new StreamError('limit', `more than ${STATES_MAX} states`);
      state = { parts: [], complete: false };
      this.#states.set(name, state);
    }
    if (state.complete) throw new StreamError('order', `state ${name} came again`);
    this.#bytes += bytes.length;
    if (this.#bytes > stateBytesMax(pages)) {
      throw new StreamError('limit', `states of more than ${this.#bytes} bytes`);
    }
    // A part of nothing must not cost anything either.
    if (bytes.length > 0) state.parts.push(bytes);
    state.complete = last;
  }

  /** All of them. @throws StreamError when one is not all there */
  whole(): SavedState[] {
    return [...this.#states].map(([name, { parts, complete }]): SavedState => {
      if (!complete) throw new StreamError('order', `state ${name} is not all there`);
      return { name, bytes: Buffer.concat(parts) };
    });
  }

  clear(): void {
    this.#states.clear();
    this.#bytes = 0;
  }
}
