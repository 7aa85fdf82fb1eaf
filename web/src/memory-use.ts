/**
 * How a guest's memory divides, from two views that were not taken at the same moment: the host's own account, which
 * is exact and now, and the guest's statistics, which are some seconds old. All sizes are bytes and add up.
 */
import type { Guest, StatisticsSample } from './api.ts';

export interface MemoryUse {
  readonly memory: number;
  /** Programs and the kernel, and the page cache, as of the newest statistics that can be used; null if none. */
  readonly used: number | null;
  readonly cache: number | null;
  /** Free in the guest, and yet the host holds memory for it: what a balloon would gain. Null if not known. */
  readonly freeHeld: number | null;
  /** Free in the guest, and the host holds nothing for it: reported, or never touched. */
  readonly freeAway: number | null;
  /** Given away, the pending part included. */
  readonly ballooned: number;
  readonly pending: number;
  readonly resident: number | null;
  /** What the balloon may hold before the guest is short of memory, by its own word; null if it did not say. */
  readonly spare: number | null;
}

/** What the guest itself used when a sample was taken. */
export interface GuestOwn {
  readonly used: number;
  readonly cache: number;
}

/** What the guest used by a sample that was taken while `ballooned` bytes were away; undefined if it does not say. */
export function guestOwn(memory: number, ballooned: number, sample: StatisticsSample): GuestOwn | undefined {
  const { freeBytes, cacheBytes } = sample.statistics;
  if (freeBytes === null) return undefined;
  const cache = cacheBytes ?? 0;
  return { used: Math.max(0, memory - ballooned - freeBytes - cache), cache };
}

export function memoryUse(
  guest: Guest,
  own: GuestOwn | undefined,
  sample: StatisticsSample | undefined,
): MemoryUse | undefined {
  const memory = guest.memoryBytes;
  if (memory === null) return undefined;
  const ballooned = Math.min(guest.balloonedBytes ?? guest.actualBytes ?? 0, memory);
  const pending = Math.min(guest.pendingBytes ?? 0, ballooned);
  const resident = guest.residentBytes;
  const available = sample?.statistics.availableBytes ?? null;
  const base = {
    memory,
    ballooned,
    pending,
    resident,
    spare: available === null ? null : ballooned + available,
  };
  if (own === undefined) return { ...base, used: null, cache: null, freeHeld: null, freeAway: null };
  const left = memory - ballooned;
  const used = Math.min(own.used, left);
  const cache = Math.min(own.cache, left - used);
  const free = left - used - cache;
  // What is pending is ballooned and still held.
  const away = resident === null ? null : Math.max(0, Math.min(free, left + pending - resident));
  return {
    ...base,
    used,
    cache,
    freeHeld: away === null ? free : free - away,
    freeAway: away ?? 0,
  };
}
