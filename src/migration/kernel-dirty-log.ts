/**
 * The write log that the kernel keeps: it write-protects the guest's mapping and remembers which pages lost that
 * protection. It needs no help from the guest's code and sees every writer that goes through the mapping; the mark and
 * the store are one step, since a store to a protected page is begun again after the mark.
 */
import { PAGE_SIZE } from '../memory/page.ts';
import { WriteTracker } from '../sys/userfault.ts';
import type { DirtyLog } from './dirty-log.ts';
import type { SlotBitmap } from './slot-bitmap.ts';

/** A stretch of memory that the guest writes through, in this process. */
export interface MappedSlots {
  readonly start: number;
  readonly count: number;
  /** The address where page `start` is mapped. */
  readonly address: number;
}

export class KernelDirtyLog implements DirtyLog {
  readonly name = 'kernel';
  readonly #tracker: WriteTracker;
  readonly #mapped: readonly MappedSlots[];

  /**
   * Follows all mappings that the guest writes through: the same page may be in several. Everything counts as written
   * until it is taken for the first time.
   * @throws AerostatError AEROSTAT_WRITE_TRACKING where the kernel cannot do this
   */
  constructor(mapped: readonly MappedSlots[]) {
    this.#mapped = mapped;
    this.#tracker = new WriteTracker();
    try {
      for (const { address, count } of mapped) this.#tracker.watch(address, count * PAGE_SIZE);
    } catch (error) {
      this.#tracker.close();
      throw error;
    }
  }

  collect(start: number, count: number, into: SlotBitmap): number {
    let taken = 0;
    for (const mapped of this.#mapped) {
      const from = Math.max(start, mapped.start);
      const to = Math.min(start + count, mapped.start + mapped.count);
      if (from >= to) continue;
      const base = mapped.address - mapped.start * PAGE_SIZE;
      this.#tracker.take(base + from * PAGE_SIZE, (to - from) * PAGE_SIZE, (address, length) => {
        into.set((address - base) / PAGE_SIZE, length / PAGE_SIZE);
        taken += length / PAGE_SIZE;
      });
    }
    return taken;
  }

  close(): void {
    this.#tracker.close();
  }
}
