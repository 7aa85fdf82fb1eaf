/**
 * A page frame allocator whose state a host may share: two levels, as LLFree has them (Wrenger et al., USENIX ATC 2023). The
 * lower one is a word and a bit field for each huge frame of 2 MiB, the upper one a counter for each tree of 32 of them.
 * All of it lies in guest memory and is changed by atomic operations only, so that there is no lock that a
 * side which stands still could hold. The host takes free frames by changing their words (balloon/shared-frames.ts); nothing is asked of the guest.
 *
 * The word is the truth. Counters of trees only say where looking is worth while: the host changes them after the words.
 */
import {
  FRAME_FREE,
  FRAME_HUGE,
  FRAME_PAGES,
  FRAME_RECLAIMING,
  type FrameTable,
  freePagesOf,
  freePagesOfPart,
  isFrameFree,
  sharedWordCount,
  TREE_FRAMES,
  treeCount,
  treeOf,
  withoutHost,
} from '../balloon/shared-frames.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { NIL, PAGEBLOCK_ORDER } from '../memory/page-blocks.ts';
import { SharedWords, WORD_BYTES } from '../memory/shared-words.ts';
import { assert } from '../sys/error.ts';

/** Words of a frame's bit field: a bit a page, set while it is in use. */
const FIELD_WORDS = FRAME_PAGES / 32;
const ALL = -1;
/** Blocks up to this order lie in one word of a bit field. */
const WORD_ORDER = 5;

type FrameTest = (word: number) => boolean;
const PARTLY_USED: FrameTest = word => freePagesOfPart(word) > 0;
const FREE: FrameTest = word => word === FRAME_FREE;
/** In this order single pages are taken from frames: those that cost the host nothing come first. */
const IN_TURN = [PARTLY_USED, FREE, isFrameFree] as const;
/** And blocks that are whole frames. */
const WHOLE = [FREE, isFrameFree] as const;

// Pages that come and go are kept apart from those that stay, or a page that stays would be in every frame. Which frames
// have which is the guest's alone.

/** Pages of programs and files. */
export const PASSING = 0;
/** Those of the kernel. */
export const LASTING = 1;
type PageKind = typeof PASSING | typeof LASTING;
/** Of frames in which the state lies: they are never free. */
const EITHER = 2;

/** Pages that the state of so many frames takes. */
const statePages = (frames: number): number =>
  Math.ceil(((sharedWordCount(frames) + frames * FIELD_WORDS) * WORD_BYTES) / PAGE_SIZE);

export class TwoLevelFrames {
  readonly table: FrameTable;
  /** Pages at the bottom that are never handed out: the state itself lies there. */
  readonly reservedPages: number;
  /** The block that was allocated last is part of a frame whose memory the host had taken, and reads as zeros. */
  zeroed = false;
  readonly #frames: number;
  readonly #words: SharedWords;
  readonly #fields: SharedWords;
  /** By kind of pages: the frame that single pages are taken from, for as long as it has some. */
  readonly #current = [0, 0];
  /** By frame that is in use in parts: what kind of pages it has. */
  readonly #kinds: Uint8Array;

  /** All of `frames` huge frames from `firstPfn` on are free, but for what the state takes at their beginning. */
  constructor(memory: GuestMemory, firstPfn: number, frames: number) {
    const state = statePages(frames);
    assert(firstPfn % FRAME_PAGES === 0 && frames * FRAME_PAGES > state, `an allocator of ${frames} frames`);
    const address = firstPfn * PAGE_SIZE;
    const shared = sharedWordCount(frames);
    this.table = { address, firstPfn, frames };
    this.reservedPages = state;
    this.#frames = frames;
    this.#kinds = new Uint8Array(frames);
    memory.fill(address, 0, state * PAGE_SIZE);
    this.#words = new SharedWords(memory, address, shared);
    this.#fields = new SharedWords(memory, address + shared * WORD_BYTES, frames * FIELD_WORDS);
    for (let frame = 0; frame < frames; frame++) {
      const reserved = Math.min(Math.max(0, state - frame * FRAME_PAGES), FRAME_PAGES);
      for (let page = 0; page < reserved; page++) this.#setBits(frame, page, 0);
      if (reserved > 0) this.#kinds[frame] = EITHER;
      this.#words.replace(frame, 0, FRAME_PAGES - reserved);
    }
    this.#countTrees();
  }

  /** 2^order pages, or NIL. */
  allocate(order: number, kind: PageKind = PASSING): number {
    this.zeroed = false;
    if (order > PAGEBLOCK_ORDER) return this.#takePair();
    if (order === PAGEBLOCK_ORDER) return this.#first(WHOLE, wanted => this.#search(order, wanted, kind));
    const current = this.#current[kind];
    const pfn = this.#isOf(current, kind) ? this.#takeIn(current, order) : NIL;
    if (pfn !== NIL) return pfn;
    const own = this.#first(IN_TURN, wanted => this.#search(order, wanted, kind));
    // One of the others' frames is of this kind from now on.
    return own !== NIL ? own : this.#search(order, PARTLY_USED, kind, true);
  }

