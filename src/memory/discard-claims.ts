/**
 * The claiming side of a set of pending discards: takes what is pending, run by run, discards it, and says so. Which
 * protocol that follows is written in pending-discards.ts; when it is done, in patient-discarder.ts.
 */
import { AerostatError, SystemError } from '../sys/error.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { HugeUnits } from './huge-units.ts';
import { PAGE_SIZE } from './page.ts';
import { maskOf, PageBitmap, popcount } from './page-bitmap.ts';
import { noteStretch, type PendingState, TOTAL, WAIT_SLICE_MS, WATCHES, WORD } from './pending-state.ts';
import { RunLengths } from './run-lengths.ts';

/** A claim ends with the run that is under way after so long; what is left of its stretch is claimed later. */
const CLAIM_MS_MAX = 5;

/**
 * What was marked as a whole is discarded several stretches at a time where that takes little, as it does where there is no
 * memory, or memory in huge pages: as many as took at most {@link WHOLE_RUN_MS} together, by the run before, and no more than
 * twice as many as that one had. So many, should there be small pages all of a sudden, take some tens of milliseconds at most.
 */
const WHOLE_RUN_MS = 1;
/** `huge`: where the host is known to have huge pages, which may be small ones after all; `pool`: has no others. */
const REACH_MAX = { small: 8, huge: 16, pool: 32 };

/** A drain is reported no more often than this before it is over. */
const DRAIN_NEWS_MS = 2;

/**
 * Average length of a stretch's runs from which on it is dense. A punch costs the kernel, and a guest that runs
 * meanwhile, about as much as freeing four pages: runs of sixteen pay a fifth for that, single pages four fifths.
 */
export const DENSE_RUN_BYTES = 64 * 2 ** 10;

/** Gives `count` units from `start` back to the host; throws an {@link AerostatError} when that fails. */
export type DiscardUnits = (start: number, count: number) => void;

/**
 * What a claim may take: the next stretch that has anything, only one whose pending units lie close together, or only what
 * makes up whole huge pages of the host.
 */
export type ClaimOf = 'any' | 'dense' | 'whole';

export interface DiscardResult {
  /** Something was claimed, so there may be more. */
  readonly more: boolean;
  /** The claim ended before it came to the end of its stretch, because it took long. */
  readonly partial: boolean;
  readonly failure: Error | undefined;
}

/** A run that was taken and is not discarded yet. */
export interface OpenRun {
  /** Discards it; returns the failure, if that failed. */
  end(discard: DiscardUnits): Error | undefined;
}

const NOTHING_DISCARDED: DiscardResult = { more: false, partial: false, failure: undefined };

export class DiscardClaims {
  /** How long a claim may take, for {@link CLAIM_MS_MAX}. */
  claimMsMax = CLAIM_MS_MAX;
  readonly lengths: RunLengths;
  readonly #state: PendingState;
  /** What was taken of a run, from the beginning of its first word. */
  readonly #claimed: PageBitmap;
  readonly #denseRunUnits: number;
  /** The stretch to look at next. */
  #cursor = 0;
  #lastNewsMs = 0;
  readonly #unitBytes: number;
  /** How many whole stretches the next run may have. */
  #reach = 1;

  constructor(state: PendingState, unitBytes: number) {
    this.#state = state;
    this.#unitBytes = unitBytes;
    this.#claimed = new PageBitmap(state.claimWords * 32);
    this.#denseRunUnits = Math.ceil(DENSE_RUN_BYTES / unitBytes);
    this.lengths = new RunLengths(state, unitBytes);
  }

