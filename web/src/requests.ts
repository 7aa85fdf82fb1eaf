/** Whether a guest takes requests, and if not, why. */
import type { GuestStatus } from '../../src/control/contract.ts';

/** The ABIs with a queue for requests, and the feature that brings it: those of src/balloon/profiles.ts. */
export const REQUEST_ABIS: ReadonlyMap<string, string> = new Map([
  ['page-bitmap', 'misc-vq'],
  ['page-order', 'host-req-vq'],
  ['page-range', 'host-req-vq'],
  ['page-chunks', 'misc-vq'],
]);

/** Why it takes none; undefined when it takes them. */
export function requestObstacle({ connected, profile, features }: GuestStatus): string | undefined {
  if (!connected) return 'No guest is connected.';
  if (profile === null || features === null) return 'Its hypervisor has no requests.';
  const feature = REQUEST_ABIS.get(profile);
  if (feature === undefined) {
    return `Its ABI, ${profile}, has no queue for requests; ${[...REQUEST_ABIS.keys()].join(', ')} have.`;
  }
  return features.includes(feature)
    ? undefined
    : `Its driver did not take ${feature}, the queue for requests.`;
}
