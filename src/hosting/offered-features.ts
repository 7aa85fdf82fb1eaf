/** What a guest's device offers: the profile's features and the rings', less what the operator leaves out. */
import { type Profile, profile } from '../balloon/profiles.ts';
import { AerostatError } from '../sys/error.ts';
import { featureNames, IN_ORDER, RING_FEATURES, VERSION_1 } from '../virtio/features.ts';

interface Offer {
  readonly profile: Profile;
  /** Balloon features. */
  readonly balloon: bigint;
  /** Ring features, and VERSION_1. */
  readonly rings: bigint;
}

/** Ring features by the names that they are left out by. */
const RING_FEATURE_BY_NAME: ReadonlyMap<string, bigint> = new Map(
  Array.from({ length: 64 }, (_, index) => 1n << BigInt(index))
    .filter(mask => (RING_FEATURES & mask) !== 0n)
    .map(mask => [featureNames(mask)[0], mask]),
);

/** A guest's buffer for requests is kept while answers come and go, so such a queue cannot be in order. */
const ringFeaturesOf = ({ freePages }: Profile): bigint =>
  freePages.kind === 'request' ? RING_FEATURES & ~IN_ORDER : RING_FEATURES;

/**
 * The mask of a feature that can be left out, by its name or, in the profile, by that of its queue
 * (`page-reporting` or `reporting`).
 * @throws AerostatError AEROSTAT_FEATURE
 */
export function removableFeature(abi: Profile, name: string): bigint {
  const known = abi.features.find(feature => feature.name === name || feature.queue === name);
  const mask = known?.mask ?? RING_FEATURE_BY_NAME.get(name);
  if (mask !== undefined) return mask;
  const names = [...abi.features.map(feature => feature.name), ...RING_FEATURE_BY_NAME.keys()].join(', ');
  throw new AerostatError(
    'AEROSTAT_FEATURE',
    `profile ${abi.name} has no feature ${name} to leave out; it has ${names}`,
  );
}

/** What the next daemon would have to know of a guest and does not: which of its allocator's frames are held. */
const notKept = ({ features }: Profile): bigint =>
  features.reduce((mask, { queue, mask: own }) => (queue === 'shared' ? mask | own : mask), 0n);

/**
 * `kept`: the guest outlives its daemon.
 * @throws AerostatError AEROSTAT_PROFILE or AEROSTAT_FEATURE for unknown names
 */
export function offeredFeatures(profileName: string, without: readonly string[], kept = false): Offer {
  const abi = profile(profileName);
  const left = without.reduce((mask, name) => mask | removableFeature(abi, name), kept ? notKept(abi) : 0n);
  return {
    profile: abi,
    balloon: abi.featureMask & ~left,
    rings: (VERSION_1 | ringFeaturesOf(abi)) & ~left,
  };
}
