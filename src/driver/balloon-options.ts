/** What a driver is made with; and what a running balloon is made of: what probing found, and what the guest wants. */
import type { HintResponderState } from '../balloon/hint-session.ts';
import type { Profile } from '../balloon/profiles.ts';
import type { KernelMemory } from '../memory/kernel-memory.ts';
import type { VirtioTransport } from '../virtio/transport.ts';
import type { DriverMemory } from './driver-memory.ts';
import type { DriverRing, RingWorld } from './driver-ring.ts';
import type { DriverTuning } from './options.ts';
import type { Scheduler } from './scheduler.ts';

export interface BalloonDriverOptions extends Partial<DriverTuning> {
  readonly kernel: KernelMemory;
  /** Stays the caller's to close. */
  readonly transport: VirtioTransport;
  readonly scheduler: Scheduler;
  readonly profile: Profile;
}

export interface BalloonOptions {
  readonly kernel: KernelMemory;
  readonly profile: Profile;
  readonly tuning: DriverTuning;
  readonly world: RingWorld;
  /** What was negotiated. */
  readonly features: bigint;
  /** One ring for each role that the features bring. */
  readonly rings: readonly DriverRing[];
  readonly memory: DriverMemory;
  /** What a driver left that was saved, and goes on here with the account of its last host. */
  readonly former?: { readonly hints: HintResponderState | null };
  /** Something moved: a good moment to look whether what one waits for has come. */
  readonly onProgress: () => void;
  /** The device broke the protocol or cannot be reached. Nothing is done any more. */
  readonly onBroken: (error: Error) => void;
}
