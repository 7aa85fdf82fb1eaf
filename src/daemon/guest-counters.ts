/** What is known of a device and its memory, in the figures that the control plane shows. */
import type { BalloonDevice } from '../device/balloon-device.ts';
import { FileBacking } from '../memory/backing.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { GuestCounters } from './control.ts';

/** Totals of the conversation rather than of the device. */
export interface ConversationCounters {
  badRequests: number;
  connections: number;
}

export function guestCounters(device: BalloonDevice, conversation: ConversationCounters): GuestCounters {
  const { counters, inflation, reporting, accounts } = device;
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
    discardMs: discards.ms + reporting.totals.ms,
    discardTimes: discardTimes.durations,
    acknowledgeTimes: counters.acknowledgeTimes.durations,
  };
}

/** What the host holds for the guest: regions that show the same file count it once. */
export function residentBytes(memory: GuestMemory): number {
  const files = new Map<string, number>();
  for (const { backing } of memory.regions) {
    if (backing instanceof FileBacking) files.set(backing.identity, backing.residentBytes());
  }
  return [...files.values()].reduce((total, bytes) => total + bytes, 0);
}
