/** What keeps descriptors of guests beyond the life of a daemon, whichever it is. */
import type { OwnedFd } from '../sys/fd.ts';
import type { DescriptorKeeper } from './kept-guest.ts';

/** `process`: an aerostat keep. `manager`: a service manager that stores descriptors. */
export type KeeperKind = 'process' | 'manager';

export interface GuestsKeeper {
  /** What keeps those of a guest, of which it has `kept` already. */
  of(guest: string, kept?: ReadonlyMap<number, OwnedFd>): DescriptorKeeper;
  /** Nothing of the guest is to be kept any more. */
  clear(guest: string): void;
  /** All that it was told is out of this process. */
  readonly hasAll: boolean;
}
