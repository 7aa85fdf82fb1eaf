/**
 * How the guests that a discarding thread goes round share it: for how long one has its turn, and when it is left alone for
 * a moment so that what it gives gathers. Knows the sets of what is pending, and neither calls the kernel nor waits.
 */

import type { PendingDiscards } from '../memory/pending-discards.ts';
import { CLAIM_BYTES_MAX } from '../memory/pending-state.ts';
import { GATHER_MS } from './discard-link.ts';

/**
 * Claims of one region follow each other for so long: punches of memory that was never touched take microseconds, and going
 * round all guests after each would take longer than they do.
 */
export const REGION_MS = 1;
/** A guest has so long before the next has its turn, and a claim more: it may have hundreds of regions. */
export const LANE_MS = 5;

interface LaneRegion {
  readonly pending: Pick<PendingDiscards, 'haste' | 'outstanding'>;
  readonly unitBytes: number;
}

export class LaneTurns<Region extends LaneRegion> {
  regions: Region[] = [];
  readonly #now: () => number;
  /** The region that was served last. */
  #served = 0;
  /** When nothing was left to discard. */
  #emptyMs = Number.NEGATIVE_INFINITY;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Bytes that are pending. */
  get outstandingBytes(): number {
    return this.regions.reduce((bytes, { pending, unitBytes }) => bytes + pending.outstanding * unitBytes, 0);
  }

  /**
   * Whether what the guest has given since it had nothing pending is left for {@link GATHER_MS}, so that runs grow: a thread
   * that is kept busy by other guests would take each buffer as soon as it comes. No guest waits for it, and it is no more
   * than a claim.
   */
  get gathers(): boolean {
    if (this.#now() - this.#emptyMs >= GATHER_MS) return false;
    return !this.regions.some(({ pending }) => pending.haste) && this.outstandingBytes < CLAIM_BYTES_MAX;
  }

  /**
   * The guest's turn, which goes on with the region behind the one with which the last one ended. `claim` makes one claim,
   * and says whether there may be more. So does this.
   */
  serve(claim: (region: Region) => boolean): boolean {
    const endMs = this.#now() + LANE_MS;
    let more = false;
    for (let count = 0; count < this.regions.length; count++) {
      if (this.#now() > endMs) return true;
      this.#served = (this.#served + 1) % this.regions.length;
      const region = this.regions[this.#served];
      const regionEndMs = this.#now() + REGION_MS;
      let again = claim(region);
      while (again && this.#now() <= regionEndMs) again = claim(region);
      more ||= again;
    }
    if (!more) this.#emptyMs = this.#now();
    return more;
  }
}
