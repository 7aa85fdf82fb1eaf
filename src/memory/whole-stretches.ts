/**
 * The marking thread's knowledge of a set of pending discards that spares it and the claimers a look at every word: a stretch
 * that is marked as a whole has one bit and no words, so that a range over terabytes costs a step for each 16 MiB and gives
 * the bitmap no memory. What claimers do with such a stretch is discard-claims.ts's.
 *
 * A stretch has its bit or words, never both:
 * - It gets its bit only where no word of it was written since the set was seen to be empty, and no word is written while it
 *   has the bit.
 * - A part of it can be taken back only by taking the bit first, which one thread alone gets: the marking thread, that then
 *   writes words for the rest of it, or a claimer, that discards all of it.
 */
import { noteStretch, type PendingState } from './pending-state.ts';

export class WholeStretches {
  readonly #state: PendingState;
  /** For each stretch the period in which words of it were last written; a period ends when the set is seen to be empty. */
  readonly #written: Int32Array;
  #period: number;
  /** Some stretch has its bit, or had it in this period. */
  any = false;
  /** Words that were written for the rest of a stretch: claimers may have found neither bit nor words, and sleep. */
  #rest = false;

  /** `fresh`: nothing was ever marked. Else any stretch may have words. */
  constructor(state: PendingState, fresh: boolean) {
    this.#state = state;
    this.#written = new Int32Array(state.stretches);
    this.#period = fresh ? 1 : 0;
    this.any = !fresh;
  }

  /** To be called before much is marked: what is empty has no words any more. */
  look(): void {
    if (this.#state.outstanding > 0) return;
    this.#period++;
    this.any = false;
  }

  /** Whether words of the stretch may have bits set. */
  hasWords(stretch: number): boolean {
    return this.#written[stretch] === this.#period;
  }

  noteWords(stretch: number): void {
    this.#written[stretch] = this.#period;
  }

  /** Whether all of the stretch is marked by its bit. */
  has(stretch: number): boolean {
    return this.any && this.#state.isWhole(stretch);
  }

  /**
   * Marks all of the stretch, which is not {@link has}; false, and nothing is done, where it may have words, or is to be
   * discarded in pieces because that takes long: a claimer takes what has one bit at once.
   */
  mark(stretch: number): boolean {
    if (this.hasWords(stretch) || this.#state.cuts) return false;
    this.any = true;
    Atomics.or(this.#state.whole, stretch >>> 5, 1 << (stretch & 31));
    return true;
  }

  /** Takes units [start, end) of a stretch that {@link has} its bit; how many that are: none where a claimer was faster. */
  take(stretch: number, start: number, end: number): number {
    if (!this.#state.takeWhole(stretch)) return 0;
    const first = stretch * this.#state.stretchUnits;
    this.#write(stretch, first, start);
    this.#write(stretch, end, first + this.#state.stretchUnits);
    return end - start;
  }

  /** Whether a claimer has to be woken for the rest of a stretch; asked once. */
  takeRest(): boolean {
    const rest = this.#rest;
    this.#rest = false;
    return rest;
  }

  #write(stretch: number, start: number, end: number): void {
    if (start === end) return;
    this.#rest = true;
    this.noteWords(stretch);
    this.#state.setBits(start, end);
    noteStretch(this.#state.summary, stretch);
  }
}
