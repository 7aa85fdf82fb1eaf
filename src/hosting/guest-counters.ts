/** What is known of a device and its memory, in the figures that the control plane shows. */
import { profileFeatureNames } from '../balloon/profiles.ts';
import type { GuestCounters, MemoryPlace } from '../control/contract.ts';
import type { BalloonDevice } from '../device/balloon-device.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { featureNames } from '../virtio/features.ts';

/** Totals of the conversation rather than of the device. */
export interface ConversationCounters {
  badRequests: number;
  connections: number;
}

export function guestCounters(device: BalloonDevice, conversation: ConversationCounters): GuestCounters {
  const { inflation, reporting, accounts } = device;
  // Benchmarks ask for the time of decoding by themselves (GuestThreads.decodeMs).
  const { decodeMs: _, ...counters } = device.counters;
  const discards = inflation.discards;
  const punches = discards.punches + reporting.totals.punches;
  const punchFailures = discards.failures + reporting.totals.failures;
  const discardTimes = inflation.discardTimes;
  discardTimes.add(reporting.discardTimes);
  return {
    ...counters,
    ...conversation,
    keptPages: accounts.keptPages,
    runs: punches + punchFailures,
    punches,
    punchFailures,
    hugePagesCut: discards.hugePagesCut + reporting.totals.hugePagesCut,
    discardMs: discards.ms + reporting.totals.ms,
    discardTimes: discardTimes.durations,
    acknowledgeTimes: inflation.acknowledgeTimes.durations,
  };
}

/** What the host holds for the guest: regions that show the same file count it once. */
function residentBytes(memory: GuestMemory): number {
  const files = new Map<string, number>();
  for (const { backing } of memory.regions) {
    const { file } = backing;
    if (file === undefined || files.has(file.identity)) continue;
    files.set(file.identity, backing.residentBytes());
  }
  return [...files.values()].reduce((total, bytes) => total + bytes, 0);
}

function memoryPlace(memory: GuestMemory): MemoryPlace {
  if (memory.regions.some(({ backing }) => backing.file?.onDisk)) return 'disk';
  return memory.regions.some(({ backing }) => backing.kind === 'hugetlb') ? 'huge-pages' : 'memory';
}

/** What of a guest's status is its device's and its memory's alone; `memory` is what its front-end handed over so far. */
export function deviceStatus(device: BalloonDevice, memory: GuestMemory | undefined) {
  const { profile, driverFeatures, accounts, inflation, reporting } = device;
  const hasMemory = memory !== undefined && memory.regions.length > 0;
  // A driver that ran before this connection and names its balloon anew, as ours does, is known again when its word and
  // the account agree.
  const agrees = device.actualKnown && device.actualPages === accounts.balloonedPages;
  const known = agrees || !accounts.partial;
  return {
    profile: profile.name,
    features: [
      ...profileFeatureNames(profile, driverFeatures),
      ...featureNames(driverFeatures & ~profile.featureMask),
    ],
    discard: inflation.mode,
    memoryBytes: hasMemory ? memory.size : null,
    memoryPlace: hasMemory ? memoryPlace(memory) : null,
    memorySealed: hasMemory ? memory.regions.every(({ backing }) => backing.file?.sealed !== false) : null,
    targetBytes: device.targetPages * PAGE_SIZE,
    shownTargetBytes: device.shownTargetPages * PAGE_SIZE,
    actualBytes: device.actualKnown ? device.actualPages * PAGE_SIZE : null,
    balloonedBytes: known ? accounts.balloonedPages * PAGE_SIZE : null,
    incompleteBytes: known ? accounts.incompletePages * PAGE_SIZE : null,
    removedBytes: accounts.removedPages * PAGE_SIZE,
    granularityBytes: inflation.granularityPages * PAGE_SIZE,
    pendingBytes: accounts.pendingPages * PAGE_SIZE,
    discardedBytes: inflation.discards.bytes,
    reportedBytes: reporting.totals.bytes,
    residentBytes: hasMemory ? residentBytes(memory) : null,
  };
}
