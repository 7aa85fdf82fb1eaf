/**
 * How long one run of a claim may be. A guest that takes a unit of it back waits for its end, so later runs are cut, in
 * halves, as long as they take longer than that should; and nothing is cut in the middle of a huge page of the host.
 */
import { type PendingState, WORD } from './pending-state.ts';

/** How long one run should take at most. */
const RUN_MS_MAX = 5;
/** Nothing is cut below: a call that is slow whatever its length should not be made more often. */
const CUT_BYTES_MIN = 256 * 2 ** 10;

export class RunLengths {
  /** For {@link RUN_MS_MAX}. */
  runMsMax = RUN_MS_MAX;
  readonly #state: PendingState;
  readonly #cutUnitsMin: number;
  /** The run that {@link end} was asked for last has less than it could have. */
  #wasCut = false;

  constructor(state: PendingState, unitBytes: number) {
    this.#state = state;
    this.#cutUnitsMin = Math.ceil(CUT_BYTES_MIN / unitBytes);
  }

  /** Where a run that begins at `at`, and could go on to `stop`, ends. */
  end(at: number, stop: number): number {
    const cut = Atomics.load(this.#state.header, WORD.cutUnits);
    const end = cut === 0 || stop - at <= cut ? stop : this.#cutAt(at, stop, cut);
    this.#wasCut = end < stop;
    return end;
  }

  #cutAt(at: number, stop: number, cut: number): number {
    const { huge } = this.#state;
    if (huge === undefined) return at + cut;
    const end = huge.floor(at + cut);
    return end > at ? end : Math.min(stop, huge.ceil(at + 1));
  }

  /** A run of so many units has just been discarded. */
  took(units: number): void {
    const { header, times, huge } = this.#state;
    const cut = Atomics.load(header, WORD.cutUnits);
    const ms = times.tookMs;
    const least = Math.max(this.#cutUnitsMin, huge?.units ?? 0);
    if (ms > this.runMsMax && units > least) {
      Atomics.store(header, WORD.cutUnits, Math.max(least, units >>> 1));
    } else if (this.#wasCut && ms < this.runMsMax / 4) {
      // It may have had less, or more, than the cut said, where it ended between two huge pages.
      Atomics.store(header, WORD.cutUnits, cut * 2);
    }
  }
}
