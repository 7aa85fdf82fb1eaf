/**
 * A guest and its host around one shared allocator, small enough to be known completely: the real {@link TwoLevelFrames}, the
 * real {@link SharedAllocator} of the device over real accounts, and their sets of pending pages, which a thread empties run by
 * run. Made here are only the memory, of which all that matters is whether the guest wrote to a frame since it was discarded,
 * and the driver's few words. {@link ./shared-explorer.ts} tries all orders of its steps.
 *
 * A step is one operation of one side, and possibly one of another side in the middle of it: between its reading of a frame's
 * word and its compare-and-swap, which is where two sides can meet.
 */
import { profile } from '../balloon/profiles.ts';
import {
  FRAME_BYTES,
  FRAME_FREE,
  FRAME_PAGES,
  FRAME_RECLAIMING,
  isFrameFree,
  LAYOUT_VERSION,
  LEND,
  treeOf,
  WAIT,
  WITHDRAW,
} from '../balloon/shared-frames.ts';
import { DeviceCounters } from '../device/counters.ts';
import { DeviceConfig } from '../device/device-config.ts';
import type { DeviceHost } from '../device/device-host.ts';
import type { PageAccount } from '../device/page-account.ts';
import { PageAccounts } from '../device/page-accounts.ts';
import { SharedAllocator } from '../device/shared-allocator.ts';
import { TwoLevelFrames } from '../guest/two-level.ts';
import { MemoryRegion } from '../memory/guest-memory.ts';
import { NIL, PAGEBLOCK_ORDER } from '../memory/page-blocks.ts';
import type { PendingDiscards } from '../memory/pending-discards.ts';
import { SharedWords, WORD_BYTES } from '../memory/shared-words.ts';
import { StateBacking, WatchedMemory } from './shared-memory.ts';

/** How host or driver may be wrong. */
export type SharedRules =
  | 'safe'
  /** The memory is discarded before the word is changed. */
  | 'discarded-first'
  /** A frame is said to be evicted before the discard is over. */
  | 'answered-early'
  /** The host takes a frame that it saw free, although the guest was faster. */
  | 'guest-ignored'
  /** The driver clears what a lost host left behind while that may still discard. */
  | 'cleared-early'
  /** The driver never clears it. */
  | 'never-cleared';

export interface SharedMachineOptions {
  readonly rules: SharedRules;
  /** Huge frames that the guest can use. */
  readonly frames: number;
  /** Blocks that it has at once. */
  readonly blocks: number;
}

/** What each side can do. */
const GUEST_STEPS = ['take a frame', 'take a page', 'free the first', 'free the last', 'wait'] as const;
const HOST_STEPS = ['evict', 'limit 0', 'limit 1', 'limit all', 'news', 'answer', 'lose'] as const;
const THREAD_STEPS = ['claim', 'punch'] as const;
export const STEPS = [...GUEST_STEPS, ...HOST_STEPS, ...THREAD_STEPS] as const;
export type SharedStep = (typeof STEPS)[number];

const isOf = (steps: readonly SharedStep[], step: SharedStep): boolean => steps.includes(step);
/** Whether `inner` may happen in the middle of `outer`: a side does one thing at a time. */
export const mayInterrupt = (outer: SharedStep, inner: SharedStep): boolean =>
  [GUEST_STEPS, HOST_STEPS, THREAD_STEPS].every(side => !isOf(side, outer) || !isOf(side, inner)) &&
  !isOf(THREAD_STEPS, outer);

type OpenRun = NonNullable<ReturnType<PendingDiscards['beginRun']>>;

interface Block {
  readonly pfn: number;
  readonly order: number;
}

export class SharedMachine {
  readonly #options: SharedMachineOptions;
  readonly #memory: WatchedMemory;
  readonly #accounts: PageAccounts;
  readonly #account: PageAccount;
  readonly #config = new DeviceConfig(16);
  readonly #part: SharedAllocator;
  readonly #allocator: TwoLevelFrames;
  readonly #words: SharedWords;
  readonly #blocks: Block[] = [];
  /** Frames that hold what the guest wrote, as bits: since it was written, they were not discarded. */
  #written = 0;
  /** A run that a thread discards, and which set it is of. */
  #run: { readonly open: OpenRun; readonly ofReports: boolean } | undefined;
  /** What the driver said and has no answer to. */
  #said: number | undefined = LEND;
  /** Served, but not answered. */
  #served = false;
  #lost = false;
  /** What is wrong, in words. */
  fault: string | undefined;

