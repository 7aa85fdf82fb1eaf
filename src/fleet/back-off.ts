/** How long to wait between attempts to reach a server that does not answer. */

export const RECONNECT_MS_MIN = 100;
const RECONNECT_MS_MAX = 4000;

/** Longer and longer, until a server answers. */
export class BackOff {
  #ms = RECONNECT_MS_MIN;

  next(): number {
    const ms = this.#ms * (0.5 + Math.random() / 2);
    this.#ms = Math.min(RECONNECT_MS_MAX, this.#ms * 2);
    return ms;
  }

  reset(): void {
    this.#ms = RECONNECT_MS_MIN;
  }
}
