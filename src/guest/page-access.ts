/**
 * How the guest's own code touches its memory: whole pages as 32-bit words, at the speed of a typed array. All
 * stores of the guest pass through here, so this is also where they are logged for live migration. Rings and
 * page lists are the driver's and go through GuestMemory.
 */
import { WINDOW_BYTES } from '../memory/backing.ts';
import { type GuestMemory, MemoryAccessError, type MemoryRegion } from '../memory/guest-memory.ts';
import { gpaOf, PAGE_SIZE, type PageSink } from '../memory/page.ts';

export const WORDS_PER_PAGE = PAGE_SIZE / 4;

export class PageAccess {
  readonly memory: GuestMemory;
  /**
   * Hears of every page after it was written. After, because a log that is read and cleared between mark and
   * store would lose the store; in this order the mark survives until the next reading.
   */
  writeLog: PageSink | undefined;
  /** The words that {@link at} found the page in. */
  words: Uint32Array = new Uint32Array();
  #region: MemoryRegion | undefined;

  constructor(memory: GuestMemory, writeLog?: PageSink) {
    this.memory = memory;
    this.writeLog = writeLog;
  }

  /**
   * Index in {@link words} of the first word of page `pfn`; both hold until the next call. A store must be
   * followed by {@link wrote}.
   * @throws MemoryAccessError when the frame is not memory
   */
  at(pfn: number): number {
    const gpa = gpaOf(pfn);
    let region = this.#region;
    if (region === undefined || gpa < region.guestAddress || gpa >= region.end) {
      region = this.memory.find(gpa);
      if (region === undefined) throw new MemoryAccessError(gpa, PAGE_SIZE);
      this.#region = region;
    }
    const offset = gpa - region.guestAddress;
    this.words = region.windowAt(offset).u32;
    return (offset % WINDOW_BYTES) >>> 2;
  }

  wrote(pfn: number, count = 1): void {
    this.writeLog?.add(pfn, count);
  }

  /** Writes something to a page, so that the host backs it. */
  touch(pfn: number): void {
    const base = this.at(pfn);
    this.words[base] = ~pfn;
    this.wrote(pfn);
  }

  /** Fills `count` pages with one byte. */
  fill(pfn: number, count: number, byte: number): void {
    const word = Math.imul(byte & 0xff, 0x01010101) >>> 0;
    for (let page = pfn; page < pfn + count; page++) {
      const base = this.at(page);
      this.words.fill(word, base, base + WORDS_PER_PAGE);
    }
    this.wrote(pfn, count);
  }

  /** Whether all of a page is this one byte. */
  isFilledWith(pfn: number, byte: number): boolean {
    const word = Math.imul(byte & 0xff, 0x01010101) >>> 0;
    const base = this.at(pfn);
    const { words } = this;
    for (let i = base; i < base + WORDS_PER_PAGE; i++) if (words[i] !== word) return false;
    return true;
  }

  copy(from: number, to: number): void {
    const source = this.at(from);
    const bytes = this.words.subarray(source, source + WORDS_PER_PAGE);
    const target = this.at(to);
    this.words.set(bytes, target);
    this.wrote(to);
  }
}
