/** Counters of the guest kernel since boot, as in /proc/vmstat; the balloon's statistics come from here. */
export class VmEvents {
  minorFaults = 0;
  majorFaults = 0;
  /** Processes ended for want of memory. */
  oomKills = 0;
  /** Allocations that had to reclaim by themselves. */
  allocStalls = 0;
  /** Allocations that failed though their caller had not said that it expects it. */
  allocFailures = 0;
  /** Pages looked at and pages freed, by the background and by allocations themselves. */
  asyncScans = 0;
  asyncReclaims = 0;
  directScans = 0;
  directReclaims = 0;
  writebacks = 0;
  compactions = 0;
  /** Pages that compaction moved, and those whose owner refused. */
  pagesMigrated = 0;
  migrationsRefused = 0;
  /** Free pages that did not hold the poison when they were handed out. */
  poisonFaults = 0;
}

/** All of them, in a fixed order. */
export const VM_EVENTS = Object.keys(new VmEvents()) as readonly (keyof VmEvents)[];

export type VmEventCounts = { readonly [Name in keyof VmEvents]: number };
