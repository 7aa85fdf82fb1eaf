/**
 * The write log of a machine: what the guest's code and its driver wrote, as they or the kernel log it, and the pages
 * that the device writes. Ballooned pages are taken out at each sync, for what they hold is of no value.
 *
 * Why that is safe is docs/hint-safety.md's argument: a page is looked up in the device's account after the sync that
 * moved it. If it is ballooned then, what it held is of no value; if it was deflated and written before, the account
 * shows that, for the device clears the bit before it acknowledges, and the guest writes after that; and if it is
 * deflated and written later, the write is in the log of the next sync.
 */
import type { BalloonedRegion } from '../hosting/free-pages.ts';
import { maskOf, popcount, wordsFor } from '../memory/page-bitmap.ts';
import { forEachFilled } from '../memory/word-stretches.ts';
import type { DirtyLog, SoftwareDirtyLog } from '../migration/dirty-log.ts';
import type { Ram } from '../migration/ram.ts';
import type { SlotBitmap } from '../migration/slot-bitmap.ts';
import { assert } from '../sys/error.ts';

interface GuestLogOptions {
  readonly ram: Ram;
  /** What was written by those who say so themselves. */
  readonly software: SoftwareDirtyLog;
  /** What the kernel saw, where it is asked. */
  readonly kernel?: DirtyLog;
  readonly balloon: readonly BalloonedRegion[];
}

export class GuestLog implements DirtyLog {
  readonly name: string;
  readonly #options: GuestLogOptions;
  readonly #ballooned: Int32Array;

  constructor(options: GuestLogOptions) {
    const { ram, balloon, kernel, software } = options;
    const [region] = balloon;
    assert(
      balloon.length === 1 && region.firstPfn === 0 && region.pages === ram.slots,
      'a balloon elsewhere',
    );
    this.name = (kernel ?? software).name;
    this.#options = options;
    this.#ballooned = region.ballooned;
  }

  collect(start: number, count: number, into: SlotBitmap): number {
    const { software, kernel } = this.#options;
    const taken = software.collect(start, count, into) + (kernel?.collect(start, count, into) ?? 0);
    // After the log, and not before it.
    this.#skipBallooned(start, start + count, into);
    return taken;
  }

  /** Pages that the guest has given away. */
  countBallooned(): number {
    return this.#ballooned.reduce((pages, word) => pages + popcount(word), 0);
  }

  close(): void {
    this.#options.kernel?.close();
  }

  #skipBallooned(start: number, end: number, into: SlotBitmap): void {
    forEachFilled(into.words, start >>> 5, wordsFor(end), (from, to) => {
      for (let word = from; word < to; word++) {
        const ballooned = Atomics.load(this.#ballooned, word);
        if (ballooned !== 0) Atomics.and(into.words, word, ~(ballooned & maskOf(word, start, end)));
      }
    });
  }
}
