/**
 * The generations of the balloon's ABI. A device is made with one profile, never with a mixture of bits: bits 3
 * to 6 mean something else in each. A new ABI is a file under formats/ and a line in the table below; device and
 * driver read everything that they need to know from here.
 */
import { AerostatError } from '../sys/error.ts';
import { CONFIG_BYTES_BASE, CONFIG_BYTES_HINT, CONFIG_BYTES_POISON } from './config-space.ts';
import {
  type BalloonFeature,
  COMMON_FEATURES,
  DEVICE_INIT_FEATURES,
  DEVICE_INIT_ON_INFLATE,
  DEVICE_INIT_REPORTED,
  HINT_ACK_FEATURES,
  HINT_WAIT_ON_ACK,
  HINTING_FEATURES,
  PAGE_LIST,
  PAGE_POISON,
  proposedFeatures,
  type QueueRole,
  SHARED_FEATURES,
  STANDARD_FEATURES,
} from './features.ts';
import { addressOrOrder } from './formats/address-or-order.ts';
import { pageBitmap } from './formats/page-bitmap.ts';
import { pageChunks } from './formats/page-chunks.ts';
import { pageHeads, pageOrder } from './formats/page-order.ts';
import { pageRange } from './formats/page-range.ts';
import { pfnArray } from './formats/pfn-array.ts';
import { extents, sg } from './formats/sg.ts';
import type { PageListFormat } from './page-list-format.ts';
import { bitmapRequests, miscRequests, type RequestProtocol, responseRequests } from './request-messages.ts';

/** How the guest tells which pages it does not use, where its queue was negotiated. */
type FreePageChannel =
  /** Sessions of hints on queue `hint`; `hasDone` where the host can end one with DONE (hint-session.ts). */
  | { readonly kind: 'session'; readonly format: PageListFormat; readonly hasDone: boolean }
  /** Answers to requests on queue `request`, in the profile's own page list format. */
  | { readonly kind: 'request'; readonly format: PageListFormat; readonly protocol: RequestProtocol }
  /** Blocks on queue `hinting`, isolated until their buffer comes back. */
  | { readonly kind: 'hinting'; readonly format: PageListFormat };

interface ZeroingFeatures {
  /** The bit by which the used length of a report says how much of it is zeros. */
  readonly reported: bigint;
  /** The bit by which a bitmap behind an inflation's list says which of its pages are zeros. */
  readonly inflated: bigint;
}

export interface Profile {
  readonly name: string;
  /** Who proposed it, and when. */
  readonly origin: string;
  /** Every balloon feature that the profile knows, in rising order of bits: that is the order of the queues. */
  readonly features: readonly BalloonFeature[];
  /** All of their masks. */
  readonly featureMask: bigint;
  /** What inflate and deflate buffers hold once {@link formatFeature} was negotiated; page frame numbers else. */
  readonly format: PageListFormat;
  /** The bit that switches {@link format} on; 0 where there is nothing to switch. */
  readonly formatFeature: bigint;
  /** The bit by which a driver says that it fills its free pages with a value of its own; 0 where there is none. */
  readonly poisonFeature: bigint;
  /** What the device says of pages that it made zeros; each 0 where the profile has nothing of the kind. */
  readonly zeroing: ZeroingFeatures;
  /** The bit by which the driver promises to keep hinted blocks out of use until their buffers are back; 0 without it. */
  readonly hintAckFeature: bigint;
  readonly freePages: FreePageChannel;
  /** Size of the configuration space. */
  readonly configBytes: number;
}

type Proposal = Pick<Profile, 'origin' | 'format' | 'freePages'> & {
  readonly configBytes?: number;
  readonly features: readonly BalloonFeature[];
};

const session = (hasDone: boolean): FreePageChannel => ({ kind: 'session', format: extents, hasDone });

const requests = (format: PageListFormat, protocol: RequestProtocol): FreePageChannel => ({
  kind: 'request',
  format,
  protocol,
});

