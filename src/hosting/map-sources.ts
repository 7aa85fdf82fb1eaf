/**
 * What a data-plane thread hands out for a map of a guest's memory: the bitmaps themselves, which are shared memory,
 * and a descriptor of each region's file. The thread counts nothing and waits for nothing, so a map that a client
 * looks at costs the guest no more than this message.
 */
import type { PageAccount } from '../device/page-account.ts';
import type { BlockWords } from '../memory/block-bitmap.ts';
import type { MemoryRegion } from '../memory/guest-memory.ts';
import type { PageSet } from '../memory/page-set.ts';
import { AerostatError } from '../sys/error.ts';

export interface RegionSource {
  /** The file and where in it the region lies: what stays the same from one map to the next. */
  readonly identity: string;
  readonly guestAddress: number;
  readonly bytes: number;
  /** 4 KiB pages in a unit of {@link pending}. */
  readonly unitPages: number;
  readonly ballooned: BlockWords;
  readonly reported: BlockWords;
  readonly pending: SharedArrayBuffer;
  /**
   * Its file, opened for the receiver of this message, which closes it; null where the file does not tell what of it
   * the host holds.
   */
  readonly file: { readonly fd: number; readonly fileOffset: number } | null;
}

export interface MapSources {
  /** In rising order of guest address. */
  readonly regions: readonly RegionSource[];
  /** Bitmaps of {@link CHUNK_PAGES} pages each by number. */
  readonly hinted: ReadonlyMap<number, Int32Array>;
}

/** `accounts` are in rising order of their addresses. */
export function mapSources(accounts: readonly PageAccount[], hinted: PageSet): MapSources {
  return {
    regions: accounts.map(regionSource),
    hinted: new Map([...hinted.chunks].map(([number, { words }]) => [number, words])),
  };
}

function regionSource({ region, ballooned, reported, pending, unitPages }: PageAccount): RegionSource {
  const { backing } = region;
  const file = backing.file === undefined ? '' : `${backing.file.identity}+${backing.file.fileOffset}`;
  return {
    identity: `${file}@${region.guestAddress}+${region.size}`,
    guestAddress: region.guestAddress,
    bytes: region.size,
    unitPages,
    ballooned: wordsOf(ballooned),
    reported: wordsOf(reported),
    pending: pending.shared,
    file: openFile(region),
  };
}

/** What can be sent to another thread. */
const wordsOf = ({ counts, words }: BlockWords): BlockWords => ({ counts, words });

function openFile({ backing }: MemoryRegion): RegionSource['file'] {
  // A file of hugetlbfs calls all of itself data, holes included.
  const { file } = backing;
  if (file === undefined || backing.kind !== 'shmem') return null;
  try {
    return { fd: file.fd.reopen().release(), fileOffset: file.fileOffset };
  } catch (error) {
    if (error instanceof AerostatError) return null;
    throw error;
  }
}
