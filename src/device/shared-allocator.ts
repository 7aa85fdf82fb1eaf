/**
 * The queue on which a driver lends the state of its guest's allocator (profile `shared`), and what becomes of the host's
 * wishes then: the target is held in whole huge frames as far as they are free, and only the rest of it is shown to the driver.
 * How frames are taken is {@link FrameReclaimer}'s.
 */
import { PageListError } from '../balloon/page-list.ts';
import {
  FRAME_PAGES,
  type FrameTable,
  LAYOUT_VERSION,
  LEND,
  SHARED_MESSAGE,
  sharedWordCount,
  WAIT,
  WITHDRAW,
} from '../balloon/shared-frames.ts';
import { type GuestMemory, MemoryAccessError } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { SharedWords } from '../memory/shared-words.ts';
import type { StopReason } from '../virtio/device.ts';
import { type FrameCounters, FrameReclaimer } from './frame-reclaimer.ts';
import type { DevicePart, PartWorld } from './part.ts';
import { PromptDiscards } from './prompt-discards.ts';
import type { RunningQueue } from './running-queue.ts';

type SharedMessage = ReturnType<typeof SHARED_MESSAGE.read>;

export class SharedAllocator implements DevicePart {
  readonly roles = ['shared'] as const;
  readonly counters: FrameCounters & { sharedMessages: number; decodeMs: number } = {
    sharedMessages: 0,
    /** Milliseconds spent on words of frames, the account's pages included: what decoding is to lists. */
    decodeMs: 0,
    evictedFrames: 0,
    heldFrames: 0,
    returnedFrames: 0,
    strayFrames: 0,
  };
  readonly #world: PartWorld;
  readonly #prompt: PromptDiscards;
  #frames: FrameReclaimer | undefined;
  #suspended = false;

  constructor(world: PartWorld) {
    this.#world = world;
    this.#prompt = new PromptDiscards(world);
  }

  /** The guest has lent its allocator's state. */
  get lent(): boolean {
    return this.#frames !== undefined;
  }

