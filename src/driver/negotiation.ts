/** Which features the driver takes of those that a device offers: a function of sets, and the rules behind it. */
import { FREE_PAGE_HINT, MUST_TELL_HOST, PAGE_REPORTING, STATS_VQ } from '../balloon/features.ts';
import { type Profile, queueRoles } from '../balloon/profiles.ts';
import { IN_ORDER, RING_FEATURES, VERSION_1 } from '../virtio/features.ts';

export interface Wishes {
  /** Balloon features that may be taken. */
  readonly features: bigint;
  /** Features of the rings that may be taken. */
  readonly ringFeatures: bigint;
  /** The guest counts on its free pages holding what it filled them with. */
  readonly contentsMatter: boolean;
}

/** The bit by which the guest says what its free pages hold; 0 in profiles without it. */
export const poisonFeature = (profile: Profile): bigint =>
  profile.features.find(({ name }) => name === 'page-poison')?.mask ?? 0n;

export function negotiate(profile: Profile, offered: bigint, wishes: Wishes): bigint {
  const poison = poisonFeature(profile);
  let taken = offered & profile.featureMask & wishes.features;
  // D1: to be accepted wherever it is offered.
  taken |= offered & MUST_TELL_HOST;
  if (!wishes.contentsMatter) {
    // D2: there is no value to be written.
    taken &= ~poison;
  } else if ((taken & poison) === 0n) {
    // docs/conformance.md, D3, and what Linux does not do: a host that cannot know what the guest's free pages hold must hear of none of
    // them. A reported page would come back as zeros, and a page that a migration skipped would arrive as zeros.
    taken &= ~freePageFeatures(profile);
  }
  taken &= ~pointless(profile, taken, wishes.contentsMatter);
  let ring = offered & (VERSION_1 | (wishes.ringFeatures & RING_FEATURES));
  // The buffer for requests stays with the host while answers come and go: such a queue is in no order.
  if (queueRoles(profile, taken).includes('request')) ring &= ~IN_ORDER;
  return taken | ring;
}

/** Features that only make sense with another one; and of zeros a guest wants to hear that does not count on something else. */
function pointless({ zeroing, hintAckFeature }: Profile, taken: bigint, contentsMatter: boolean): bigint {
  const zeros = contentsMatter ? zeroing.reported | zeroing.inflated : 0n;
  const reported = (taken & PAGE_REPORTING) === 0n ? zeroing.reported : 0n;
  return zeros | reported | ((taken & FREE_PAGE_HINT) === 0n ? hintAckFeature : 0n);
}

/** The features with which the host hears of pages that are free. */
const freePageFeatures = (profile: Profile): bigint =>
  profile.features.reduce(
    (mask, feature) => (feature.queue === null || feature.mask === STATS_VQ ? mask : mask | feature.mask),
    0n,
  );
