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

  constructor(state: PendingState, unitBytes: number) {
    this.#state = state;
    this.#cutUnitsMin = Math.ceil(CUT_BYTES_MIN / unitBytes);
  }

  /** Where a run that begins at `at`, and could go on to `stop`, ends. */
  end(at: number, stop: number): number {
    const { header, huge } = this.#state;
    const cut = Atomics.load(header, WORD.cutUnits);
    if (cut === 0 || stop - at <= cut) return stop;
    if (huge === undefined) return at + cut;
    const end = huge.floor(at + cut);
    return end > at ? end : Math.min(stop, huge.ceil(at + 1));
  }

  /** A run of so many units has just been discarded. */
  took(units: number): void {
    const { header, times } = this.#state;
    const cut = Atomics.load(header, WORD.cutUnits);
    const ms = times.tookMs;
    if (ms > this.runMsMax && units > this.#cutUnitsMin) {
      Atomics.store(header, WORD.cutUnits, Math.max(this.#cutUnitsMin, units >>> 1));
    } else if (cut > 0 && units === cut && ms < this.runMsMax / 4) {
      Atomics.store(header, WORD.cutUnits, cut * 2);
    }
  }
}
