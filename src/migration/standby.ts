/**
 * What a destination has of a guest before it stands still: the states that were sent ahead, which its machine has made ready
 * for, and what patches make of them at the stop. A patch counts for the rehearsal that it names, and for no other: made of
 * older bytes, it would give a guest that never was.
 */
import type { DestinationMessage } from './destination-link.ts';
import type { Clock, DestinationMachine, SavedState } from './machine.ts';
import { type PauseStep, PauseWatch, REHEARSED, RUN_EXPECTED } from './pause.ts';
import { StateParts, stateBytesMax } from './state-parts.ts';
import { patchState } from './state-patch.ts';
import type { StateSection } from './stream/messages.ts';
import { StreamError } from './stream/section.ts';

type StateMessage = Extract<DestinationMessage, { readonly kind: StateSection }>;

/** Each costs this host as much as loading a guest: more than these no source needs that means to stop its guest. */
export const REHEARSALS_MAX = 64;

export class StandbyStates {
  readonly #whole = new StateParts();
  readonly #ahead = new StateParts();
  readonly #patches = new StateParts();
  /** The states that were sent ahead, by name, and the number of their rehearsal; 0 is none. */
  #ready: ReadonlyMap<string, Uint8Array> = new Map();
  #number = 0;
  /** Both sides agreed on sending states ahead. */
  agreed = false;

  /** Part of a state, of one that is sent ahead, or of a patch, of a guest of so many pages. @throws StreamError */
  take({ kind, name, bytes, last }: StateMessage, pages: number): void {
    if (kind !== 'state') this.#expectAgreed(kind);
    if (kind === 'patch' && this.#number === 0) {
      throw new StreamError('order', `a patch of ${name}, of which nothing came`);
    }
    const parts = { state: this.#whole, ahead: this.#ahead, patch: this.#patches }[kind];
    parts.take(name, bytes, last, pages);
  }

  /**
   * All states of rehearsal `number` are here: returns what makes the machine ready for them, and tells where the time
   * went. @throws StreamError
   */
  rehearsal(number: number, machine: DestinationMachine, clock: Clock): () => Promise<readonly PauseStep[]> {
    this.#expectAgreed('rehearse');
    if (number !== this.#number + 1 || number > REHEARSALS_MAX) {
      throw new StreamError('order', `rehearsal ${number} came after ${this.#number}`);
    }
    const states = this.#ahead.whole();
    this.#ahead.clear();
    this.#number = number;
    this.#ready = new Map(states.map(({ name, bytes }) => [name, bytes]));
    const watch = new PauseWatch(clock);
    return async () => {
      await machine.prepare?.(states, watch.note);
      watch.done(REHEARSED);
      const runMs = await machine.expectedRunMs?.();
      if (runMs !== undefined) watch.note(RUN_EXPECTED, runMs);
      return watch.steps;
    };
  }

  /** All states: those that came whole, and what patches make of those that were sent ahead. @throws StreamError */
  complete(pages: number): SavedState[] {
    const whole = this.#whole.whole();
    const patched = this.#patches.whole().map(({ name, bytes: patch }): SavedState => {
      const from = this.#ready.get(name);
      if (from === undefined) throw new StreamError('order', `a patch of ${name}, of which nothing came`);
      if (whole.some(state => state.name === name)) {
        throw new StreamError('order', `state ${name} came again`);
      }
      return { name, bytes: patchState(this.#number, from, patch, stateBytesMax(pages)) };
    });
    return [...whole, ...patched];
  }

  /** What a stop brought that was called off. What was sent ahead stays. */
  recall(): void {
    this.#whole.clear();
    this.#patches.clear();
  }

  clear(): void {
    for (const parts of [this.#whole, this.#ahead, this.#patches]) parts.clear();
    this.#ready = new Map();
  }

  #expectAgreed(what: string): void {
    if (!this.agreed) throw new StreamError('order', `${what} was not agreed on`);
  }
}
