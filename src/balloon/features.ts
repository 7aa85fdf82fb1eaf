/**
 * Feature bits of the balloon device, as masks, and which of them each generation of its ABI knows. Bits 3 to
 * 6 changed meaning from one generation to the next, so a mask says little without a profile: profiles.ts
 * puts them together. Transport and ring features (bits 24 and up) are the virtio room's.
 */

/** What a virtqueue of the balloon is for; its number depends on what was negotiated (profiles.ts). */
export type QueueRole =
  | 'inflate'
  | 'deflate'
  | 'stats'
  | 'hint'
  | 'request'
  | 'reporting'
  | 'hinting'
  | 'shared';

export interface BalloonFeature {
  /** Kebab case, as it is shown to people and taken from them. */
  readonly name: string;
  readonly mask: bigint;
  /** The virtqueue that comes with the feature. */
  readonly queue: QueueRole | null;
}

const feature = (bit: number, name: string, queue: QueueRole | null = null): BalloonFeature => ({
  name,
  mask: 1n << BigInt(bit),
  queue,
});

// Every generation (VIRTIO 1.4, 5.5.3).
/** The driver touches no inflated page again before the device acknowledged its deflation. */
export const MUST_TELL_HOST = 1n << 0n;
export const STATS_VQ = 1n << 1n;
/** The driver may take pages back by itself when the guest is out of memory. */
export const DEFLATE_ON_OOM = 1n << 2n;

// The standard's own.
export const FREE_PAGE_HINT = 1n << 3n;
export const PAGE_POISON = 1n << 4n;
export const PAGE_REPORTING = 1n << 5n;

// Drafts of 2026, which both claim bit 6.
/** The device makes reported pages zeros, and says of how many bytes by the buffer's used length. */
export const DEVICE_INIT_REPORTED = 1n << 6n;
/** The device makes inflated pages zeros, and says of which by a bitmap that the driver has room for in its list. */
export const DEVICE_INIT_ON_INFLATE = 1n << 7n;
/** The driver keeps a hinted block out of use until its buffer is back, so that the device may change it. */
export const HINT_WAIT_ON_ACK = 1n << 6n;

// The proposals'. Bit 3 always meant a page list of the proposal's own, bit 4 a queue for free pages.
export const PAGE_LIST = 1n << 3n;
export const FREE_PAGE_QUEUE = 1n << 4n;
export const HINTING = 1n << 5n;

export const COMMON_FEATURES: readonly BalloonFeature[] = [
  feature(0, 'must-tell-host'),
  feature(1, 'stats-vq', 'stats'),
  feature(2, 'deflate-on-oom'),
];

export const STANDARD_FEATURES: readonly BalloonFeature[] = [
  feature(3, 'free-page-hint', 'hint'),
  feature(4, 'page-poison'),
  feature(5, 'page-reporting', 'reporting'),
];

export const DEVICE_INIT_FEATURES: readonly BalloonFeature[] = [
  ...STANDARD_FEATURES,
  feature(6, 'device-init-reported'),
  feature(7, 'device-init-on-inflate'),
];

export const HINT_ACK_FEATURES: readonly BalloonFeature[] = [
  ...STANDARD_FEATURES,
  feature(6, 'hint-wait-on-ack'),
];

/** Ours, an experiment: the last of the first bits that are a device's own (VIRTIO 1.4, 2.2). */
export const SHARED_FEATURES: readonly BalloonFeature[] = [
  ...STANDARD_FEATURES,
  feature(23, 'shared-allocator', 'shared'),
];

export const HINTING_FEATURES: readonly BalloonFeature[] = [feature(5, 'hinting', 'hinting')];

/** The two features of a proposal: its page list, and its queue for free pages. */
export const proposedFeatures = (
  listName: string,
  queueName: string,
  queue: QueueRole,
): readonly BalloonFeature[] => [feature(3, listName), feature(4, queueName, queue)];
