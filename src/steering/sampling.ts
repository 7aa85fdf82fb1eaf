/** From what controls say of guests and host to a sample that the policy decides on. Nothing is guessed, and no clock read. */
import type { HostStatus, StatisticsSample } from '../control/contract.ts';
import type { GuestSample, GuestStatistics, HostSample } from '../policy/types.ts';
import type { SeenGuest } from './guest-source.ts';

/** Undefined for a guest that is not there, and so holds nothing. */
export function guestSample({ name, status, sample, epoch }: SeenGuest): GuestSample | undefined {
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
    statistics: sample === undefined || sample.ageMs === null ? null : statisticsOf(sample),
  };
}

function statisticsOf({ statistics, balloonedBytes }: StatisticsSample): GuestStatistics {
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
  };
}

/** Undefined where the host does not say how much memory it has: then nothing can be decided. */
export function hostSample(host: HostStatus, reservedBytes: number): HostSample | undefined {
  const { totalBytes, availableBytes } = host;
  if (totalBytes === null || availableBytes === null) return undefined;
  return { totalBytes, availableBytes, freeBytes: availableBytes, reservedBytes };
}
