/** What an embedded guest is started with. */
import type { ProfileName } from '../balloon/profiles.ts';
import type { DriverTuning } from '../driver/options.ts';
import type { Coverage } from '../guest/contents.ts';
import type { PageState } from '../guest/page-state.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { PageSink } from '../memory/page.ts';
import type { OwnedFd } from '../sys/fd.ts';
import type { UnixSocket } from '../sys/socket.ts';

export const RING_KINDS = ['split', 'packed'] as const;

export type RingKind = (typeof RING_KINDS)[number];

/** Below this there is no room for the kernel's own memory, rings and the lists of every profile. */
export const GUEST_BYTES_MIN = 16 * 2 ** 20;

/** What an embedded guest is made of that its thread did not make itself. */
export interface MachineParts {
  /** The guest's memory, which is the guest's to close. */
  readonly memory?: GuestMemory;
  /** A connection to the device, in place of a path. There is no other device if it is lost. */
  readonly socket?: UnixSocket;
  /** An eventfd that ends the thread's wait. */
  readonly wake?: OwnedFd;
  /** Hears of every page that the guest's own code has written. */
  readonly writeLog?: PageSink;
  /** The guest kernel's, made beforehand. */
  readonly pages?: PageState;
}

/** A guest and its driver as they were saved; see guest/guest.ts and driver/saved-driver.ts. */
export interface SavedGuest {
  readonly guest: Uint8Array;
  readonly driver: Uint8Array;
}

/** `ready`: the driver runs, and commands are taken. `log`: what a kernel would log. */
export type GuestEventName = 'ready' | 'disconnected' | 'reconnected' | 'log';

export interface EmbeddedGuestOptions {
  /** Where the device's back-end listens, unless it is connected already. */
  readonly socketPath?: string;
  /** A multiple of the page size, and of the huge pages' where there are any; {@link GUEST_BYTES_MIN} at least. */
  readonly memoryBytes: number;
  /** The ABI that the driver speaks: the device's. `virtio` unless said otherwise. */
  readonly profile?: ProfileName;
  /** Split unless said otherwise. */
  readonly rings?: RingKind;
  /** Names the whole history of the guest; 1 unless said otherwise. */
  readonly seed?: number;
  /** Takes guest memory from the host's pool of huge pages of this size, in bytes. */
  readonly hugePageSize?: number;
  /** Asks for transparent huge pages. */
  readonly adviseHugePages?: boolean;
  /** In what pages the host holds guest memory, as far as the guest knows: it gives such blocks away first, as wholes. */
  readonly hostPageBytes?: number;
  /** How much of each page is written and checked; edges unless said otherwise. */
  readonly coverage?: Coverage;
  /** Fills every page with this byte when it is freed. */
  readonly poison?: number;
  /** Its allocator is the one that a host may share (profile `shared`). Such a guest is not aged, compacted or saved. */
  readonly lends?: boolean;
  /** Pages that workloads may use in a second; as many as they can unless said otherwise. */
  readonly pagesPerSecondMax?: number;
  readonly driver?: Partial<DriverTuning>;
  /** Takes a sentence for the guest's console. */
  readonly onEvent?: (event: GuestEventName, message: string) => void;
}
