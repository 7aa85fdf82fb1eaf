/** What a running balloon is made of: what probing found, and what the guest wants. */
import type { HintResponderState } from '../balloon/hint-session.ts';
import type { Profile } from '../balloon/profiles.ts';
import type { GuestKernel } from '../guest/kernel.ts';
import type { DriverMemory } from './driver-memory.ts';
import type { DriverRing, RingWorld } from './driver-ring.ts';
import type { DriverTuning } from './options.ts';

export interface BalloonOptions {
  readonly kernel: GuestKernel;
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
