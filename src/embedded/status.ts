/** How an embedded guest is: its driver, its memory, and what both have counted. */
import { profileFeatureNames } from '../balloon/profiles.ts';
import type { DriverState } from '../driver/balloon-driver.ts';
import type { DriverCounters } from '../driver/counters.ts';
import type { MemInfo } from '../guest/meminfo.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { featureNames } from '../virtio/features.ts';
import type { EmbeddedGuest } from './embedded-guest.ts';

export interface EmbeddedStatus {
  readonly profile: string;
  readonly features: readonly string[];
  readonly driver: DriverState;
  readonly connected: boolean;
  /** Times that a back-end took the place of one that was lost. */
  readonly reconnections: number;
  readonly targetBytes: number;
  readonly actualBytes: number;
  /** What the balloon holds, pages on their way to and from the host included. */
  readonly heldBytes: number;
  /** Memory for rings and lists. */
  readonly ownBytes: number;
  /** The guest has no memory to give for now. */
  readonly backingOff: boolean;
  readonly memory: MemInfo;
  readonly workloads: readonly string[];
  readonly counters: Readonly<DriverCounters>;
  readonly vmstat: Readonly<Record<string, number>>;
}

export function embeddedStatusOf({
  driver,
  guest,
  kernel,
  transport,
  connection,
}: EmbeddedGuest): EmbeddedStatus {
  const { profile, features } = driver;
  return {
    profile: profile.name,
    features: [...profileFeatureNames(profile, features), ...featureNames(features & ~profile.featureMask)],
    driver: driver.state,
    connected: transport.connected,
    reconnections: connection.reconnections,
    targetBytes: driver.targetPages * PAGE_SIZE,
    actualBytes: driver.actualPages * PAGE_SIZE,
    heldBytes: driver.heldPages * PAGE_SIZE,
    ownBytes: driver.ownPages * PAGE_SIZE,
    backingOff: driver.backingOff,
    memory: kernel.meminfo(),
    workloads: guest.workloads.map(({ kind }) => kind),
    counters: { ...driver.counters },
    vmstat: { ...kernel.vmstat() },
  };
}
