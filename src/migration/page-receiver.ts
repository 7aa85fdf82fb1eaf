/** Puts pages that arrived into the destination's memory. Nothing of a section is done before all of it makes sense. */
import { PAGE_SIZE } from '../memory/page.ts';
import { readRuns } from './page-runs.ts';
import type { Ram } from './ram.ts';
import type { SlotBitmap } from './slot-bitmap.ts';
import type { Totals } from './stream/messages.ts';
import { PAGES_PER_SECTION, StreamError } from './stream/section.ts';

const DATA_AT = 4;

/** Memory of a guest that runs here: pages go where none is. */
export interface PagePlacer {
  /** What has not come yet. */
  readonly missing: SlotBitmap;
  /** Pages came, with what they hold or as zeros; those that are not missing any more stay as they are. */
  place(start: number, count: number, from: Uint8Array | undefined, at: number): void;
}

export class PageReceiver {
  /** What came over this connection. */
  readonly totals: { -readonly [K in keyof Totals]: Totals[K] } = { pages: 0, zeroPages: 0 };
  readonly #ram: Ram;
  /** Pages that hold something; shared with the other connections. */
  readonly #held: SlotBitmap;
  /** Once the guest runs here. */
  late: PagePlacer | undefined;

  /** `ram` reads as zeros where nothing was received. */
  constructor(ram: Ram, held: SlotBitmap) {
    this.#ram = ram;
    this.#held = held;
  }

  /** @throws StreamError when the payload is not what a section of pages is */
  takePages(payload: Uint8Array): void {
    if (payload.length < DATA_AT) throw new StreamError('payload', 'pages without their number');
    const pages = new DataView(payload.buffer, payload.byteOffset, DATA_AT).getUint32(0, true);
    const runsAt = DATA_AT + pages * PAGE_SIZE;
    if (pages === 0 || pages > PAGES_PER_SECTION || runsAt > payload.length) {
      throw new StreamError('payload', `${pages} pages in a section of ${payload.length} bytes`);
    }
    const listed = readRuns(payload, runsAt, payload.length, this.#ram.slots, () => {});
    if (listed !== pages) throw new StreamError('payload', `${pages} pages, and runs of ${listed}`);
    let at = DATA_AT;
    readRuns(payload, runsAt, payload.length, this.#ram.slots, (start, count) => {
      if (this.late === undefined) {
        this.#ram.write(start, count, payload, at);
        this.#held.set(start, count);
      } else {
        this.late.place(start, count, payload, at);
      }
      at += count * PAGE_SIZE;
    });
    this.totals.pages += pages;
  }

  /** @throws StreamError when the payload is not what a section of zero pages is */
  takeZeroPages(payload: Uint8Array): void {
    this.totals.zeroPages += readRuns(payload, 0, payload.length, this.#ram.slots, (start, count) => {
      // Only what holds something: a run of all memory must not cost more than one that says something.
      const end = start + count;
      if (this.late !== undefined) this.#placeZeros(this.late, start, end);
      else
        for (
          let from = start;
          this.#held.drain(from, end, count);
          from = this.#held.start + this.#held.count
        ) {
          this.#ram.clear(this.#held.start, this.#held.count);
        }
    });
  }

  /** Where pages are missing: a run of all memory must not cost more than one that says something. */
  #placeZeros(late: PagePlacer, start: number, end: number): void {
    const { missing } = late;
    for (let at = start; missing.find(at, end, end - at); ) {
      const { start: first, count } = missing;
      at = first + count;
      late.place(first, count, undefined, 0);
    }
  }
}
