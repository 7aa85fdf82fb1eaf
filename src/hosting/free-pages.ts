/**
 * The pages that a guest says it does not use, on their way to a migration that skips them: a device's side of all free
 * page channels. What counts, and when, is docs/hint-safety.md's; the dirty bitmap that pages are cleared in is shared
 * with the threads that send. Nothing here discards anything.
 */
import { GET_UNUSED_PAGES } from '../balloon/request-messages.ts';
import { GuestStateError } from '../control/errors.ts';
import type { BalloonDevice } from '../device/balloon-device.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { PageSink } from '../memory/page.ts';
import { HintedPages } from '../migration/hinted-pages.ts';
import { Ram } from '../migration/ram.ts';
import { SlotBitmap } from '../migration/slot-bitmap.ts';

/**
 * How the guest names them: in sessions of hints, in answers to requests, or in reports, which come unasked (the queues
 * `reporting` and `hinting`). Reports are followed beside the other two as well.
 */
const FREE_PAGE_WAYS = ['session', 'request', 'reports'] as const;
export type FreePageWay = (typeof FREE_PAGE_WAYS)[number];

export type FreePageCommand = 'start' | 'stop' | 'done';

/** Words of {@link FollowedPages.progress}. */
export const PAGES_WORD = 0;
export const FINISHED_WORD = 1;
export const PROGRESS_WORDS = 2;

/** Shared memory of the migration that follows; the bitmaps are by slot (migration/ram.ts). */
export interface FollowedPages {
  readonly way: FreePageWay;
  readonly dirty: Int32Array;
  readonly recent: Int32Array;
  readonly ever: Int32Array;
  /** Pages that counted since the last start, and whether the guest has named all that it had to name. */
  readonly progress: Int32Array;
  /** A test switch: what is named in sessions counts at any time, whatever session it is of. Data is lost then. */
  readonly ignoreIds?: boolean;
}

/** The account of a region's ballooned pages, as its device keeps it. */
export interface BalloonedRegion {
  readonly firstPfn: number;
  readonly pages: number;
  readonly ballooned: Int32Array;
}

interface Following {
  readonly way: FreePageWay;
  readonly hinted: HintedPages;
  readonly progress: Int32Array;
  readonly ignoreIds: boolean;
}

export class FreePages implements PageSink {
  readonly #device: () => BalloonDevice;
  readonly #memory: () => GuestMemory | undefined;
  #following: Following | undefined;
  /** Pages count. */
  #counting = false;

  /** Both may not be there yet. */
  constructor(device: () => BalloonDevice, memory: () => GuestMemory | undefined) {
    this.#device = device;
    this.#memory = memory;
  }

  /**
   * Pages go into these bitmaps from the next start on; null: they are not followed any more.
   * @throws GuestStateError when the guest cannot name pages in this way, or counts on what free pages hold
   */
  follow(followed: FollowedPages | null): void {
    this.#following = undefined;
    this.#count(false);
    this.#device().hints.ignoreIds = followed?.ignoreIds ?? false;
    if (followed === null) return;
    const { way, progress, ignoreIds = false } = followed;
    const memory = this.#memory();
    const reason = memory === undefined ? 'it is not connected' : this.#obstacle(way);
    if (memory === undefined || reason !== undefined) {
      throw new GuestStateError(`the guest names no free pages by ${way}: ${reason}`);
    }
    const ram = new Ram(memory);
    const bitmap = (words: Int32Array) => new SlotBitmap(ram.slots, words);
    const hinted = new HintedPages(
      ram,
      bitmap(followed.dirty),
      bitmap(followed.recent),
      bitmap(followed.ever),
    );
    this.#following = { way, hinted, progress, ignoreIds };
  }

  /** A migration follows them. */
  get followed(): boolean {
    return this.#following !== undefined;
  }

  #obstacle(way: FreePageWay): string | undefined {
    const { driverFeatures, profile, hints, requests, reporting } = this.#device();
    // A page that is skipped arrives as whatever it was before. Such a guest would see that.
    if ((driverFeatures & profile.poisonFeature) !== 0n) {
      return 'it fills free pages and counts on what they hold (PAGE_POISON)';
    }
    const running = { session: hints.running, request: requests.running, reports: reporting.running };
    return running[way] ? undefined : 'its driver did not take the feature';
  }

  command(step: FreePageCommand): void {
    const following = this.#following;
    if (following === undefined) throw new GuestStateError('the free pages of this guest are not followed');
    const device = this.#device();
    if (step === 'start') {
      following.progress.fill(0);
      this.#count(true);
      if (following.way === 'session') device.hints.begin();
      if (following.way === 'request') device.requests.send(GET_UNUSED_PAGES);
      return;
    }
    this.#count(following.ignoreIds);
    if (following.way === 'session') {
      if (step === 'stop') device.hints.end();
      else device.hints.done();
    }
    if (following.way === 'request') device.requests.cancel();
  }

  #count(counting: boolean): void {
    this.#counting = counting;
    this.#device().reporting.observer = counting ? this : undefined;
  }

  /** Pages that count by the rules of their channel. */
  add(pfn: number, count: number): void {
    const following = this.#following;
    if (!this.#counting || following === undefined) return;
    following.hinted.add(pfn, count);
    Atomics.add(following.progress, PAGES_WORD, count);
  }

  /** The guest has named all that it had to name, as far as `way` goes. */
  finished(way: FreePageWay): void {
    const following = this.#following;
    if (this.#counting && following?.way === way) Atomics.store(following.progress, FINISHED_WORD, 1);
  }
}
