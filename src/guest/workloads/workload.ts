/**
 * What every workload is: something that uses the guest's memory, one page at a time, and checks that each page
 * still holds what it wrote. A simulation, a worker and a migration drive them the same way.
 */
import type { StateWriter } from '../saved-state.ts';

export type WorkloadKind = 'build' | 'churn' | 'read' | 'touch';

/** A working set is at most so many times as large as memory; enough to run out of it. */
export const WORKING_PER_PAGE_MAX = 4;

export interface Workload {
  readonly kind: WorkloadKind;
  /** It has nothing more to do; the endless kinds never get there by themselves. */
  readonly done: boolean;
  /**
   * Uses up to `n` pages (allocates, writes, checks or frees each); returns how many. Fewer means that it is
   * done, or that there is no memory now.
   * @throws ContentError when a page does not hold what was written there
   */
  step(n: number): number;
  /** Ends it and gives back all that it holds. */
  stop(): void;
  /** Writes what a reader of the same kind goes on from; pages are saved with their processes and files. */
  save(into: StateWriter): void;
}