  /**
   * Claims the next stretch with pending units, at most {@link CLAIM_BYTES_MAX} bytes of it, going round the
   * region, and discards its maximal runs, for {@link CLAIM_MS_MAX} or little more. May be called from any thread.
   */
  discardSome(discard: DiscardUnits, claim: ClaimOf = 'any'): DiscardResult {
    // A guest has sets of terabytes that nothing is in, and a thread that marks something wakes a claimer after that.
    if (this.#state.outstanding === 0) {
      this.#tellOfDrain();
      return NOTHING_DISCARDED;
    }
    this.#lock();
    try {
      if (this.#state.closed || this.#state.held) return NOTHING_DISCARDED;
      const stretch = this.#nextStretch(claim);
      if (stretch < 0) return NOTHING_DISCARDED;
      return this.#state.isWhole(stretch)
        ? this.#discardWhole(stretch, discard)
        : this.#discardStretch(stretch, discard, claim === 'whole' ? this.#state.huge : undefined);
    } finally {
      this.#unlock();
      this.#tellOfDrain();
    }
  }

  /**
   * Takes the next run alone, for a caller that discards it in a while: until {@link OpenRun.end} it is in flight, and no thread
   * else claims. Undefined when there is none.
   */
  beginRun(): OpenRun | undefined {
    this.#lock();
    const stretch = this.#state.closed || this.#state.held ? -1 : this.#nextStretch('any');
    if (stretch < 0) {
      this.#unlock();
      this.#tellOfDrain();
      return undefined;
    }
    const { start, count } = this.#takeFirst(stretch);
    return {
      end: discard => {
        try {
          this.#state.times.begin();
          return this.#discardRun(discard, start, count);
        } finally {
          this.#state.totals[TOTAL.lastDiscardMs] = this.#state.times.sinceMs;
          this.#withdraw();
          this.#unlock();
          this.#tellOfDrain();
        }
      },
    };
  }

  #takeFirst(stretch: number): { readonly start: number; readonly count: number } {
    const { stretchUnits } = this.#state;
    if (this.#state.isWhole(stretch)) {
      return { start: stretch * stretchUnits, count: this.#takeWhole(stretch, 1) * stretchUnits };
    }
    const { start: first, end: last } = this.#state.bounds(stretch);
    const start = this.#state.next(first, last, 0);
    const stop = this.#state.next(start, last, -1);
    if (this.#state.next(stop, last, 0) < last) noteStretch(this.#state.summary, stretch);
    this.#take(start, stop);
    return { start, count: stop - start };
  }

  /** Discards until nothing is pending; returns the last failure, if any discard failed. */
  discardAll(discard: DiscardUnits): Error | undefined {
    let failure: Error | undefined;
    for (;;) {
      const result = this.discardSome(discard);
      failure = result.failure ?? failure;
      if (!result.more) return failure;
    }
  }

  /** Waits for the claim that is under way in another thread. */
  waitForClaim(): void {
    this.#lock();
    this.#unlock();
  }

  #lock(): void {
    while (Atomics.compareExchange(this.#state.header, WORD.lock, 0, 1) !== 0) {
      Atomics.wait(this.#state.header, WORD.lock, 1, WAIT_SLICE_MS);
    }
  }

  #unlock(): void {
    Atomics.store(this.#state.header, WORD.lock, 0);
    Atomics.notify(this.#state.header, WORD.lock);
    this.#state.notify(WATCHES.lock);
  }

  /** The number of the next stretch that has anything pending, if it may be claimed; -1 when there is none. */
  #nextStretch(claim: ClaimOf): number {
    for (let looked = 0; looked < this.#state.stretches; ) {
      if (this.#cursor >= this.#state.stretches) this.#cursor = 0;
      const stretch = this.#cursor;
      const noted = Atomics.load(this.#state.summary, stretch >>> 5);
      if (noted === 0) {
        // Nothing in this stretch, nor in those up to the end of the summary's word.
        const next = Math.min(this.#state.stretches, (stretch | 31) + 1);
        looked += next - stretch;
        this.#cursor = next;
        continue;
      }
      this.#cursor = stretch + 1;
      looked++;
      const bit = 1 << (stretch & 31);
      if ((noted & bit) === 0) continue;
      if (claim === 'dense' && !this.#isDense(stretch)) continue;
      if (claim === 'whole' && !this.#hasWhole(stretch)) continue;
      // First the summary, then the bits: who marks after we looked at its word notes the stretch again.
      Atomics.and(this.#state.summary, stretch >>> 5, ~bit);
      if (this.#state.isWhole(stretch)) return stretch;
      const { start, end } = this.#state.bounds(stretch);
      if (this.#state.next(start, end, 0) < end) return stretch;
    }
    return -1;
  }

  #hasWhole(stretch: number): boolean {
    return this.#state.isWhole(stretch) || this.#state.huge?.anyWhole(this.#state, stretch) === true;
  }

  /** Of what is pending now; it may be more a moment later. */
  #isDense(stretch: number): boolean {
    if (this.#state.isWhole(stretch)) return true;
    const first = stretch * this.#state.claimWords;
    const last = Math.min(first + this.#state.claimWords, this.#state.words.length);
    let units = 0;
    let runs = 0;
    let carry = 0;
    for (let word = first; word < last; word++) {
      const bits = this.#state.words[word];
      if (bits !== 0) {
        units += popcount(bits);
        // A run begins where a bit is set and the one below it is not.
        runs += popcount(bits & ~((bits << 1) | carry));
      }
      carry = bits >>> 31;
    }
    return units >= runs * this.#denseRunUnits;
  }

  /** `whole`: what makes up no whole huge page is left. */
  #discardStretch(stretch: number, discard: DiscardUnits, whole: HugeUnits | undefined): DiscardResult {
    const { start, end } = this.#state.bounds(stretch);
    const startedMs = monotonicMs();
    let partial = false;
    let failure: Error | undefined;
    this.#state.times.begin();
    let left = false;
    const first = this.#state.next(start, end, 0);
    for (let at = first; at < end; at = this.#state.next(at, end, 0)) {
      // At least one run, however late it is.
      if (this.#state.held || (at > first && this.#state.times.sinceMs - startedMs > this.claimMsMax)) {
        // The bits that are left are still there.
        noteStretch(this.#state.summary, stretch);
        partial = true;
        break;
      }
      let stop = this.#state.next(at, end, -1);
      if (whole !== undefined) {
        const [low, high] = [whole.ceil(at), whole.floor(stop)];
        left ||= low > at || high < stop;
        at = high > low ? low : stop;
        stop = Math.max(at, high);
      }
      stop = this.lengths.end(at, stop);
      // Retracted since it was seen.
      if (stop === at) continue;
      let taken = 0;
      try {
        taken = this.#take(at, stop);
        if (taken === stop - at) failure = this.#discardRun(discard, at, taken) ?? failure;
        else if (taken > 0) failure = this.#discardRest(discard, at, stop) ?? failure;
      } finally {
        this.#withdraw();
      }
      if (taken > 0) this.lengths.took(stop - at);
      at = stop;
    }
    if (left) noteStretch(this.#state.summary, stretch);
    const totals = this.#state.totals;
    totals[TOTAL.lastDiscardMs] = this.#state.times.sinceMs;
    totals[TOTAL.discardMs] += totals[TOTAL.lastDiscardMs] - startedMs;
    return { more: true, partial, failure };
  }

  /** Discards the stretch, which is marked as a whole, and those behind it that are, in one run. */
  #discardWhole(stretch: number, discard: DiscardUnits): DiscardResult {
    const { stretchUnits, totals, times } = this.#state;
    const startedMs = monotonicMs();
    times.begin();
    const most = Math.min(this.#reach, this.#state.stretches - stretch);
    let stretches = 1;
    while (stretches < most && this.#state.isWhole(stretch + stretches)) stretches++;
    let failure: Error | undefined;
    let taken = 0;
    try {
      taken = this.#takeWhole(stretch, stretches);
      if (taken > 0) failure = this.#discardRun(discard, stretch * stretchUnits, taken * stretchUnits);
    } finally {
      this.#withdraw();
    }
    this.#cursor = stretch + Math.max(1, taken);
    if (taken > 0) this.#adjustReach(taken);
    totals[TOTAL.lastDiscardMs] = times.sinceMs;
    totals[TOTAL.discardMs] += totals[TOTAL.lastDiscardMs] - startedMs;
    return { more: true, partial: false, failure };
  }

  /**
   * Publishes so many stretches, which were seen to be whole, and takes them up to the first of which something was
   * retracted meanwhile; returns how many that are.
   */
  #takeWhole(stretch: number, stretches: number): number {
    const { header, summary, stretchUnits } = this.#state;
    Atomics.store(header, WORD.inFlightStart, stretch * stretchUnits);
    Atomics.store(header, WORD.inFlightEnd, (stretch + stretches) * stretchUnits);
    let taken = 0;
    for (; taken < stretches && !this.#state.held; taken++) {
      const at = stretch + taken;
      // First the summary, then the bit, as in #nextStretch.
      Atomics.and(summary, at >>> 5, ~(1 << (at & 31)));
      if (!this.#state.takeWhole(at)) break;
    }
    // Of what was not taken there may be a rest.
    if (taken < stretches) noteStretch(summary, stretch + taken);
    Atomics.store(header, WORD.inFlightUnits, taken * stretchUnits);
    Atomics.sub(header, WORD.pendingUnits, taken * stretchUnits);
    return taken;
  }

  #adjustReach(taken: number): void {
    if (taken === 1) this.lengths.took(this.#state.stretchUnits);
    const fitting = Math.max(1, Math.floor((taken * WHOLE_RUN_MS) / this.#state.times.tookMs));
    if (fitting < taken) this.#reach = fitting;
    else if (taken === this.#reach) this.#reach = Math.min(this.#reachMax, fitting, taken * 2);
  }

  get #reachMax(): number {
    if (this.#unitBytes > PAGE_SIZE) return REACH_MAX.pool;
    return this.#state.huge === undefined ? REACH_MAX.small : REACH_MAX.huge;
  }

  /** Publishes [start, stop) and takes what of it is pending; returns how many units that is. */
  #take(start: number, stop: number): number {
    Atomics.store(this.#state.header, WORD.inFlightStart, start);
    Atomics.store(this.#state.header, WORD.inFlightEnd, stop);
    const first = start >>> 5;
    let units = 0;
    if (this.#state.held) return 0;
    for (let word = first; word * 32 < stop; word++) {
      const mask = maskOf(word, start, stop);
      const bits = Atomics.and(this.#state.words, word, ~mask) & mask;
      this.#claimed.words[word - first] = bits;
      units += popcount(bits);
    }
    Atomics.store(this.#state.header, WORD.inFlightUnits, units);
    Atomics.sub(this.#state.header, WORD.pendingUnits, units);
    return units;
  }

  #discardRun(discard: DiscardUnits, start: number, count: number): Error | undefined {
    const totals = this.#state.totals;
    try {
      discard(start, count);
      totals[TOTAL.discardedUnits] += count;
      totals[TOTAL.discards]++;
      totals[TOTAL.hugePagesCut] += this.#state.huge?.cutBy(start, start + count) ?? 0;
      this.#state.times.end(1);
      return undefined;
    } catch (error) {
      if (!(error instanceof AerostatError)) throw error;
      totals[TOTAL.failures]++;
      Atomics.store(this.#state.header, WORD.lastErrno, error instanceof SystemError ? error.errno : -1);
      this.#state.times.begin();
      return error;
    }
  }

  /** Of a run from which something was retracted just when it was taken: what was got of it. */
  #discardRest(discard: DiscardUnits, start: number, stop: number): Error | undefined {
    const base = start & ~31;
    let failure: Error | undefined;
    this.#claimed.forEachRun(
      (offset, count) => {
        failure = this.#discardRun(discard, base + offset, count) ?? failure;
      },
      start - base,
      stop - base,
    );
    return failure;
  }

  /** Ends a run: its units are discarded (or given up), and threads that wait for them go on. */
  #withdraw(): void {
    Atomics.store(this.#state.header, WORD.inFlightUnits, 0);
    Atomics.store(this.#state.header, WORD.inFlightEnd, 0);
    Atomics.add(this.#state.header, WORD.generation, 1);
    if ((Atomics.load(this.#state.header, WORD.watchers) & WATCHES.run) === 0) return;
    Atomics.notify(this.#state.header, WORD.generation);
    this.#state.notify(WATCHES.run);
  }

  #tellOfDrain(): void {
    if ((Atomics.load(this.#state.header, WORD.watchers) & WATCHES.drain) === 0) return;
    const nowMs = monotonicMs();
    if (this.#state.outstanding > 0 && nowMs - this.#lastNewsMs < DRAIN_NEWS_MS) return;
    this.#lastNewsMs = nowMs;
    this.#state.notify(WATCHES.drain);
  }
}
