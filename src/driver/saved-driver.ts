/**
 * The bytes of a saved driver: what it negotiated, its memory, where its rings stand, and how far the hint session has
 * come. It was saved when nothing was under way, so the balloon itself is in the guest's own books, and of each ring no
 * more than its free list is left. They come from a stranger: every number has its bound here, and its user
 * checks whether it fits the guest.
 */
import { PROFILE_NAMES, type Profile } from '../balloon/profiles.ts';
import {
  assertShaped,
  flag,
  listOf,
  naturalNumber,
  nullable,
  oneOf,
  pairOf,
  record,
  text,
  u16,
  u32,
  type ValueOf,
  type ValueShape,
} from '../sys/shape.ts';
import { type DriverQueueState, QUEUE_SIZE_MAX } from '../virtio/queue.ts';
import type { VirtioTransport } from '../virtio/transport.ts';
import type { Allotment } from './driver-memory.ts';
import { DriverStateError } from './errors.ts';

const VERSION = 1;
/** More rings than any profile has. */
const RINGS_MAX = 16;
/** A list and a table for each entry of the largest ring, both ways. */
const ALLOTMENTS_MAX = 4 * QUEUE_SIZE_MAX;

/** Checked in one pass: there is one for each entry of a ring, and a guest stands still meanwhile. */
const links: ValueShape<number[]> = {
  fault: (value, at) =>
    Array.isArray(value) &&
    value.length <= QUEUE_SIZE_MAX &&
    value.every(link => Number.isInteger(link) && link >= 0 && link <= 0xffff)
      ? null
      : `${at}: numbers of descriptors are expected`,
};

const RING = record({ nextAvail: u16, nextUsed: u16, links, firstFree: u16 });

const HINTS = record({ wished: u32, active: u32, last: u32, exhausted: flag, holding: flag });

const DRIVER = record({
  version: oneOf([VERSION]),
  profile: oneOf(PROFILE_NAMES),
  features: text(/^[0-9a-f]{1,16}$/),
  rings: listOf(RING, RINGS_MAX),
  /** Pairs of address and size; null where the guest had no such stretch. */
  allotments: listOf(nullable(pairOf(naturalNumber)), ALLOTMENTS_MAX),
  hints: nullable(HINTS),
});

interface SavedDriver {
  readonly profile: string;
  readonly features: bigint;
  readonly rings: readonly DriverQueueState[];
  readonly allotments: readonly Allotment[];
  readonly hints: ValueOf<typeof HINTS> | null;
}

export function encodeDriver({ profile, features, rings, allotments, hints }: SavedDriver): Uint8Array {
  const saved = {
    version: VERSION,
    profile,
    features: features.toString(16),
    rings: rings.map(({ nextAvail, nextUsed, links, firstFree }) => ({
      nextAvail,
      nextUsed,
      links,
      firstFree,
    })),
    allotments: allotments.map(allotment => allotment && [allotment.address, allotment.size]),
    hints,
  };
  return new TextEncoder().encode(JSON.stringify(saved));
}

/**
 * A saved driver that can go on at this device, as far as the device can tell.
 * @throws DriverStateError
 */
export async function readDriver(
  saved: Uint8Array,
  { name }: Profile,
  transport: VirtioTransport,
): Promise<SavedDriver> {
  const driver = decodeDriver(saved);
  if (driver.profile !== name) throw new DriverStateError(`it spoke ${driver.profile}, not ${name}`);
  const missing = driver.features & ~(await transport.getFeatures());
  if (missing === 0n) return driver;
  throw new DriverStateError(`${transport.description} has not its features 0x${missing.toString(16)}`);
}

/** @throws DriverStateError when they are not what {@link encodeDriver} writes */
export function decodeDriver(encoded: Uint8Array): SavedDriver {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(encoded));
  } catch {
    throw new DriverStateError('it is not JSON');
  }
  assertShaped(DRIVER, value, fault => {
    throw new DriverStateError(fault);
  });
  const { profile, features, rings, allotments, hints } = value;
  for (const { nextAvail, nextUsed, links, firstFree } of rings) {
    if (nextAvail !== nextUsed) throw new DriverStateError('a ring has buffers that the device had');
    if (firstFree >= links.length) throw new DriverStateError('a ring has no free descriptor');
  }
  return {
    profile,
    features: BigInt(`0x${features}`),
    rings: rings.map(ring => ({ ...ring, outstanding: [] })),
    allotments: allotments.map(pair => pair && ({ address: pair[0], size: pair[1] } as Allotment)),
    hints,
  };
}
