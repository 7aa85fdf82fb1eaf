/**
 * How driver and device come to terms, one status bit after the other (VIRTIO 1.4, 3.1.1). The rings between the
 * features and the last bit are ring-setup.ts's; what is taken of the features is negotiation.ts's to say.
 */
import { CONFIG } from '../balloon/config-space.ts';
import type { Profile } from '../balloon/profiles.ts';
import { DEVICE_STATUS, type VirtioTransport } from '../virtio/transport.ts';
import type { DriverRing } from './driver-ring.ts';
import { DriverProbeError } from './errors.ts';
import { negotiate, type Wishes } from './negotiation.ts';

const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, FAILED } = DEVICE_STATUS;

/**
 * From the reset to FEATURES_OK; returns the features.
 * @throws DriverProbeError when the device does not agree
 */
export async function agree(transport: VirtioTransport, profile: Profile, wishes: Wishes): Promise<bigint> {
  await transport.reset();
  await transport.writeStatus(ACKNOWLEDGE);
  await transport.writeStatus(ACKNOWLEDGE | DRIVER);
  const features = negotiate(profile, await transport.getFeatures(), wishes);
  await transport.setFeatures(features);
  await transport.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
  if (((await transport.readStatus()) & FEATURES_OK) !== 0) return features;
  throw new DriverProbeError(`${transport.description} refused the features 0x${features.toString(16)}`);
}

/** What was agreed on with the last device, which had the same features, told to the one that goes on for it. */
export async function agreeAgain(
  transport: VirtioTransport,
  features: bigint,
  rings: readonly DriverRing[],
): Promise<void> {
  // In this order, and none waits for the answer to another: the guest stands still.
  await Promise.all([
    transport.writeStatus(ACKNOWLEDGE | DRIVER),
    transport.setFeatures(features),
    transport.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK),
    ...rings.map(ring => transport.enableQueue(ring.index, ring.config, ring.base)),
  ]);
}

/** Before DRIVER_OK (docs/conformance.md, D25). The value is the guest's fill byte, in all four places, and never changes (D26). */
export function writePoison(transport: VirtioTransport, poison: number): Promise<void> {
  return transport.writeConfig(CONFIG.offset.poisonValue, new Uint8Array(4).fill(poison));
}

/** The rings are known to the device, and it may use them. */
export function goLive(transport: VirtioTransport): Promise<void> {
  return transport.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

/** The driver gives up; a device that cannot be told knows it already. */
export async function giveUp(transport: VirtioTransport): Promise<void> {
  await transport.writeStatus(FAILED).catch(() => {});
}