  /** Pages of frames that the guest may not use. */
  get heldPages(): number {
    return (this.#frames?.held ?? 0) * FRAME_PAGES;
  }

  /** Evicts every frame that is free now, a step at a time. */
  evict(): void {
    this.#frames?.evict();
    this.#go();
  }

  /** The target is another: takes the first step towards it, but for telling the driver what is left of it. */
  follow(): void {
    const { config } = this.#world;
    const wanted = Math.min(config.targetPages, config.targetLimitPages);
    this.#frames?.hold(Math.floor(wanted / FRAME_PAGES));
    this.#step();
  }

  /** A share of what there is to do; the host calls it when {@link DeviceHost.stepSoon} asked for it. */
  step(): void {
    let more = false;
    this.#telling(() => {
      more = this.#step();
    });
    if (more) this.#go();
  }

  /** Has the driver look where that leaves it another part of the target. */
  #telling(act: () => void): void {
    const { config, host } = this.#world;
    const before = config.driverPages;
    act();
    if (config.driverPages !== before) host.configChanged();
  }

  #go(): void {
    const { host } = this.#world;
    if (this.#frames === undefined || this.#suspended) return;
    if (host.stepSoon !== undefined) host.stepSoon();
    else this.step();
  }

  /** True when there is more that need not wait. */
  #step(): boolean {
    const { accounts, clock, host } = this.#world;
    const frames = this.#frames;
    if (frames === undefined || this.#suspended) return false;
    const before = frames.held;
    let more = false;
    const startedMs = clock.nowMs();
    try {
      more = frames.step();
    } catch (error) {
      this.#lost(error);
    }
    this.counters.decodeMs += clock.nowMs() - startedMs;
    if (accounts.elsewhere) {
      if (accounts.pendingPages > 0) host.pendingMarked();
      if (accounts.reportedPending > 0) host.discardSoon?.();
    } else accounts.drain();
    this.#tell(frames.held !== before);
    return more;
  }

  /** What the target still asks of the driver, and how much is in the balloon. */
  #tell(changed: boolean): void {
    const { config, host } = this.#world;
    config.heldPages = this.heldPages;
    config.asidePages = (this.#frames?.heldSoon ?? 0) * FRAME_PAGES;
    if (changed) host.actualChanged(config.actualPages + config.heldPages);
  }

  /** The state lies in memory that is not there any more. */
  #lost(error: unknown): void {
    if (!(error instanceof MemoryAccessError)) throw error;
    this.#world.host.badInput(`the state of the guest's allocator is gone: ${error.message}`);
    this.#forget();
  }

  #forget(): void {
    this.#frames?.forget();
    this.#frames = undefined;
    this.#tell(false);
  }

  // Its ring.

  start(): void {
    this.resume();
  }

  suspend(): void {
    this.#suspended = true;
  }

  resume(): void {
    this.#suspended = false;
    this.#go();
  }

  /** A ring that pauses goes on with the same driver and the same state. */
  stop(_ring: RunningQueue, reason: StopReason): void {
    this.#suspended = true;
    if (reason === 'abandoned') this.#forget();
  }

  reset(): void {
    this.#forget();
  }

  /** @throws PageListError for a message that is none, or that names a state that cannot be */
  serve(ring: RunningQueue): true {
    const list = ring.readList();
    this.counters.sharedMessages++;
    if (list.length !== SHARED_MESSAGE.size || list.extentCount > 0)
      throw new PageListError('message', `a message of ${list.length} bytes on the queue for shared frames`);
    this.obey(SHARED_MESSAGE.read(list.view), ring.memory);
    return true;
  }

  /**
   * What a message says, whose buffer is returned when {@link mayReturn} says so.
   * @throws PageListError as {@link serve}
   */
  obey({ command, ...table }: SharedMessage, memory: GuestMemory): void {
    if (command === LEND) this.#lend(memory, table);
    else if (command === WITHDRAW) this.#telling(() => this.#forget());
    else if (command !== WAIT) throw new PageListError('message', `command ${command} about shared frames`);
  }

  #lend(memory: GuestMemory, { version, ...table }: Omit<SharedMessage, 'command'>): void {
    const fault = faultOf(version, table, memory);
    if (fault !== undefined) throw new PageListError('message', `shared frames refused: ${fault}`);
    this.#forget();
    const { accounts } = this.#world;
    const words = new SharedWords(memory, table.address, sharedWordCount(table.frames));
    // A byte a frame is made for it.
    accounts.budget.spent += table.frames;
    this.#frames = new FrameReclaimer(table, words, accounts, this.#prompt, this.counters, () => {
      if (accounts.elsewhere) this.#world.host.pendingMarked();
    });
    this.#telling(() => this.follow());
    this.#go();
  }

  // Discards.

  /** No message is answered while something is under way that was begun before it. */
  mayReturn(): boolean {
    const { accounts } = this.#world;
    this.news();
    // In this order: what is discarded after the first line rings.
    accounts.watchDrain();
    return accounts.reportedPending === 0 && accounts.quiet;
  }

  settled(): boolean {
    return this.mayReturn();
  }

  news(): void {
    const frames = this.#frames;
    if (frames === undefined || this.#suspended) return;
    try {
      if (frames.finish()) this.#go();
    } catch (error) {
      this.#lost(error);
    }
  }
}

function faultOf(
  version: number,
  { address, firstPfn, frames }: FrameTable,
  memory: GuestMemory,
): string | undefined {
  if (version !== LAYOUT_VERSION) return `layout ${version}; this device knows ${LAYOUT_VERSION}`;
  if (address % PAGE_SIZE !== 0 || firstPfn % FRAME_PAGES !== 0) return 'its addresses are not aligned';
  // No more frames than there is memory: what is kept for each is bounded by it.
  const fits = frames >= 1 && frames * FRAME_PAGES * PAGE_SIZE <= memory.size;
  if (!fits) return `${frames} huge frames in ${memory.size} bytes of memory`;
  if (!memory.contains(address, sharedWordCount(frames) * 4)) return 'its state is not in guest memory';
  return undefined;
}
