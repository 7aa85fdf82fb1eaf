/** What the fake control answers where a test says nothing: plausible figures of a host, a daemon and a guest. */
import type { DaemonStatus, GuestCounters, GuestStatistics, HostStatus } from '../../src/control/contract.ts';
import { encodeShares, type MemoryMap } from '../../src/control/memory-map.ts';
import type { MigrationStatus } from '../../src/control/migrations.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

export const COUNTERS: GuestCounters = {
  buffers: 20,
  inflateBuffers: 8,
  deflateBuffers: 2,
  reportingBuffers: 4,
  hintBuffers: 1,
  statsBuffers: 5,
  acknowledgeTimes: { counts: [0, 0, 1, 2, 4, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], sumMs: 1.25 },
  listBytes: 8192,
  pages: 2048,
  deflatedPages: 512,
  reportedPages: 1024,
  hintedPages: 0,
  keptPages: 16,
  runs: 12,
  punches: 12,
  punchFailures: 0,
  hugePagesCut: 0,
  discardMs: 1.5,
  discardTimes: { counts: [0, 0, 0, 0, 0, 4, 4, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], sumMs: 1.5 },
  notifications: 9,
  kicks: 11,
  badBuffers: 0,
  badPages: 0,
  unknownPages: 0,
  badRequests: 0,
  brokenRings: 0,
  resets: 1,
  connections: 1,
};

export const STATISTICS: GuestStatistics = {
  swapInBytes: 0,
  swapOutBytes: 0,
  majorFaults: 31,
  minorFaults: 123_456,
  freeBytes: 3 * GIB,
  totalBytes: 4 * GIB,
  availableBytes: 3.5 * GIB,
  cacheBytes: 200 * MIB,
  hugetlbAllocations: null,
  hugetlbFailures: null,
  oomKills: 0,
  allocationStalls: null,
  asyncScannedPages: null,
  directScannedPages: null,
  asyncReclaimedPages: null,
  directReclaimedPages: null,
};

export const HOST: HostStatus = {
  totalBytes: 64 * GIB,
  availableBytes: 40 * GIB,
  sharedBytes: 12 * GIB,
  swapTotalBytes: 0,
  swapFreeBytes: 0,
  pressure: { some10Percent: 0.5, some60Percent: 0.25, full10Percent: 0, full60Percent: 0 },
};

/** A map of four cells, the first half resident and the last ballooned. */
export const MAP: MemoryMap = {
  memoryBytes: 4 * GIB,
  fromBytes: 0,
  bytes: 4 * GIB,
  cellBytes: GIB,
  regions: [{ guestAddress: 0, bytes: 4 * GIB }],
  totals: { resident: 2 * GIB, ballooned: GIB, pending: 0, reported: 0, hinted: null, dirty: null },
  layers: {
    resident: encodeShares(Uint8Array.of(255, 255, 0, 0)),
    ballooned: encodeShares(Uint8Array.of(0, 0, 0, 255)),
    pending: encodeShares(new Uint8Array(4)),
    reported: encodeShares(new Uint8Array(4)),
    hinted: null,
    dirty: null,
  },
  unseenBytes: 0,
  residentAgeMs: 100,
};

export const DAEMON: DaemonStatus = {
  version: '0.1.0',
  pid: 4242,
  startedAtMs: 1_700_000_000_250,
  uptimeMs: 61_000,
  residentBytes: 90 * MIB,
  cpuUserMs: 1500,
  cpuSystemMs: 250,
  gcPauseMaxMs: 1.5,
  descriptors: { open: 60, max: 1024 },
  kept: true,
};

export const MIGRATION: MigrationStatus = {
  to: 'tcp:host2:4444',
  state: {
    status: 'copying',
    elapsedMs: 120,
    round: 2,
    totalBytes: 4 * GIB,
    sentBytes: null,
    remainingBytes: 64 * MIB,
    bytesPerSecond: 1.25e9,
    expectedDowntimeMs: 54,
    guestShare: 1,
  },
  report: null,
  error: null,
};
