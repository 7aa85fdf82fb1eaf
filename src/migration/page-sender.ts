/**
 * Turns the dirty bitmap into sections, for one connection. A page belongs to one connection for as long as the
 * migration lasts: were its copies to travel on different ones, an old copy could arrive last.
 */
import { PAGE_SIZE } from '../memory/page.ts';
import { PageRanges } from '../memory/page-ranges.ts';
import { RUN_BYTES, writeRun } from './page-runs.ts';
import type { Ram } from './ram.ts';
import type { SlotBitmap } from './slot-bitmap.ts';
import { PAGES_PER_SECTION, RUNS_PER_SECTION } from './stream/section.ts';
import type { SectionWriter } from './stream/section-writer.ts';

/** Pages that follow each other on one connection before the next has its turn: 32 MiB, so that runs stay long. */
export const STRIPE_PAGES = 2 ** 13;

/** Which part of memory a connection sends: every `of`th stripe, from number `index` on. */
interface Share {
  readonly index: number;
  readonly of: number;
}

interface SenderOptions {
  readonly ram: Ram;
  /** Pages still to send; shared with the other connections and with the channel of free pages. */
  readonly dirty: SlotBitmap;
  /** Pages of which the destination has other contents than zeros; shared with the other connections. */
  readonly sent: SlotBitmap;
  readonly share: Share;
}

/** What a sender has done since the migration began, in pages. */
export interface SentCounts {
  /** With their contents, each time that they were sent. */
  pages: number;
  /** Found to be zeros: sent as runs, or not at all where the destination has zeros anyway. */
  zeroPages: number;
  /** Zero pages that were sent as runs. */
  zeroPagesSent: number;
  /** Those of `pages` that had been sent before. */
  resentPages: number;
}

const ZEROS = new Uint8Array(PAGE_SIZE);
const DATA_AT = 4;
/**
 * Pages in one section as we send it, fewer than a section may have: what is read, summed up and written on one side,
 * and read, checked and written on the other, finds its bytes in the processor's second cache each time.
 */
const FILL_PAGES = 64;
/** Pages looked at before other work has a turn: zeros that need not be sent fill no section. */
const LOOK_PAGES_MAX = 2 ** 14;
const NOTHING_YET = new Uint8Array();

export class PageSender {
  readonly counts: SentCounts = { pages: 0, zeroPages: 0, zeroPagesSent: 0, resentPages: 0 };
  readonly #ram: Ram;
  readonly #dirty: SlotBitmap;
  readonly #sent: SlotBitmap;
  readonly #share: Share;
  /** Zero pages that the destination must hear of. */
  readonly #zeros = new PageRanges();
  readonly #runs = new PageRanges();
  #lookedAt = 0;
  #stripe: number;
  #cursor: number;

  constructor({ ram, dirty, sent, share }: SenderOptions) {
    this.#ram = ram;
    this.#dirty = dirty;
    this.#sent = sent;
    this.#share = share;
    this.#stripe = share.index;
    this.#cursor = share.index * STRIPE_PAGES;
  }

  /** Pages of this connection's share that are still to be sent. */
  get remaining(): number {
    let total = 0;
    for (let stripe = this.#share.index; ; stripe += this.#share.of) {
      const start = stripe * STRIPE_PAGES;
      if (start >= this.#dirty.slots) return total;
      total += this.#dirty.countIn(start, Math.min(this.#dirty.slots, start + STRIPE_PAGES));
    }
  }

  /**
   * The next section with pages, or undefined when the round is over; the next call begins another round. Pages that
   * become dirty meanwhile come in this round or the next. No bytes, when many pages were looked at and none had to be
   * sent: there may be more.
   */
  next(writer: SectionWriter): Uint8Array | undefined {
    if (this.#zeros.length >= RUNS_PER_SECTION - PAGES_PER_SECTION) return this.#sealZeros(writer);
    const lookedAt = this.#lookedAt;
    const pages = this.#fill(writer);
    if (pages > 0) return this.#sealPages(writer, pages);
    if (this.#lookedAt - lookedAt >= LOOK_PAGES_MAX) return NOTHING_YET;
    if (this.#zeros.length > 0) return this.#sealZeros(writer);
    this.#stripe = this.#share.index;
    this.#cursor = this.#stripe * STRIPE_PAGES;
    return undefined;
  }

  /** Puts pages into the payload until it is full or nothing is left; returns how many. */
  #fill(writer: SectionWriter): number {
    const { payload } = writer.begin();
    this.#runs.clear();
    const lookEnd = this.#lookedAt + LOOK_PAGES_MAX;
    let pages = 0;
    while (
      pages < FILL_PAGES &&
      this.#lookedAt < lookEnd &&
      this.#zeros.length < RUNS_PER_SECTION - PAGES_PER_SECTION &&
      this.#take(FILL_PAGES - pages)
    ) {
      const { start, count } = this.#dirty;
      this.#lookedAt += count;
      this.#ram.read(start, count, payload, DATA_AT + pages * PAGE_SIZE);
      pages += this.#dropZeros(payload, DATA_AT + pages * PAGE_SIZE, start, count);
    }
    return pages;
  }

  /** Takes the next run of this share out of the bitmap. */
  #take(countMax: number): boolean {
    const { slots } = this.#dirty;
    for (;;) {
      const stripeStart = this.#stripe * STRIPE_PAGES;
      if (stripeStart >= slots) return false;
      const end = Math.min(slots, stripeStart + STRIPE_PAGES);
      if (this.#dirty.drain(this.#cursor, end, countMax)) {
        this.#cursor = this.#dirty.start + this.#dirty.count;
        return true;
      }
      this.#stripe += this.#share.of;
      this.#cursor = this.#stripe * STRIPE_PAGES;
    }
  }

  /** Closes the gaps that zero pages leave among the `count` pages at `at`; returns how many pages stay. */
  #dropZeros(payload: Uint8Array, at: number, start: number, count: number): number {
    let kept = 0;
    for (let page = 0; page < count; page++) {
      const from = at + page * PAGE_SIZE;
      if (payload[from] === 0 && isZero(payload, from)) {
        this.#noteZero(start + page);
        continue;
      }
      if (kept !== page) payload.copyWithin(at + kept * PAGE_SIZE, from, from + PAGE_SIZE);
      this.#runs.add(start + page, 1);
      kept++;
    }
    return kept;
  }

  #noteZero(slot: number): void {
    this.counts.zeroPages++;
    if (!this.#sent.has(slot)) return;
    this.#zeros.add(slot, 1);
    this.#sent.clear(slot, 1);
  }

  #sealPages(writer: SectionWriter, pages: number): Uint8Array {
    const { view } = writer;
    view.setUint32(0, pages, true);
    let at = DATA_AT + pages * PAGE_SIZE;
    this.#runs.forEach((start, count) => {
      writeRun(view, at, start, count);
      at += RUN_BYTES;
      this.counts.resentPages += this.#sent.countIn(start, start + count);
      this.#sent.set(start, count);
    });
    this.counts.pages += pages;
    return writer.seal('pages', at);
  }

  #sealZeros(writer: SectionWriter): Uint8Array {
    const { view } = writer.begin();
    let at = 0;
    this.#zeros.forEach((start, count) => {
      writeRun(view, at, start, count);
      at += RUN_BYTES;
    });
    this.counts.zeroPagesSent += this.#zeros.pages;
    this.#zeros.clear();
    return writer.seal('zeroPages', at);
  }
}

function isZero(bytes: Uint8Array, at: number): boolean {
  return Buffer.compare(bytes.subarray(at, at + PAGE_SIZE), ZEROS) === 0;
}
