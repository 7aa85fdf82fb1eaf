/**
 * Takes the pages that the guest says it does not use, wherever the device runs: it clears them in the dirty bitmap,
 * and remembers them, so that it can be told afterwards how many were written to all the same.
 */
import type { PageSink } from '../memory/page.ts';
import { popcount } from '../memory/page-bitmap.ts';
import { forEachFilled } from '../memory/word-stretches.ts';
import type { Ram } from './ram.ts';
import type { SlotBitmap } from './slot-bitmap.ts';

export class HintedPages implements PageSink {
  readonly #ram: Ram;
  readonly #dirty: SlotBitmap;
  /** Pages named since the last sync, and since the migration began. */
  readonly #recent: SlotBitmap;
  readonly #ever: SlotBitmap;

  /** All three bitmaps may be shared with other threads. */
  constructor(ram: Ram, dirty: SlotBitmap, recent: SlotBitmap, ever: SlotBitmap) {
    this.#ram = ram;
    this.#dirty = dirty;
    this.#recent = recent;
    this.#ever = ever;
  }

  add(pfn: number, count: number): void {
    this.#ram.forEachSlotOf(pfn, count, (start, pages) => {
      this.#dirty.clear(start, pages);
      this.#recent.set(start, pages);
    });
  }

  /** After a sync: how many pages that were skipped are dirty again. Their hint was a race, and was caught. */
  countRaces(): number {
    let races = 0;
    const [recent, dirty, ever] = [this.#recent.words, this.#dirty.words, this.#ever.words];
    forEachFilled(recent, 0, recent.length, (from, to) => {
      for (let word = from; word < to; word++) {
        const bits = recent[word];
        if (bits === 0) continue;
        races += popcount(bits & dirty[word]);
        ever[word] |= bits;
        recent[word] = 0;
      }
    });
    return races;
  }

  /** Pages that were named once and are not among `sent`. */
  countUnsent(sent: SlotBitmap): number {
    let pages = 0;
    for (let word = 0; word < this.#ever.words.length; word++) {
      pages += popcount(this.#ever.words[word] & ~sent.words[word]);
    }
    return pages;
  }
}
