/** What chance chooses for a simulated machine: its ABI, rings, memory, what the host offers, how the driver is tuned. */
import { PROFILE_NAMES, type ProfileName, profile } from '../balloon/profiles.ts';
import type { DriverTuning } from '../driver/options.ts';
import type { Random } from '../guest/random.ts';
import {
  IN_ORDER,
  RING_EVENT_IDX,
  RING_FEATURES,
  RING_INDIRECT_DESC,
  RING_PACKED,
  VERSION_1,
} from '../virtio/features.ts';

/** The profiles that simulated guests speak. Their kernel cannot lend its allocator: of `shared` it has what `virtio` has. */
export const SIM_PROFILES = PROFILE_NAMES.filter(name => name !== 'shared');

/** What chance chose for a machine. */
export interface MachinePlan {
  /** Other threads discard, and nothing of the device waits for them. */
  readonly discardsElsewhere: boolean;
  readonly profile: ProfileName;
  readonly sizeMiB: number;
  /** Guest memory is in two regions, with a gap between them. */
  readonly twoRegions: boolean;
  readonly hugePages: boolean;
  readonly poison: number | undefined;
  /** The guest's memory is in two zones. */
  readonly twoZones: boolean;
  readonly offered: bigint;
  readonly tuning: Partial<DriverTuning>;
}

export function planMachine(random: Random, only?: ProfileName): MachinePlan {
  const pick = <T>(items: readonly T[]): T => items[random.below(items.length)];
  const chosen = pick(SIM_PROFILES);
  const name = only ?? chosen;
  const abi = profile(name);
  // One feature is often missing, and the rings' are any.
  const missing = random.chance(0.5) ? pick(abi.features).mask : 0n;
  const ringFeatures = [RING_EVENT_IDX, RING_INDIRECT_DESC, RING_PACKED, IN_ORDER].reduce(
    (mask, feature) => (random.chance(0.5) ? mask | feature : mask),
    0n,
  );
  return {
    profile: name,
    sizeMiB: 8 * random.between(1, 4),
    twoRegions: random.chance(0.25),
    hugePages: random.chance(0.25),
    poison: random.chance(0.2) ? pick([0, 0xaa]) : undefined,
    twoZones: random.chance(0.25),
    offered: (abi.featureMask & ~missing) | VERSION_1 | RING_FEATURES,
    tuning: {
      ringFeatures,
      queueSizeMax: pick([8, 32, 256]),
      pfnsPerBuffer: pick([16, 256]),
      depth: pick([null, 1, 3]),
      sort: pick([null, true, false]),
      orderMax: pick([null, 0, 4]),
      oomPages: pick([16, 256]),
      reportingPipelined: random.chance(0.5),
    },
    discardsElsewhere: random.chance(0.5),
  };
}
