/**
 * Virtio feature bits that belong to no device type (VIRTIO 1.4, section 6), as masks of a 64-bit set, and names
 * for printing any set. Device types and transports keep bits of their own, in the same shape.
 */

const bit = (index: number): bigint => 1n << BigInt(index);

/** Legacy: interrupt when the available ring runs empty, even where the driver asked for none. */
export const NOTIFY_ON_EMPTY = bit(24);
/** Legacy: no assumption about how buffers are cut into descriptors. */
export const ANY_LAYOUT = bit(27);
export const RING_INDIRECT_DESC = bit(28);
export const RING_EVENT_IDX = bit(29);
export const VERSION_1 = bit(32);
export const ACCESS_PLATFORM = bit(33);
export const RING_PACKED = bit(34);
export const IN_ORDER = bit(35);
export const ORDER_PLATFORM = bit(36);
export const SR_IOV = bit(37);
export const NOTIFICATION_DATA = bit(38);
export const NOTIF_CONFIG_DATA = bit(39);
export const RING_RESET = bit(40);
export const ADMIN_VQ = bit(41);

/** What the queues of this room know how to do, device side and driver side. */
export const RING_FEATURES: bigint = RING_INDIRECT_DESC | RING_EVENT_IDX | RING_PACKED | IN_ORDER;

export const hasFeature = (features: bigint, mask: bigint): boolean => (features & mask) !== 0n;

/** Names by mask, in lower case with dashes. */
export type FeatureNames = ReadonlyMap<bigint, string>;

const NAMES: FeatureNames = new Map([
  [NOTIFY_ON_EMPTY, 'notify-on-empty'],
  [ANY_LAYOUT, 'any-layout'],
  [RING_INDIRECT_DESC, 'ring-indirect-desc'],
  [RING_EVENT_IDX, 'ring-event-idx'],
  [VERSION_1, 'version-1'],
  [ACCESS_PLATFORM, 'access-platform'],
  [RING_PACKED, 'ring-packed'],
  [IN_ORDER, 'in-order'],
  [ORDER_PLATFORM, 'order-platform'],
  [SR_IOV, 'sr-iov'],
  [NOTIFICATION_DATA, 'notification-data'],
  [NOTIF_CONFIG_DATA, 'notif-config-data'],
  [RING_RESET, 'ring-reset'],
  [ADMIN_VQ, 'admin-vq'],
]);

/**
 * Names of the bits in `features`, lowest first. A bit is looked up in the tables of the device type and transport
 * that are given, then among the ones above; one without a name there is called `bit-N`.
 */
export function featureNames(features: bigint, ...tables: readonly FeatureNames[]): string[] {
  const names: string[] = [];
  for (let index = 0; index < 64; index++) {
    const mask = bit(index);
    if (!hasFeature(features, mask)) continue;
    const table = [...tables, NAMES].find(candidate => candidate.has(mask));
    names.push(table?.get(mask) ?? `bit-${index}`);
  }
  return names;
}
