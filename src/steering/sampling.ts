/** From what controls say of guests and host to a sample that the policy decides on. Nothing is guessed, and no clock read. */
import type { HostStatus } from '../control/contract.ts';
import type { GuestSample, HostSample, StatisticsRead } from '../policy/types.ts';
import type { SeenGuest } from './guest-source.ts';

const STATISTICS_UNIT_MS = 1000;

/** Undefined for a guest that is not there, and so holds nothing. */
export function guestSample(seen: SeenGuest, atMs: number): GuestSample | undefined {
  const { name, status, epoch } = seen;
  const { connected, memoryBytes, targetBytes, residentBytes, memoryPlace } = status;
  if (!connected || memoryBytes === null || memoryBytes === 0) return undefined;
  const actualBytes = Math.min(memoryBytes, status.actualBytes ?? status.balloonedBytes ?? 0);
  const ballooned = Math.min(actualBytes, status.balloonedBytes ?? actualBytes);
  const givenBytes = Math.max(0, ballooned - (status.pendingBytes ?? 0) - (status.incompleteBytes ?? 0));
  return {
    name,
    memoryBytes,
    targetBytes: targetBytes ?? actualBytes,
    actualBytes,
    givenBytes,
    // Of a file on a disk the figure counts blocks there, not memory.
    residentBytes: memoryPlace === 'disk' ? null : residentBytes,
    epoch,
    statistics: statisticsOf(seen, atMs),
  };
}

/** Null for a guest that has said nothing. */
function statisticsOf({ status, sample, sampledAtMs }: SeenGuest, atMs: number): StatisticsRead | null {
  if (sample === undefined || sample.ageMs === null) return null;
  const { statistics, balloonedBytes, ageMs } = sample;
  return {
    availableBytes: statistics.availableBytes,
    freeBytes: statistics.freeBytes,
    cacheBytes: statistics.cacheBytes,
    swapInBytes: statistics.swapInBytes,
    swapOutBytes: statistics.swapOutBytes,
    majorFaults: statistics.majorFaults,
    minorFaults: statistics.minorFaults,
    oomKills: statistics.oomKills,
    allocationStalls: statistics.allocationStalls,
    balloonedBytes,
    ageMs: ageMs + Math.max(0, atMs - sampledAtMs),
    // A host without our counters is another hypervisor's, which asks its guests every so many whole seconds.
    ...(status.counters === null ? { periodMsMin: STATISTICS_UNIT_MS } : {}),
  };
}

/** What the host holds for a guest, as far as it can tell; else all that the guest has not given back. */
const heldBytes = ({ residentBytes, memoryBytes, givenBytes }: GuestSample): number =>
  Math.max(0, Math.min(memoryBytes, residentBytes ?? memoryBytes - givenBytes));

export interface HostLimits {
  readonly reservedBytes: number;
  /** What the policy may divide, where that is not all of the host's memory. */
  readonly memoryBytes?: number;
}

/** Undefined where the host does not say how much memory it has: then nothing can be decided. */
export function hostSample(
  host: HostStatus,
  guests: readonly GuestSample[],
  { reservedBytes, memoryBytes = Number.POSITIVE_INFINITY }: HostLimits,
): HostSample | undefined {
  if (host.totalBytes === null || host.availableBytes === null) return undefined;
  const totalBytes = Math.min(host.totalBytes, memoryBytes);
  const held = guests.reduce((sum, guest) => sum + heldBytes(guest), 0);
  // Of its part, guests may have what no guest holds, and no more than the host has left.
  const left = memoryBytes < host.totalBytes ? Math.max(0, totalBytes - held) : host.availableBytes;
  const availableBytes = Math.min(left, host.availableBytes);
  return { totalBytes, availableBytes, freeBytes: availableBytes, reservedBytes };
}