  constructor(options: SharedMachineOptions) {
    this.#options = options;
    // The first frame has the state.
    const size = (options.frames + 1) * FRAME_BYTES;
    const region = new MemoryRegion(
      { guestAddress: 0, size, userAddress: 0 },
      new StateBacking(size, frame => this.#discarded(frame)),
    );
    this.#memory = new WatchedMemory([region]);
    this.#allocator = new TwoLevelFrames(this.#memory, 0, options.frames + 1);
    this.#words = new SharedWords(this.#memory, 0, options.frames + 1 + 1);
    // All of its first frame is in use.
    this.#words.add(options.frames + 1 + treeOf(0), -this.#words.load(0));
    this.#words.replace(0, this.#words.load(0), 0);
    const counters = new DeviceCounters();
    this.#accounts = new PageAccounts(counters);
    this.#accounts.discardElsewhere();
    if (options.rules === 'answered-early')
      Object.defineProperty(this.#accounts, 'reportedPending', { get: () => 0 });
    this.#account = this.#accounts.open(region);
    const ignored = () => {};
    this.#part = new SharedAllocator({
      profile: profile('shared'),
      host: HOST,
      clock: { nowMs: () => 0, write: ignored },
      config: this.#config,
      accounts: this.#accounts,
      counters,
      unusedPages: { add: ignored },
      noteUnused: ignored,
    });
    this.#serve();
    this.take('answer');
  }

  /** All that decides what may happen next; two machines that are alike in it are one. */
  key(): string {
    const { frames } = this.#options;
    const words = Array.from({ length: frames }, (_, index) => this.#words.load(index + 1));
    const blocks = this.#blocks.map(({ pfn, order }) => pfn * 16 + order).sort((a, b) => a - b);
    const { reports, pending, ballooned } = this.#account;
    const sets = [reports, pending].map(set =>
      Array.from({ length: frames }, (_, index) => (set?.countIn(index + 1, 1) === 1 ? 1 : 0)).join(''),
    );
    const given = Array.from({ length: frames }, (_, index) =>
      Number(ballooned.test((index + 1) * FRAME_PAGES)),
    );
    return [
      words.join(),
      this.#words.load(frames + 1),
      blocks.join(),
      this.#written,
      sets.join(),
      given.join(''),
      this.#run === undefined ? '' : this.#run.ofReports,
      reports?.outstanding,
      pending.outstanding,
      this.#accounts.quiet,
      this.#config.targetPages,
      this.#part.heldPages,
      this.#said,
      this.#served,
      this.#lost,
    ].join(';');
  }

  /** Whether the step is possible now. */
  can(step: SharedStep): boolean {
    const { frames, blocks } = this.#options;
    const { reports, pending } = this.#account;
    switch (step) {
      case 'take a frame':
      case 'take a page':
        return this.#blocks.length < blocks;
      case 'free the first':
        return this.#blocks.length > 0;
      case 'free the last':
        return this.#blocks.length > 1;
      case 'wait':
        return this.#said === undefined && this.#allocator.busyPages > 0;
      case 'evict':
        return this.#part.lent && !this.#wordsAny(word => word === FRAME_RECLAIMING);
      case 'limit 0':
        return this.#config.targetPages > 0;
      case 'limit 1':
        return frames > 1 && this.#config.targetPages !== FRAME_PAGES;
      case 'limit all':
        return this.#config.targetPages !== frames * FRAME_PAGES;
      case 'news':
        return this.#part.lent;
      case 'answer':
        return this.#said !== undefined && (!this.#served || this.#part.mayReturn());
      case 'lose':
        return this.#part.lent && this.#said === undefined;
      case 'claim':
        return this.#run === undefined && (reports?.outstanding ?? 0) + pending.outstanding > 0;
      case 'punch':
        return this.#run !== undefined;
    }
  }

  /**
   * Takes a step, and in the middle of it `inner`, before its compare-and-swap number `at` (from 0 on). Returns how many
   * places there were.
   */
  take(step: SharedStep, inner?: SharedStep, at = 0): number {
    let last = -1;
    let places = 0;
    let word = 0;
    this.#memory.onLook = gpa => {
      const index = gpa / WORD_BYTES;
      const again = gpa === last;
      last = gpa;
      if (index < 1 || index > this.#options.frames) return;
      if (!again) {
        word = this.#peek(index);
        return;
      }
      const place = places++;
      const watch = this.#memory.onLook;
      this.#memory.onLook = () => {};
      if (inner !== undefined && place === at && this.can(inner)) this.#deeds[inner]();
      if (isOf(HOST_STEPS, step) && this.#options.rules === 'discarded-first' && isFrameFree(word))
        this.#discarded(index);
      if (isOf(HOST_STEPS, step) && this.#options.rules === 'guest-ignored' && isFrameFree(word))
        this.#words.replace(index, this.#words.load(index), word);
      this.#memory.onLook = watch;
    };
    try {
      this.#deeds[step]();
    } finally {
      this.#memory.onLook = () => {};
    }
    this.#check();
    return places;
  }

  #peek(index: number): number {
    const watch = this.#memory.onLook;
    this.#memory.onLook = () => {};
    const word = this.#words.load(index);
    this.#memory.onLook = watch;
    return word;
  }

  readonly #deeds: Readonly<Record<SharedStep, () => void>> = {
    'take a frame': () => this.#allocate(PAGEBLOCK_ORDER),
    'take a page': () => this.#allocate(0),
    'free the first': () => this.#free(0),
    'free the last': () => this.#free(this.#blocks.length - 1),
    wait: () => {
      this.#said = WAIT;
    },
    evict: () => this.#part.evict(),
    'limit 0': () => this.#limit(0),
    'limit 1': () => this.#limit(1),
    'limit all': () => this.#limit(this.#options.frames),
    news: () => this.#part.news(),
    answer: () => this.#answer(),
    lose: () => this.#lose(),
    claim: () => this.#claim(),
    punch: () => this.#punch(),
  };

  // The guest.

  #allocate(order: number): void {
    const pfn = this.#allocator.allocate(order);
    if (pfn === NIL) return;
    const frame = Math.floor(pfn / FRAME_PAGES);
    if (this.#allocator.zeroed && (this.#written & (1 << frame)) !== 0)
      this.fault ??= `frame ${frame} is said to be zeros and is not`;
    this.#blocks.push({ pfn, order });
    this.#written |= 1 << frame;
  }

  #free(index: number): void {
    const [{ pfn, order }] = this.#blocks.splice(index, 1);
    this.#allocator.free(pfn, order);
  }

