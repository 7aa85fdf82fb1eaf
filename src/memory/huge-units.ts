/**
 * Huge pages of the host in a set of pending units that are smaller: the host can take a unit back by itself, but splits the
 * huge page that holds it. Which huge pages are complete is looked up here; who waits for them is patient-discarder.ts's
 * business.
 */

/** What is looked at of a set of pending units. */
interface PendingUnits {
  /** A bit for each unit. */
  readonly words: Int32Array;
  /** Of a stretch, the units [start, end). */
  bounds(stretch: number): { readonly start: number; readonly end: number };
}

export class HugeUnits {
  /** Units of a huge page; a multiple of 32. */
  readonly units: number;
  /** Where in its huge page unit 0 lies; a multiple of 32. */
  readonly #phase: number;

  private constructor(units: number, phase: number) {
    this.units = units;
    this.#phase = phase;
  }

  /**
   * Of memory that begins at `fileOffset` of its file; undefined where huge pages are no larger than a unit, or lie so that
   * words of bits have parts of two.
   */
  static of(hugeBytes: number, unitBytes: number, fileOffset: number): HugeUnits | undefined {
    const units = hugeBytes / unitBytes;
    const phase = (fileOffset % hugeBytes) / unitBytes;
    const fits = units > 1 && units % 32 === 0 && phase % 32 === 0;
    return fits ? new HugeUnits(units, phase) : undefined;
  }

  /** The first unit from `at` on with which a huge page begins. */
  ceil(at: number): number {
    return Math.ceil((at + this.#phase) / this.units) * this.units - this.#phase;
  }

  /** The last unit up to `at` with which a huge page begins. */
  floor(at: number): number {
    return Math.floor((at + this.#phase) / this.units) * this.units - this.#phase;
  }

  /** How many huge pages have some of the units [start, end), and not all of theirs. */
  cutBy(start: number, end: number): number {
    const first = this.floor(start);
    const last = this.floor(end);
    const headCut = first < start;
    if (first === last) return headCut || last < end ? 1 : 0;
    return Number(headCut) + Number(last < end);
  }

  /** Whether any huge page lies in the stretch as a whole and is pending as a whole; it may be otherwise a moment later. */
  anyWhole(state: PendingUnits, stretch: number): boolean {
    const { start, end } = state.bounds(stretch);
    for (let at = Math.max(this.ceil(start), start); at + this.units <= end; at += this.units) {
      if (this.#isWhole(state, at)) return true;
    }
    return false;
  }

  #isWhole({ words }: PendingUnits, at: number): boolean {
    for (let word = at >>> 5; word < (at + this.units) >>> 5; word++) if (words[word] !== -1) return false;
    return true;
  }
}