// biome-ignore format: a table, one line an ABI
const TABLE = {
  virtio: { origin: 'VIRTIO 1.2 to 1.4, Linux 5.7', features: STANDARD_FEATURES, format: pfnArray, freePages: session(true), configBytes: CONFIG_BYTES_POISON },
  'page-bitmap': { origin: 'Liang Li v3, 10/2016', features: proposedFeatures('page-bitmap', 'misc-vq', 'request'), format: pageBitmap, freePages: requests(pageBitmap, bitmapRequests) },
  'page-order': { origin: 'Liang Li v5, 11/2016', features: proposedFeatures('page-bitmap', 'host-req-vq', 'request'), format: pageOrder, freePages: requests(pageHeads, responseRequests) },
  'page-range': { origin: 'Liang Li v6, 12/2016', features: proposedFeatures('page-range', 'host-req-vq', 'request'), format: pageRange, freePages: requests(pageRange, responseRequests) },
  'page-chunks': { origin: 'Wei Wang v10, 5/2017', features: proposedFeatures('page-chunks', 'misc-vq', 'request'), format: pageChunks, freePages: requests(pageChunks, miscRequests) },
  sg: { origin: 'Wei Wang v18 to v21, 11/2017 to 1/2018', features: proposedFeatures('sg', 'free-page-vq', 'hint'), format: sg, freePages: session(false), configBytes: CONFIG_BYTES_HINT },
  hinting: { origin: 'Alexander Duyck v1, 6/2019', features: HINTING_FEATURES, format: pfnArray, freePages: { kind: 'hinting', format: addressOrOrder } },
  'device-init': { origin: 'Michael S. Tsirkin v3, 5/2026', features: DEVICE_INIT_FEATURES, format: pfnArray, freePages: session(true), configBytes: CONFIG_BYTES_POISON },
  'hint-ack': { origin: 'Jack Thomson RFC, 1/2026', features: HINT_ACK_FEATURES, format: pfnArray, freePages: session(true), configBytes: CONFIG_BYTES_POISON },
  shared: { origin: 'Aerostat, an experiment after HyperAlloc (EuroSys 2025)', features: SHARED_FEATURES, format: pfnArray, freePages: session(true), configBytes: CONFIG_BYTES_POISON },
} as const satisfies Readonly<Record<string, Proposal>>;

export type ProfileName = keyof typeof TABLE;

export const PROFILE_NAMES = Object.keys(TABLE) as readonly ProfileName[];

/** Drafts and experiments that extend the standard. No released kernel takes their bits. */
export const DRAFT_NAMES: readonly ProfileName[] = ['device-init', 'hint-ack', 'shared'];

export const DEFAULT_PROFILE: ProfileName = 'virtio';

function complete(name: ProfileName): Profile {
  const row: Proposal = TABLE[name];
  const features = [...COMMON_FEATURES, ...row.features];
  return {
    configBytes: CONFIG_BYTES_BASE,
    ...row,
    name,
    features,
    featureMask: features.reduce((mask, feature) => mask | feature.mask, 0n),
    formatFeature: row.format === pfnArray ? 0n : PAGE_LIST,
    poisonFeature: row.features.some(({ name }) => name === 'page-poison') ? PAGE_POISON : 0n,
    zeroing:
      row.features === DEVICE_INIT_FEATURES
        ? { reported: DEVICE_INIT_REPORTED, inflated: DEVICE_INIT_ON_INFLATE }
        : { reported: 0n, inflated: 0n },
    hintAckFeature: row.features === HINT_ACK_FEATURES ? HINT_WAIT_ON_ACK : 0n,
  };
}

const PROFILES = new Map<string, Profile>(PROFILE_NAMES.map(name => [name, complete(name)]));

/** @throws AerostatError AEROSTAT_PROFILE for a name that is not in {@link PROFILE_NAMES} */
export function profile(name: string): Profile {
  const found = PROFILES.get(name);
  if (found !== undefined) return found;
  throw new AerostatError(
    'AEROSTAT_PROFILE',
    `no balloon ABI is called ${name}; there are ${PROFILE_NAMES.join(', ')}`,
  );
}

/**
 * What each virtqueue is for, by its number. Numbers are dense: a queue whose feature was not negotiated has
 * none, and those after it move up. Linux counts so (the standard's fixed numbers wedge its guests).
 */
export function queueRoles(profile: Profile, negotiated: bigint): readonly QueueRole[] {
  const roles: QueueRole[] = ['inflate', 'deflate'];
  for (const { mask, queue } of profile.features) {
    if (queue !== null && (negotiated & mask) !== 0n) roles.push(queue);
  }
  return roles;
}

/** What inflate and deflate buffers hold under the negotiated features. */
export const listFormat = (profile: Profile, negotiated: bigint): PageListFormat =>
  (negotiated & profile.formatFeature) === profile.formatFeature ? profile.format : pfnArray;

/** Names of the balloon features in `mask`; bits of the transport and the rings are left out. */
export const profileFeatureNames = (profile: Profile, mask: bigint): string[] =>
  profile.features.filter(feature => (mask & feature.mask) !== 0n).map(feature => feature.name);
