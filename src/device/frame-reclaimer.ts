/**
 * Takes memory from a guest that has lent its allocator's state (profile `shared`), by changing the words of huge frames: the
 * guest is not asked, and not woken. Free frames are evicted (the guest may use them at any time, and finds zeros), or held
 * (it may not use them: its limit). Which transitions there are, and why they are safe, is docs/shared-allocator.md's.
 *
 * The words are the guest's, and may say anything. What the host has done is in an account of its own, and a frame costs one
 * attempt in a pass: it is never tried again because the guest changed it.
 */
import {
  FRAME_BYTES,
  FRAME_EVICTED,
  FRAME_FREE,
  FRAME_HELD,
  FRAME_PAGES,
  FRAME_RECLAIMING,
  type FrameTable,
  isFrameFree,
  sharedWordCount,
  treeOf,
} from '../balloon/shared-frames.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { SharedWords } from '../memory/shared-words.ts';
import { WORD_BYTES } from '../memory/shared-words.ts';
import type { PageAccount } from './page-account.ts';
import type { PageAccounts } from './page-accounts.ts';
import type { PromptDiscards } from './prompt-discards.ts';

/** Words that one step looks at: 16 GiB of guest memory, which is below a millisecond. */
const FRAMES_PER_STEP = 8192;

/**
 * Frames that are held before other threads are told of their memory, 128 MiB: they give it back while the words of the next
 * ones are changed. A multiple of what they claim at once.
 */
const FRAMES_PER_RUN = 64;

/** Frames that are being evicted at once: a guest that works meanwhile is to find others free. */
const EVICTING_MAX = 32;

/** Figures of a device about its guest's frames; they only rise. */
export type FrameCounters = {
  /** Frames of which the memory was given back and that the guest may still use. */
  evictedFrames: number;
  /** Frames that the guest was kept from using, and those that it may use again. */
  heldFrames: number;
  returnedFrames: number;
  /** Frames whose word was another than the host had left there: the guest's word is nonsense. */
  strayFrames: number;
};

// What the host has done with a frame.
const OURS_NOT = 0;
const OURS_HELD = 1;

export class FrameReclaimer {
  readonly #table: FrameTable;
  readonly #words: SharedWords;
  readonly #accounts: PageAccounts;
  readonly #prompt: PromptDiscards;
  readonly #counters: FrameCounters;
  /** Memory of held frames was marked, and there will be more. */
  readonly #onMarked: () => void;
  readonly #ours: Uint8Array;
  /** Frames that are being evicted: their memory is about to be given back. */
  readonly #evicting: number[] = [];
  /** Frames that are the guest's again as soon as nothing is under way on them. */
  readonly #returning: number[] = [];
  /** Where the pass that evicts has come to, and the one that holds, downwards; NaN where there is none. */
  #evictAt = Number.NaN;
  #holdAt = Number.NaN;
  #held = 0;
  #wanted = 0;

  constructor(
    table: FrameTable,
    words: SharedWords,
    accounts: PageAccounts,
    prompt: PromptDiscards,
    counters: FrameCounters,
    onMarked: () => void,
  ) {
    this.#table = table;
    this.#words = words;
    this.#accounts = accounts;
    this.#prompt = prompt;
    this.#counters = counters;
    this.#onMarked = onMarked;
    this.#ours = new Uint8Array(table.frames);
  }

  /** Frames that the guest may not use. */
  get held(): number {
    return this.#held;
  }

