/** What became of memory that was given back to the host, summed over sets of pages and over regions that are gone. */
import { PAGE_SIZE } from '../memory/page.ts';
import type { PendingDiscards } from '../memory/pending-discards.ts';
import { DurationHistogram } from '../sys/durations.ts';

/** What became of memory that was given back to the host. */
export interface DiscardTotals {
  bytes: number;
  /** Calls that gave memory back. */
  punches: number;
  failures: number;
  /** Huge pages of the host of which a part was given back, where the host is known to have such. */
  hugePagesCut: number;
  /** Time that the calls took together. */
  ms: number;
  /** When the last one ended, on the clock of the process; 0 when there was none. */
  lastMs: number;
}

export const noDiscards = (): DiscardTotals => ({
  bytes: 0,
  punches: 0,
  failures: 0,
  hugePagesCut: 0,
  ms: 0,
  lastMs: 0,
});

/** The sum of some sets, and how long their discards took, one by one. */
export class DiscardSum {
  readonly totals: DiscardTotals = noDiscards();
  readonly times = new DurationHistogram();

  copy(): DiscardSum {
    const sum = new DiscardSum();
    Object.assign(sum.totals, this.totals);
    sum.times.add(this.times);
    return sum;
  }

  /** Adds the totals of `set`; its times are added by themselves. */
  add(set: PendingDiscards, unitPages: number): void {
    const { totals } = this;
    totals.bytes += set.discardedUnits * unitPages * PAGE_SIZE;
    totals.punches += set.discards;
    totals.failures += set.failures;
    totals.hugePagesCut += set.hugePagesCut;
    totals.ms += set.discardMs;
    totals.lastMs = Math.max(totals.lastMs, set.lastDiscardMs);
  }
}
