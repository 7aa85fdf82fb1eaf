/** What a migration asks of a hosted guest's device: its account, its state, and the free pages that the guest names. */
import type { DataThread } from './data-thread.ts';
import type { BalloonedRegion, FollowedPages, FreePageCommand } from './free-pages.ts';

/** @throws UnknownGuestError each of them */
export interface DeviceMigration {
  balloon(name: string): Promise<readonly BalloonedRegion[]>;
  /** Maps the guest's memory before it is needed: while the guest stands still it would be waited for. */
  mapMemory(name: string): Promise<void>;
  /** Saves the device of a guest whose rings have stopped. */
  save(name: string): Promise<Uint8Array>;
  /** @throws AerostatError AEROSTAT_DEVICE_STATE when it was not saved by us, or not for this guest's memory */
  load(name: string, saved: Uint8Array): Promise<void>;
  /** Where free pages that the guest names are noted from the next start on; null for nowhere. */
  follow(name: string, followed: FollowedPages | null): Promise<void>;
  freePages(name: string, step: FreePageCommand): Promise<void>;
}

/** Asks the thread of each guest, which `threadOf` knows. */
export const deviceMigration = (threadOf: (name: string) => DataThread): DeviceMigration => ({
  balloon: async name => threadOf(name).ask('balloon', { name }),
  mapMemory: async name => void (await threadOf(name).ask('mapMemory', { name })),
  save: async name => threadOf(name).ask('saveDevice', { name }),
  load: async (name, saved) => void (await threadOf(name).ask('loadDevice', { name, saved })),
  follow: async (name, followed) => void (await threadOf(name).ask('followFreePages', { name, followed })),
  freePages: async (name, step) => void (await threadOf(name).ask('freePages', { name, step })),
});
