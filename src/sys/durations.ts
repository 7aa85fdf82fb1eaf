/**
 * How long things took, counted in buckets, so that one sees how often something was slow and not only how slow it was
 * on average. Nothing is allocated for it, and the figures may lie in memory that threads share.
 */
import { type MonotonicClock, processClock } from './monotonic.ts';

/**
 * Upper bounds of the buckets, in milliseconds and inclusive; one more bucket takes what is above. From a system call
 * that has nothing to do to a guest that waits for the host to free gigabytes.
 */
export const DURATION_BOUNDS_MS: readonly number[] = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000,
];

const BUCKETS = DURATION_BOUNDS_MS.length + 1;
const SUM = BUCKETS;
// Fields, for a number that is passed on or returned may be a new object each time.
const SINCE = BUCKETS + 1;
const TOOK = BUCKETS + 2;

/** What was counted, as values. */
export interface Durations {
  /** How many there were in each bucket, the shortest first. */
  readonly counts: readonly number[];
  /** All together, in milliseconds. */
  readonly sumMs: number;
}

export class DurationHistogram {
  /** 64-bit floats that the figures take. */
  static readonly words = BUCKETS + 3;

  readonly #figures: Float64Array;
  readonly #clock: MonotonicClock;

  /** Goes on with `figures`, {@link DurationHistogram.words} of them. One thread at a time may count. */
  constructor(
    figures: Float64Array = new Float64Array(DurationHistogram.words),
    clock: MonotonicClock = processClock,
  ) {
    this.#figures = figures;
    this.#clock = clock;
  }

  /** Something begins, which ends with {@link end}. */
  begin(): void {
    this.#clock.write(this.#figures, SINCE);
  }

  /** What began has ended, `times` of it, and the next begins. */
  end(times: number): void {
    const figures = this.#figures;
    this.#clock.write(figures, TOOK);
    const nowMs = figures[TOOK];
    figures[TOOK] = nowMs - figures[SINCE];
    figures[SINCE] = nowMs;
    this.#count(times);
  }

  /** When what is under way began, or what ended last ended, on the clock of the process. */
  get sinceMs(): number {
    return this.#figures[SINCE];
  }

  /** How long what ended last took. */
  get tookMs(): number {
    return this.#figures[TOOK];
  }

  /** `times` things took `ms` each. */
  count(ms: number, times: number): void {
    this.#figures[TOOK] = ms;
    this.#count(times);
  }

  #count(times: number): void {
    const figures = this.#figures;
    const ms = figures[TOOK];
    let bucket = 0;
    while (bucket < BUCKETS - 1 && ms > DURATION_BOUNDS_MS[bucket]) bucket++;
    figures[bucket] += times;
    figures[SUM] += ms * times;
  }

  /** Adds what another one counted. */
  add(other: DurationHistogram): void {
    for (let word = 0; word <= SUM; word++) this.#figures[word] += other.#figures[word];
  }

  get durations(): Durations {
    return { counts: [...this.#figures.subarray(0, BUCKETS)], sumMs: this.#figures[SUM] };
  }
}