  /** The frame's memory is the host's: what is in it is gone. */
  #discarded(frame: number): void {
    this.#written &= ~(1 << frame);
    if (this.#isUsed(frame)) this.fault ??= `frame ${frame} is discarded while the guest uses it`;
  }

  #isUsed(frame: number): boolean {
    return this.#blocks.some(({ pfn }) => Math.floor(pfn / FRAME_PAGES) === frame);
  }

  // The host.

  #limit(frames: number): void {
    this.#config.aim(frames * FRAME_PAGES, this.#config.targetLimitPages);
    this.#part.follow();
  }

  /** What the ring's server does with the driver's message: it is taken, and returned when it may be. */
  #answer(): void {
    if (!this.#served) {
      this.#serve();
      return;
    }
    const said = this.#said;
    this.#said = undefined;
    this.#served = false;
    if (said !== WITHDRAW) return;
    // The driver.
    if (this.#options.rules !== 'never-cleared') this.#allocator.hostGone();
    this.#lost = false;
    this.#said = LEND;
  }

  #serve(): void {
    this.#served = true;
    const table = { address: 0, firstPfn: 0, frames: this.#options.frames + 1 };
    const command = this.#said ?? WAIT;
    this.#part.obey({ command, version: LAYOUT_VERSION, ...table }, this.#memory);
  }

  /** The connection is gone, and another begins: the device forgets, but its threads may be at something. */
  #lose(): void {
    this.#part.reset();
    this.#accounts.forget();
    this.#lost = true;
    this.#said = WITHDRAW;
    if (this.#options.rules === 'cleared-early') this.#allocator.hostGone();
  }

  // A thread that discards.

  #claim(): void {
    const { reports, pending } = this.#account;
    const ofReports = (reports?.outstanding ?? 0) > 0;
    const open = (ofReports ? reports : pending)?.beginRun();
    if (open !== undefined) this.#run = { open, ofReports };
  }

  #punch(): void {
    this.#run?.open.end(this.#account.discardUnits);
    this.#run = undefined;
  }

  #wordsAny(is: (word: number) => boolean): boolean {
    for (let frame = 1; frame <= this.#options.frames; frame++) if (is(this.#peek(frame))) return true;
    return false;
  }

  // What must be true.

  #check(): void {
    for (let frame = 1; frame <= this.#options.frames; frame++) {
      if (this.#isUsed(frame) && this.#account.ballooned.test(frame * FRAME_PAGES))
        this.fault ??= `frame ${frame} is held by the host and used by the guest`;
    }
  }

  /** The host lifts its limit, all that is under way ends, and the guest frees all: every frame is the guest's to take. */
  wind(): void {
    for (let turn = 0; turn < 8; turn++) {
      for (const step of ['limit 0', 'news', 'claim', 'punch', 'news', 'answer'] as const)
        if (this.can(step)) this.take(step);
    }
    while (this.#blocks.length > 0) this.take('free the first');
    let frames = 0;
    while (this.#allocator.allocate(PAGEBLOCK_ORDER) !== NIL) frames++;
    if (frames < this.#options.frames) this.fault ??= `${this.#options.frames - frames} frames are lost`;
    if (this.#allocator.freePages > 0 || this.#wordsAny(word => word === FRAME_FREE))
      this.fault ??= 'the books of the allocator are wrong';
  }
}

const nothing = () => {};
const HOST: DeviceHost = {
  configChanged: nothing,
  accountOpened: nothing,
  pendingMarked: nothing,
  discardSoon: nothing,
  reportsOpened: nothing,
  badInput: nothing,
  discardFailed: nothing,
  actualChanged: nothing,
  statisticsArrived: nothing,
  hintChanged: nothing,
  requestAnswered: nothing,
};
