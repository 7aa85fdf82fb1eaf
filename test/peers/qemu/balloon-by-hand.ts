/** A driver of a few lines for QEMU's balloon device: enough to try the transport, and nothing to rely on. */
import { MUST_TELL_HOST } from '../../../src/balloon/features.ts';
import type { GuestMemory } from '../../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../../src/memory/page.ts';
import { SegmentList } from '../../../src/virtio/chain.ts';
import { createDriverQueue } from '../../../src/virtio/create.ts';
import { VERSION_1 } from '../../../src/virtio/features.ts';
import { layoutOf } from '../../../src/virtio/layout.ts';
import type { DriverQueue, UsedBuffer } from '../../../src/virtio/queue.ts';
import { DEVICE_STATUS, type VirtioTransport } from '../../../src/virtio/transport.ts';

const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DEVICE_STATUS;

export const INFLATE_QUEUE = 0;
const PFNS_PER_BUFFER = 256;

/** Where the test's rings and page lists lie; pages from 1 MiB on are free for the balloon. */
const RINGS_AT = 0x1_0000;
const RING_PART_BYTES = 0x4000;
const LISTS_AT = 0x4_0000;

export interface BalloonByHand {
  readonly transport: VirtioTransport;
  readonly inflate: DriverQueue;
  readonly features: bigint;
}

/** Resets the device, takes `wanted` of its features, and sets its inflate queue up (3.1.1). */
export async function wake(
  transport: VirtioTransport,
  memory: GuestMemory,
  wanted: bigint,
): Promise<BalloonByHand> {
  await transport.reset();
  await transport.writeStatus(ACKNOWLEDGE | DRIVER);
  const features = (await transport.getFeatures()) & (wanted | VERSION_1 | MUST_TELL_HOST);
  await transport.setFeatures(features);
  await transport.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
  if (((await transport.readStatus()) & FEATURES_OK) === 0) throw new Error('the features were refused');
  const size = await transport.queueSizeMax(INFLATE_QUEUE);
  const config = {
    size,
    descriptorArea: RINGS_AT,
    driverArea: RINGS_AT + RING_PART_BYTES,
    deviceArea: RINGS_AT + 2 * RING_PART_BYTES,
    features,
  };
  if (layoutOf(config).descriptorArea.size > RING_PART_BYTES)
    throw new Error(`a ring of ${size} is too large`);
  const inflate = createDriverQueue(config);
  inflate.initialize(memory);
  await transport.enableQueue(INFLATE_QUEUE, config);
  await transport.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
  return { transport, inflate, features };
}

/**
 * Offers the pages of [from, from + bytes) and waits until the device returned every list; polls the used
 * ring.
 */
export async function inflateRange(
  { transport, inflate }: BalloonByHand,
  memory: GuestMemory,
  from: number,
  bytes: number,
): Promise<void> {
  const used: UsedBuffer = { token: 0, written: 0 };
  const firstPfn = from / PAGE_SIZE;
  const endPfn = firstPfn + bytes / PAGE_SIZE;
  const slots = Array.from({ length: inflate.size }, (_, slot) => slot);
  let pfn = firstPfn;
  while (pfn < endPfn || inflate.outstandingCount > 0) {
    while (pfn < endPfn && slots.length > 0) {
      const slot = slots.pop()!;
      const list = LISTS_AT + slot * PFNS_PER_BUFFER * 4;
      const count = Math.min(PFNS_PER_BUFFER, endPfn - pfn);
      for (let index = 0; index < count; index++) memory.setU32(list + index * 4, pfn + index);
      const segments = new SegmentList();
      segments.addReadable(list, count * 4);
      inflate.addBuffer(memory, segments, slot);
      pfn += count;
    }
    if (inflate.publish(memory)) transport.kick(INFLATE_QUEUE);
    while (inflate.popUsed(memory, used)) slots.push(used.token);
    // Not without a pause: a kick for every single list costs QEMU more than the list.
    await new Promise(resolve => setTimeout(resolve, 1));
  }
}

/** Writes one word into every page of a range, so that the host has memory for it. */
export function touch(memory: GuestMemory, from: number, bytes: number): void {
  for (let at = from; at < from + bytes; at += PAGE_SIZE) memory.setU32(at, 0xa5a5a5a5);
}
