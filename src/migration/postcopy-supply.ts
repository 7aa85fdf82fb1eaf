/**
 * The pages that a source still has when the guest runs elsewhere, as sections: those that the guest waits for first, over the
 * first connection, with their neighbours; the others in the background, over the others, from where the guest was seen
 * last. Each goes once: memory that no guest writes to has one content.
 */
import { PAGE_SIZE } from '../memory/page.ts';
import { popcount } from '../memory/page-bitmap.ts';
import { RUN_BYTES, writeRun } from './page-runs.ts';
import type { Ram } from './ram.ts';
import type { SlotBitmap } from './slot-bitmap.ts';
import type { FaultCounts, MissingPages, Want } from './stream/postcopy-messages.ts';
import { StreamError } from './stream/section.ts';
import type { SectionWriter } from './stream/section-writer.ts';

/** A page that is asked for comes with the rest of its block of so many: what is used next lies there, more often than not. */
const AROUND_PAGES = 16;
/** Pages of one section in the background: short, so that what the guest waits for does not wait long. */
const BACKGROUND_PAGES = 64;
/** Pages asked for that wait to be sent; what is beyond comes in the background. */
const QUEUE_MAX = 1024;
const DATA_AT = 4;
const ZEROS = new Uint8Array(PAGE_SIZE);

export class PostcopySupply {
  /** Pages that have to be sent. */
  readonly left: SlotBitmap;
  /** Pages sent with their contents, and as zeros. */
  readonly counts = { pages: 0, zeroPages: 0 };
  faults: FaultCounts = { faults: 0, longestUs: 0 };
  readonly #ram: Ram;
  readonly #queue: number[] = [];
  /** Pages asked for over this connection. */
  #asked = 0;
  #leftPages: number;
  #cursor = 0;
  #stopped = false;
  #wake: () => void = () => {};

  /** `left` becomes empty as it goes. */
  constructor(ram: Ram, left: SlotBitmap) {
    this.#ram = ram;
    this.left = left;
    this.#leftPages = left.countIn();
  }

  /** Pages that have still to be sent. */
  get leftPages(): number {
    return this.#leftPages;
  }

  /** Nothing is sent any more over the connections that there were. */
  stop(): void {
    this.#stopped = true;
    this.#queue.length = 0;
    this.#wake();
  }

  /** Other connections: nothing is left to be sent until the destination says what it has not got. */
  begin(): void {
    this.#stopped = false;
    this.#asked = 0;
    this.#cursor = 0;
    this.left.clear(0, this.left.slots);
    this.#leftPages = 0;
  }

  /** Of what the destination has not got. */
  add({ start, words }: MissingPages): void {
    for (let word = 0; word < words.length; word++) {
      if (words[word] === 0) continue;
      const before = Atomics.or(this.left.words, start / 32 + word, words[word]);
      this.#leftPages += popcount(words[word] & ~before);
    }
  }

  /** @throws StreamError when the destination asks for more than it can miss */
  want({ slots, faults, longestUs }: Want): void {
    this.#asked += slots.length;
    if (this.#asked > this.left.slots) {
      throw new StreamError('limit', `${this.#asked} pages were asked for, of a guest of ${this.left.slots}`);
    }
    this.faults = { faults, longestUs };
    for (const slot of slots) {
      if (this.#queue.length < QUEUE_MAX && this.left.has(slot)) this.#queue.push(slot);
    }
    this.#wake();
  }

  /** Resolves when something was asked for, or nothing is left or to be sent. */
  wanted(): Promise<void> {
    if (this.#queue.length > 0 || this.over) return Promise.resolve();
    return new Promise(resolve => {
      this.#wake = resolve;
    });
  }

  /** Nothing more is to be sent over these connections. */
  get over(): boolean {
    return this.#stopped || this.#leftPages === 0;
  }

  /** The next section with pages that were asked for; undefined when there are none. */
  urgent(writer: SectionWriter): Uint8Array | undefined {
    for (let slot = this.#queue.shift(); slot !== undefined; slot = this.#queue.shift()) {
      if (!this.left.has(slot)) continue;
      const start = slot - (slot % AROUND_PAGES);
      const end = Math.min(this.left.slots, start + AROUND_PAGES);
      this.#cursor = end;
      return this.#section(writer, start, end, AROUND_PAGES);
    }
    return undefined;
  }

  /** The next section of the background; undefined when nothing is left. */
  background(writer: SectionWriter): Uint8Array | undefined {
    const { slots } = this.left;
    if (this.over) return undefined;
    const section = this.#section(writer, this.#cursor, slots, BACKGROUND_PAGES);
    if (section !== undefined) return section;
    this.#cursor = 0;
    return this.#section(writer, 0, slots, BACKGROUND_PAGES);
  }

  /** Up to `pagesMax` pages that are left in [from, to), with their contents, or as zeros where they are all that. */
  #section(writer: SectionWriter, from: number, to: number, pagesMax: number): Uint8Array | undefined {
    const { payload } = writer.begin();
    const runs: number[] = [];
    let pages = 0;
    let zeros = true;
    for (let at = from; pages < pagesMax && this.left.drain(at, to, pagesMax - pages); ) {
      const { start, count } = this.left;
      const dataAt = DATA_AT + pages * PAGE_SIZE;
      this.#ram.read(start, count, payload, dataAt);
      for (let page = 0; zeros && page < count; page++) zeros = isZero(payload, dataAt + page * PAGE_SIZE);
      runs.push(start, count);
      pages += count;
      at = start + count;
    }
    if (pages === 0) return undefined;
    if (pagesMax === BACKGROUND_PAGES) this.#cursor = runs[runs.length - 2] + runs[runs.length - 1];
    this.#leftPages -= pages;
    if (this.#leftPages === 0) this.#wake();
    return zeros ? this.#sealZeros(writer, runs, pages) : this.#sealPages(writer, runs, pages);
  }

  #sealPages(writer: SectionWriter, runs: readonly number[], pages: number): Uint8Array {
    this.counts.pages += pages;
    writer.view.setUint32(0, pages, true);
    return writer.seal('pages', writeRuns(writer.view, DATA_AT + pages * PAGE_SIZE, runs));
  }

  #sealZeros(writer: SectionWriter, runs: readonly number[], pages: number): Uint8Array {
    this.counts.zeroPages += pages;
    return writer.seal('zeroPages', writeRuns(writer.view, 0, runs));
  }
}

/** Returns where they end. */
function writeRuns(view: DataView, at: number, runs: readonly number[]): number {
  for (let index = 0; index < runs.length; index += 2) {
    writeRun(view, at, runs[index], runs[index + 1]);
    at += RUN_BYTES;
  }
  return at;
}

function isZero(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === 0 && Buffer.compare(bytes.subarray(at, at + PAGE_SIZE), ZEROS) === 0;
}
