/**
 * When what is pending is discarded. Units that lie close together are discarded at once; sparse ones are left for a
 * while when their guest gives memory away faster than it can be discarded: each punch stops the guest's processors
 * to take the pages out of their page tables, and neighbours that arrive meanwhile cost no punch of their own.
 *
 * Nothing waits for long. It is over as soon as the guest pauses or slows down, when little is pending, and after
 * {@link PATIENCE_MS} in any case, for a whole round.
 *
 * Where the host holds memory in transparent huge pages, what waits is the parts of those that are not complete: a punch of a
 * part makes the host split the page, which costs more than the punch, and what uses the rest is slower for good. They
 * wait for {@link REST_MS} after the guest gave something last.
 */

import { monotonicMs } from '../sys/poll.ts';
import type { ClaimOf, DiscardResult, DiscardUnits } from './discard-claims.ts';
import type { PendingDiscards } from './pending-discards.ts';
import { CLAIM_BYTES_MAX } from './pending-state.ts';

/** How long sparse units wait at most before a round takes all that there is. */
export const PATIENCE_MS = 500;
/** A guest that has given nothing for so long does not go on with the huge page that it began. */
const REST_MS = 20;

export class PatientDiscarder {
  readonly pending: PendingDiscards;
  readonly #discard: DiscardUnits;
  /** Fewer units than a claim may cover are not worth waiting for. */
  readonly #fewUnits: number;
  readonly #now: () => number;
  /** What is taken while the rest waits. */
  readonly #patient: Exclude<ClaimOf, 'any'>;
  /** When more was outstanding than at the look before. */
  #grownMs = Number.NEGATIVE_INFINITY;
  /** Outstanding units when they were looked at last. */
  #seen = 0;
  /** When the first of those that wait was left; undefined when none is. */
  #waitingSinceMs: number | undefined;
  /** Claims that the round has still to make which takes all. */
  #hastyClaims = 0;

  constructor(pending: PendingDiscards, unitBytes: number, discard: DiscardUnits, now = monotonicMs) {
    this.pending = pending;
    this.#discard = discard;
    this.#fewUnits = CLAIM_BYTES_MAX / unitBytes;
    this.#now = now;
    this.#patient = pending.huge === undefined ? 'dense' : 'whole';
  }

  /** Whether something was left that has to be looked at again. */
  get waiting(): boolean {
    return this.#waitingSinceMs !== undefined;
  }

  /** Discards one claim, if there is one that should not wait. To be called until there is no more. */
  discardSome(): DiscardResult {
    const claim = this.#mayWait() ? this.#patient : 'any';
    const result = this.pending.discardSome(this.#discard, claim);
    // The round has still to come by there again.
    if (result.partial && this.#hastyClaims > 0) this.#hastyClaims++;
    if (!result.more) {
      this.#hastyClaims = 0;
      this.#waits(claim !== 'any' && this.pending.outstanding > 0 && !this.pending.held);
    }
    return result;
  }

  #mayWait(): boolean {
    const { outstanding } = this.pending;
    // Also after a claim: a discarder that keeps up with the guest has no reason to wait.
    const grown = outstanding > this.#seen;
    this.#seen = outstanding;
    if (this.#hastyClaims > 0) {
      this.#hastyClaims--;
      return false;
    }
    if (this.pending.haste) return false;
    if (this.#patient === 'dense' && (!grown || outstanding < this.#fewUnits)) return false;
    if (grown) this.#grownMs = this.#now();
    if (this.#stillWaits()) return true;
    this.#hastyClaims = this.pending.stretches;
    this.#waits(false);
    return false;
  }

  #stillWaits(): boolean {
    const sinceMs = this.#waitingSinceMs;
    if (sinceMs === undefined) return true;
    const nowMs = this.#now();
    if (nowMs - sinceMs >= PATIENCE_MS) return false;
    return this.#patient === 'dense' || nowMs - Math.max(sinceMs, this.#grownMs) < REST_MS;
  }

  #waits(waiting: boolean): void {
    if (!waiting) this.#waitingSinceMs = undefined;
    else this.#waitingSinceMs ??= this.#now();
    this.pending.waiting = waiting;
  }
}