  /** Frames that it may not use when the pass is over, as far as that is known. */
  get heldSoon(): number {
    return Number.isNaN(this.#holdAt) ? Math.min(this.#held, this.#wanted) : this.#wanted;
  }

  /** Evicts all frames that are found free, in {@link step}s. A pass that is under way goes on. */
  evict(): void {
    if (Number.isNaN(this.#evictAt)) this.#evictAt = 0;
  }

  /** Holds so many frames, as far as so many are free, in {@link step}s. */
  hold(frames: number): void {
    this.#wanted = Math.min(Math.max(0, frames), this.#table.frames);
    this.#holdAt = this.#wanted > this.#held ? this.#table.frames - 1 : Number.NaN;
  }

  /** Does a share of what there is to do; true when there is more that need not wait. */
  step(): boolean {
    this.finish();
    if (this.#held > this.#wanted) {
      this.#giveBack();
      this.finish();
      return this.#held > this.#wanted;
    }
    if (!Number.isNaN(this.#holdAt)) {
      this.#hold();
      return !Number.isNaN(this.#holdAt) || !Number.isNaN(this.#evictAt);
    }
    if (Number.isNaN(this.#evictAt) || this.#evicting.length > 0) return false;
    this.#evict();
    this.finish();
    return !Number.isNaN(this.#evictAt) && this.#evicting.length === 0;
  }

  /** Goes on with what waited for discards; true when nothing waits any more. There will be news where something does. */
  finish(): boolean {
    if (this.#evicting.length > 0 && this.#prompt.mayReturn()) this.#evicted(this.#prompt.failed);
    if (this.#returning.length > 0 && this.#accounts.quiet) this.#returned();
    return this.#evicting.length + this.#returning.length === 0;
  }

  /** Touches the words no more. What was held is the guest's again as far as the account goes. */
  forget(): void {
    for (let frame = 0; frame < this.#ours.length; frame++)
      if (this.#ours[frame] === OURS_HELD) this.#take(frame);
    this.#prompt.forget();
    this.#evicting.length = 0;
    this.#returning.length = 0;
    this.#evictAt = Number.NaN;
    this.#holdAt = Number.NaN;
    this.#held = 0;
    this.#wanted = 0;
  }

  // Eviction: the word first, then the memory, then the word again.

  #evict(): void {
    this.#prompt.begin();
    const end = Math.min(this.#table.frames, this.#evictAt + FRAMES_PER_STEP);
    let first = this.#evictAt;
    let at = first;
    for (; at < end && this.#evicting.length < EVICTING_MAX; at++) {
      if (this.#claim(at, FRAME_FREE, FRAME_RECLAIMING)) {
        this.#evicting.push(at);
        continue;
      }
      this.#discard(first, at);
      first = at + 1;
    }
    this.#discard(first, at);
    this.#evictAt = at === this.#table.frames ? Number.NaN : at;
  }

  /** Has the memory of frames `first` up to `end` given back, as one run. */
  #discard(first: number, end: number): void {
    if (end > first)
      this.#accounts.forEachPart(this.#pfnOf(first), (end - first) * FRAME_PAGES, this.#prompt.discard);
  }

  /** Those whose discard failed keep what is in them, and no one knows which they are. */
  #evicted(failed: boolean): void {
    for (const frame of this.#evicting) {
      if (!this.#words.replace(frame, FRAME_RECLAIMING, failed ? FRAME_FREE : FRAME_EVICTED)) {
        this.#counters.strayFrames++;
      } else if (!failed) this.#counters.evictedFrames++;
    }
    this.#evicting.length = 0;
  }

  // The limit.

  #hold(): void {
    const end = Math.max(0, this.#holdAt + 1 - FRAMES_PER_STEP);
    let at = this.#holdAt;
    let last = at;
    for (; at >= end && this.#held < this.#wanted; at--) {
      const word = this.#words.load(at);
      if (isFrameFree(word) && this.#claim(at, word, FRAME_HELD)) {
        this.#ours[at] = OURS_HELD;
        this.#held++;
        this.#counters.heldFrames++;
        this.#words.add(this.#treeWord(at), -FRAME_PAGES);
        if (at % FRAMES_PER_RUN !== 0) continue;
        this.#give(at, last + 1);
        this.#onMarked();
        last = at - 1;
        continue;
      }
      this.#give(at + 1, last + 1);
      last = at - 1;
    }
    this.#give(at + 1, last + 1);
    this.#holdAt = at >= 0 && this.#held < this.#wanted ? at : Number.NaN;
  }

  /**
   * What is held is in the balloon as what a guest gave away is, and its memory goes back in the same way, whatever a word
   * said of that: one that says that it is gone already is the guest's.
   */
  #give(first: number, end: number): void {
    if (end <= first) return;
    this.#accounts.forEachPart(this.#pfnOf(first), (end - first) * FRAME_PAGES, this.#giveTo);
    this.#accounts.settled = true;
  }

  readonly #giveTo = (account: PageAccount, page: number, count: number): void => {
    account.give(page, count, true);
    this.#accounts.noteMarked(account);
  };

  #giveBack(): void {
    for (let frame = 0; frame < this.#table.frames && this.#held > this.#wanted; frame++) {
      if (this.#ours[frame] !== OURS_HELD) continue;
      this.#take(frame);
      this.#held--;
      this.#returning.push(frame);
    }
  }

  #take(frame: number): void {
    this.#ours[frame] = OURS_NOT;
    this.#accounts.forEachPart(this.#pfnOf(frame), FRAME_PAGES, this.#takeFrom);
  }

  readonly #takeFrom = (account: PageAccount, page: number, count: number): void => {
    account.take(page, count, this.#accounts.noteInFlight);
  };

  #returned(): void {
    for (const frame of this.#returning) {
      if (this.#words.replace(frame, FRAME_HELD, FRAME_FREE)) {
        this.#words.add(this.#treeWord(frame), FRAME_PAGES);
        this.#counters.returnedFrames++;
      } else this.#counters.strayFrames++;
    }
    this.#returning.length = 0;
  }

  // Frames.

  #claim(frame: number, expected: number, next: number): boolean {
    if (this.#words.load(frame) !== expected || !this.#mayGo(frame)) return false;
    return this.#words.replace(frame, expected, next);
  }

  /** The state itself stays where it is, and so does what lies in no region as a whole, or cannot be discarded by itself. */
  #mayGo(frame: number): boolean {
    const pfn = this.#pfnOf(frame);
    const stateEnd = this.#table.address + sharedWordCount(this.#table.frames) * WORD_BYTES;
    if ((pfn + FRAME_PAGES) * PAGE_SIZE > this.#table.address && pfn * PAGE_SIZE < stateEnd) return false;
    const account = this.#accounts.find(pfn);
    if (account === undefined || pfn + FRAME_PAGES > account.firstPfn + account.pageCount) return false;
    const { discardUnit } = account.region.backing;
    return FRAME_BYTES % discardUnit === 0 && ((pfn - account.firstPfn) * PAGE_SIZE) % discardUnit === 0;
  }

  #pfnOf(frame: number): number {
    return this.#table.firstPfn + frame * FRAME_PAGES;
  }

  #treeWord(frame: number): number {
    return this.#table.frames + treeOf(frame);
  }
}
