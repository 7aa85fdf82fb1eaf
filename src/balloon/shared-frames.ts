/**
 * The state of a guest's allocator that guest and host share (profile `shared`): one word for each huge frame of 2 MiB, what
 * it may say, and the messages by which a driver lends it. docs/shared-allocator.md has every transition with the reason why
 * none of them loses a frame or has it used by both. How frames are searched is the allocator's (guest/two-level.ts), when
 * they are taken the device's (device/frame-reclaimer.ts).
 */
import { PAGE_SIZE } from '../memory/page.ts';
import { PAGES_PER_PAGEBLOCK } from '../memory/page-blocks.ts';
import { struct } from '../sys/struct.ts';

/** Base pages of a huge frame. */
export const FRAME_PAGES = PAGES_PER_PAGEBLOCK;
export const FRAME_BYTES = FRAME_PAGES * PAGE_SIZE;

// A word: how many base pages are free in the low bits, and these.

/** The guest has allocated the frame as a whole. */
const HUGE = 1 << 16;
/** The host has given the frame's memory back: it reads as zeros until it is written to. */
const EVICTED = 1 << 17;
/** The host is giving the frame's memory back: the guest leaves it alone until that is over. */
const BUSY = 1 << 18;
/** The frame is beyond the limit that the host has set: the guest may not use it. */
const HELD = 1 << 19;

/** No page is in use. */
export const FRAME_FREE = FRAME_PAGES;
export const FRAME_HUGE = HUGE;
/** Taken by the host, and on its way to {@link FRAME_EVICTED}. */
export const FRAME_RECLAIMING = FRAME_PAGES | EVICTED | BUSY;
export const FRAME_EVICTED = FRAME_PAGES | EVICTED;
export const FRAME_HELD = FRAME_PAGES | HELD;

/** No page is in use, and the guest may use all: of the two, the second costs a fault for each page. */
export const isFrameFree = (word: number): boolean => word === FRAME_FREE || word === FRAME_EVICTED;

/** Some pages are in use: how many are not; else 0. */
export const freePagesOfPart = (word: number): number => (word > 0 && word < FRAME_PAGES ? word : 0);

/** What of the frame is, or will soon be, the guest's to use, in pages. */
export const freePagesOf = (word: number): number =>
  (word & (HUGE | HELD)) === 0 ? Math.min(word & 0xffff, FRAME_PAGES) : 0;

/** What a word that a host has left behind says without it; the same word where no host had its hand on it. */
export const withoutHost = (word: number): number =>
  (word & (EVICTED | BUSY | HELD)) === 0 ? word : FRAME_FREE;

// The layout, version 1: the words of all frames, then those of the trees; what follows is the guest's alone.

/** Frames of a tree: a word of the upper level says how many pages are free in so many frames. */
export const TREE_FRAMES = 32;
export const treeCount = (frames: number): number => Math.ceil(frames / TREE_FRAMES);
export const treeOf = (frame: number): number => Math.floor(frame / TREE_FRAMES);
export const sharedWordCount = (frames: number): number => frames + treeCount(frames);

export const LAYOUT_VERSION = 1;

/** Where an allocator's state is. */
export interface FrameTable {
  /** Guest physical, a multiple of the page size. */
  readonly address: number;
  /** The page frame that the first huge frame starts with, a multiple of {@link FRAME_PAGES}. */
  readonly firstPfn: number;
  readonly frames: number;
}

/** What a driver says on the queue. Each comes back when no discard that was begun before it is under way any more. */
export const SHARED_MESSAGE = struct('aerostat_shared_message', 32, {
  command: ['u32', 0],
  /** Of the layout; the rest is 0 but with LEND. */
  version: ['u32', 4],
  address: ['u64', 8],
  firstPfn: ['u64', 16],
  frames: ['u64', 24],
});

/** The host touches the state no more, and forgets what it held. */
export const WITHDRAW = 0;
/** From now on the host may change the state that the message names. */
export const LEND = 1;
/** The guest wants memory, and what is free is being discarded: there is nothing to do but to answer. */
export const WAIT = 2;
