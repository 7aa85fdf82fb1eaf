/**
 * How a machine's guest names free pages to a migration, by the ABI that it speaks. The device's side is
 * hosting/free-pages.ts, in the device's thread; this is the migration's end of it.
 *
 * Answers to requests carry no id in some generations, and in others one that may come again, so they are asked for
 * once a round, and what is still answered when the round is over counts for nothing.
 */
import type { ProfileName } from '../balloon/profiles.ts';
import type { DeviceMigration } from '../hosting/device-migration.ts';
import {
  FINISHED_WORD,
  type FollowedPages,
  type FreePageWay,
  PAGES_WORD,
  PROGRESS_WORDS,
} from '../hosting/free-pages.ts';
import { HintedPages } from '../migration/hinted-pages.ts';
import type { FreePageChannel } from '../migration/machine.ts';
import type { Ram } from '../migration/ram.ts';
import { SlotBitmap } from '../migration/slot-bitmap.ts';
import { VmError } from './errors.ts';

interface Channel {
  /** The profiles that have it, the one to take first. */
  readonly profiles: readonly ProfileName[];
  readonly way: FreePageWay;
}

/** By the names that commands and benchmarks use; `none` is beside them. */
export const FREE_PAGE_CHANNELS = {
  'unused-bitmap': { profiles: ['page-bitmap'], way: 'request' },
  order: { profiles: ['page-order'], way: 'request' },
  range: { profiles: ['page-range'], way: 'request' },
  chunks: { profiles: ['page-chunks'], way: 'request' },
  hint: { profiles: ['virtio', 'sg'], way: 'session' },
  hinting: { profiles: ['hinting'], way: 'reports' },
  reporting: { profiles: ['virtio'], way: 'reports' },
} as const satisfies Record<string, Channel>;

export type ChannelName = keyof typeof FREE_PAGE_CHANNELS | 'none' | 'auto';

export const CHANNEL_NAMES = ['auto', 'none', ...Object.keys(FREE_PAGE_CHANNELS)] as readonly ChannelName[];

/**
 * The ways of channel `name` in a guest that speaks `profile`: none for `none`, and for `auto` all that it has, the best
 * first.
 * @throws VmError when the profile has no such channel
 */
export function waysOf(name: ChannelName, profile: ProfileName): readonly FreePageWay[] {
  if (name === 'none') return [];
  const all = Object.entries<Channel>(FREE_PAGE_CHANNELS).filter(([, { profiles }]) =>
    profiles.includes(profile),
  );
  const found = name === 'auto' ? all : all.filter(([candidate]) => candidate === name);
  if (found.length > 0) return found.map(([, { way }]) => way);
  throw new VmError(
    `a guest that speaks ${profile} has no free page channel ${name}; it has ${all.map(([one]) => one).join(', ')}`,
  );
}

export class MachineChannel implements FreePageChannel {
  readonly pagesTaken: HintedPages;
  readonly #device: DeviceMigration;
  readonly #guest: string;
  readonly #progress = new Int32Array(new SharedArrayBuffer(PROGRESS_WORDS * 4));
  readonly #followed: FollowedPages;

  /** `dirty` loses the pages that the guest names. `ignoreIds` is a test switch: see {@link FollowedPages}. */
  constructor(
    device: DeviceMigration,
    guest: string,
    way: FreePageWay,
    ram: Ram,
    dirty: SlotBitmap,
    ignoreIds = false,
  ) {
    const recent = new SlotBitmap(ram.slots);
    const ever = new SlotBitmap(ram.slots);
    this.#device = device;
    this.#guest = guest;
    this.#followed = {
      way,
      dirty: dirty.words,
      recent: recent.words,
      ever: ever.words,
      progress: this.#progress,
      ignoreIds,
    };
    this.pagesTaken = new HintedPages(ram, dirty, recent, ever);
  }

  /** @throws AerostatError AEROSTAT_GUEST_STATE when the guest's driver does not name pages in this way */
  async open(): Promise<void> {
    await this.#device.follow(this.#guest, this.#followed);
  }

  /** Free pages are not followed any more. */
  async close(): Promise<void> {
    await this.#device.follow(this.#guest, null);
  }

  start(): Promise<void> {
    return this.#device.freePages(this.#guest, 'start');
  }

  stop(): Promise<void> {
    return this.#device.freePages(this.#guest, 'stop');
  }

  done(): Promise<void> {
    return this.#device.freePages(this.#guest, 'done');
  }

  /** Reports come when the guest likes: the migration waits for no more of them. */
  get finished(): boolean {
    return this.#followed.way === 'reports' || Atomics.load(this.#progress, FINISHED_WORD) !== 0;
  }

  get pages(): number {
    return Atomics.load(this.#progress, PAGES_WORD);
  }
}
