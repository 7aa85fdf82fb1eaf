/** Inputs of `bench neighbour` that make a ring costly: long chains, and kicks without end. */
import { GIB, MIB } from '../../../policy/units.ts';
import { monotonicMs } from '../../../sys/poll.ts';
import { DESCRIPTOR_FLAG } from '../../../virtio/layout.ts';
import { HandFrontEnd } from '../front-end.ts';
import type { HostilePlay } from '../play.ts';
import type { HostileData } from '../protocol.ts';

/** Rings and lists lie here. */
export const HOME = { guestAddress: 0, size: 8 * MIB };
export const LIST_AT = 4 * MIB;
/** Regions that a guest may have, HOME left out. */
export const REGIONS = 500;

/** So many small regions behind each other. */
export const tinyRegions = (size: number, from = GIB) =>
  Array.from({ length: REGIONS }, (_, index) => ({ guestAddress: from + index * size, size }));

export function longChains({ socketPath }: HostileData): HostilePlay {
  const size = 2048;
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate();
  frontEnd.handOver([HOME, ...tinyRegions(4096)]);
  const ring = frontEnd.startRing(0, size, 0);
  for (let at = 0; at < size; at++) {
    const flags = at + 1 < size ? DESCRIPTOR_FLAG.NEXT : 0;
    ring.write(at, { address: GIB, length: REGIONS * 4096, flags, next: at + 1 });
  }
  const heads = new Array<number>(size).fill(0);
  return () => {
    ring.offer(...heads);
    frontEnd.waitWorkedOff(ring);
  };
}

export function fullRing({ socketPath }: HostileData): HostilePlay {
  const size = 256;
  const pages = 256;
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate();
  frontEnd.handOver([HOME, { guestAddress: GIB, size: 64 * MIB }]);
  const ring = frontEnd.startRing(0, size, 0);
  for (let page = 0; page < pages; page++) frontEnd.memory.setU32(LIST_AT + page * 4, GIB / 4096 + page);
  for (let at = 0; at < size; at++)
    ring.write(at, { address: LIST_AT, length: pages * 4, flags: 0, next: 0 });
  return () => {
    // A word to rest is heard between rounds.
    for (const end = monotonicMs() + 20; monotonicMs() < end; ) {
      while (ring.outstanding < size) ring.offer(ring.outstanding);
      ring.kick();
    }
  };
}
