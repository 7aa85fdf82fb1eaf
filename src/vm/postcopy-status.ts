/** What is said of a guest that runs at its destination before all of its pages are there, on either side. */
import type { MigrationStatus, PostcopyState } from '../control/migrations.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { PostcopyProgress } from '../migration/postcopy-source.ts';
import type { Vm } from './vm.ts';

const US_PER_MS = 1000;

export const postcopyStateOf = (progress: PostcopyProgress): PostcopyState => ({
  missingBytes: progress.latePages * PAGE_SIZE,
  faults: progress.faults,
  longestFaultMs: progress.longestUs / US_PER_MS,
  recoveries: progress.recoveries,
  broken: progress.broken,
});

/** Where pages of it are still to come to this side; undefined where all are there. */
export function arrivingStatus(vm: Vm): MigrationStatus | undefined {
  const arrival = vm.arrival();
  if (arrival === undefined || arrival.missingPages === 0) return undefined;
  const { missingPages, connected, faults, longestUs } = arrival;
  const broken = connected
    ? null
    : 'the source is gone; it comes back by itself, or by aerostat migrate --recover there';
  return {
    to: null,
    state: {
      status: connected ? 'post-copy' : 'post-copy-paused',
      elapsedMs: 0,
      round: null,
      totalBytes: vm.memoryBytes,
      sentBytes: null,
      remainingBytes: missingPages * PAGE_SIZE,
      bytesPerSecond: null,
      expectedDowntimeMs: null,
      guestShare: null,
      postcopy: {
        missingBytes: missingPages * PAGE_SIZE,
        faults,
        longestFaultMs: longestUs / US_PER_MS,
        recoveries: 0,
        broken,
      },
    },
    report: null,
    error: null,
  };
}

export const arrivingObstacle = (name: string): string =>
  `pages of ${name} are still on their way here; it can be moved when all have come`;