  #first(kinds: readonly FrameTest[], take: (wanted: FrameTest) => number): number {
    for (const wanted of kinds) {
      const pfn = take(wanted);
      if (pfn !== NIL) return pfn;
    }
    return NIL;
  }

  #isOf(frame: number, kind: PageKind): boolean {
    return this.#kinds[frame] === kind || this.#kinds[frame] === EITHER;
  }

  /** A block as it was allocated, or a page of one that was split. */
  free(pfn: number, order: number): void {
    const page = pfn - this.table.firstPfn;
    const frame = Math.floor(page / FRAME_PAGES);
    if (order < PAGEBLOCK_ORDER) {
      // In this order: a frame whose pages are all free is the host's to take, and its bit field must say so.
      this.#clearBits(frame, page % FRAME_PAGES, order);
      this.#give(frame, 1 << order);
      return;
    }
    for (let at = frame; at < frame + (1 << (order - PAGEBLOCK_ORDER)); at++) {
      const freed = this.#words.replace(at, FRAME_HUGE, FRAME_FREE);
      assert(freed, `free of huge frame ${at}, which is not in use as one`);
      this.#words.add(this.#treeWord(at), FRAME_PAGES);
    }
  }

  /** Makes huge frames many single pages. */
  split(pfn: number, order: number): void {
    const first = (pfn - this.table.firstPfn) / FRAME_PAGES;
    for (let frame = first; frame < first + (1 << (order - PAGEBLOCK_ORDER)); frame++) {
      for (let word = 0; word < FIELD_WORDS; word++) {
        this.#fields.replace(frame * FIELD_WORDS + word, 0, ALL);
      }
      const split = this.#words.replace(frame, FRAME_HUGE, 0);
      assert(split, `split of huge frame ${frame}, which is not in use as one`);
    }
  }

  /** Whether the bit of a page says that it is in use; of frames that are in use as a whole it says nothing. */
  isMarked(pfn: number): boolean {
    const page = pfn - this.table.firstPfn;
    return (this.#fields.load(Math.floor(page / 32)) & (1 << (page & 31))) !== 0;
  }

  // What the host did.

  /** Pages that are free, those that the host is discarding among them, but not those that it holds. */
  get freePages(): number {
    return this.#count(freePagesOf);
  }

  /** The same by the trees: for a moment, or by a frame, it may be otherwise. */
  get countedPages(): number {
    let pages = 0;
    const end = sharedWordCount(this.#frames);
    for (let word = this.#frames; word < end; word++) pages += this.#words.load(word);
    return pages;
  }

  /** Pages of frames that the host is discarding. */
  get busyPages(): number {
    return this.#count(word => (word === FRAME_RECLAIMING ? FRAME_PAGES : 0));
  }

  /** Pages for which `counts` says so. */
  #count(counts: (word: number) => number): number {
    let pages = 0;
    for (let frame = 0; frame < this.#frames; frame++) pages += counts(this.#words.load(frame));
    return pages;
  }

  /** What huge frame `frame` says. */
  wordOf(frame: number): number {
    return this.#words.load(frame);
  }

  /**
   * No host has its hand on the state, and none discards any more: what one has left there is void. Where it ended between
   * a word and its tree, the tree is put right.
   */
  hostGone(): void {
    for (let frame = 0; frame < this.#frames; frame++) {
      const word = this.#words.load(frame);
      const own = withoutHost(word);
      if (own !== word) this.#words.replace(frame, word, own);
    }
    this.#countTrees();
  }

  #countTrees(): void {
    for (let tree = 0; tree < treeCount(this.#frames); tree++) {
      const end = Math.min(this.#frames, (tree + 1) * TREE_FRAMES);
      let pages = 0;
      for (let frame = tree * TREE_FRAMES; frame < end; frame++)
        pages += freePagesOf(this.#words.load(frame));
      const at = this.#frames + tree;
      this.#words.add(at, pages - this.#words.load(at));
    }
  }

  // Looking for frames.

  #treeWord(frame: number): number {
    return this.#frames + treeOf(frame);
  }

  /** In frames of its kind, or `anywhere`. */
  #search(order: number, wanted: FrameTest, kind: PageKind, anywhere = false): number {
    const trees = treeCount(this.#frames);
    const first = treeOf(this.#current[kind]);
    for (let turn = 0; turn < trees; turn++) {
      const tree = (first + turn) % trees;
      if (this.#words.load(this.#frames + tree) < 1 << order) continue;
      const end = Math.min(this.#frames, (tree + 1) * TREE_FRAMES);
      for (let frame = tree * TREE_FRAMES; frame < end; frame++) {
        if (!wanted(this.#words.load(frame))) continue;
        if (wanted === PARTLY_USED && !anywhere && !this.#isOf(frame, kind)) continue;
        const pfn = this.#takeIn(frame, order);
        if (pfn === NIL) continue;
        if (order < PAGEBLOCK_ORDER) this.#use(frame, kind);
        return pfn;
      }
    }
    return NIL;
  }

  /** Single pages come from here from now on. */
  #use(frame: number, kind: PageKind): void {
    this.#current[kind] = frame;
    if (this.#kinds[frame] !== EITHER) this.#kinds[frame] = kind;
  }

  #takePair(): number {
    // Blocks are aligned by their page frames.
    const first = (this.table.firstPfn / FRAME_PAGES) % 2;
    for (let frame = first; frame + 1 < this.#frames; frame += 2) {
      const pfn = this.#takeIn(frame, PAGEBLOCK_ORDER);
      if (pfn === NIL) continue;
      const { zeroed } = this;
      if (this.#takeIn(frame + 1, PAGEBLOCK_ORDER) === NIL) {
        this.free(pfn, PAGEBLOCK_ORDER);
        continue;
      }
      this.zeroed &&= zeroed;
      return pfn;
    }
    return NIL;
  }

  /** Takes a block of this frame; NIL if it has none, or if the host was faster. */
  #takeIn(frame: number, order: number): number {
    const words = this.#words;
    const pages = 1 << order;
    for (;;) {
      const word = words.load(frame);
      const free = isFrameFree(word) ? FRAME_PAGES : freePagesOfPart(word);
      if (free < pages) return NIL;
      if (!words.replace(frame, word, pages === FRAME_PAGES ? FRAME_HUGE : free - pages)) continue;
      words.add(this.#treeWord(frame), -pages);
      this.zeroed = word !== FRAME_FREE && free === FRAME_PAGES;
      break;
    }
    const page = order === PAGEBLOCK_ORDER ? 0 : this.#takeBits(frame, order);
    if (page !== NIL) return this.table.firstPfn + frame * FRAME_PAGES + page;
    // There are so many pages, but in smaller pieces.
    this.#give(frame, pages);
    return NIL;
  }

  #give(frame: number, pages: number): void {
    const words = this.#words;
    for (;;) {
      const word = words.load(frame);
      assert(word + pages <= FRAME_PAGES, `more than all pages of huge frame ${frame} are free`);
      if (words.replace(frame, word, word + pages)) break;
    }
    words.add(this.#treeWord(frame), pages);
  }

  // Bits.

  /** The first aligned block of clear bits, set; its page in the frame, or NIL. */
  #takeBits(frame: number, order: number): number {
    const step = order < WORD_ORDER ? 1 : 1 << (order - WORD_ORDER);
    for (let index = 0; index < FIELD_WORDS; index += step) {
      const page = order < WORD_ORDER ? this.#takeInWord(frame, index, order) : index * 32;
      if (page !== NIL && (order < WORD_ORDER || this.#setBits(frame, page, order))) return page;
    }
    return NIL;
  }

  /** The same in one word of the bit field, for blocks that lie in one. */
  #takeInWord(frame: number, index: number, order: number): number {
    const at = frame * FIELD_WORDS + index;
    for (;;) {
      const word = this.#fields.load(at);
      const bit = firstClear(word, order);
      if (bit === NIL) return NIL;
      if (this.#fields.replace(at, word, word | maskOf(bit, order))) return index * 32 + bit;
    }
  }

  /** Sets the bits of a block unless some are set. */
  #setBits(frame: number, page: number, order: number): boolean {
    const at = frame * FIELD_WORDS + (page >>> WORD_ORDER);
    if (order < WORD_ORDER) {
      const bits = maskOf(page, order);
      for (;;) {
        const word = this.#fields.load(at);
        if ((word & bits) !== 0) return false;
        if (this.#fields.replace(at, word, word | bits)) return true;
      }
    }
    const count = 1 << (order - WORD_ORDER);
    for (let index = 0; index < count; index++) {
      if (this.#fields.replace(at + index, 0, ALL)) continue;
      while (index-- > 0) this.#fields.replace(at + index, ALL, 0);
      return false;
    }
    return true;
  }

  #clearBits(frame: number, page: number, order: number): void {
    const at = frame * FIELD_WORDS + (page >>> WORD_ORDER);
    const bits = order < WORD_ORDER ? maskOf(page, order) : ALL;
    const count = order < WORD_ORDER ? 1 : 1 << (order - WORD_ORDER);
    for (let index = 0; index < count; index++) {
      for (;;) {
        const word = this.#fields.load(at + index);
        assert((word & bits) === bits, `free of page ${page} of huge frame ${frame}, which is free`);
        if (this.#fields.replace(at + index, word, word & ~bits)) break;
      }
    }
  }
}

/** The bits of a block of fewer than 32 pages, within its word. */
const maskOf = (page: number, order: number): number => ((1 << (1 << order)) - 1) << (page & 31);

/** Where in a word the first aligned block of clear bits begins; NIL where there is none. */
function firstClear(word: number, order: number): number {
  if (word === ALL) return NIL;
  if (order === 0) return 31 - Math.clz32(~word & -~word);
  for (let bit = 0; bit < 32; bit += 1 << order) if ((word & maskOf(bit, order)) === 0) return bit;
  return NIL;
}
