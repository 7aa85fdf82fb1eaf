/** Inputs of `bench neighbour` whose page lists are short and name much, or long and name pages far apart. */
import { MUST_TELL_HOST, PAGE_LIST, PAGE_REPORTING } from '../../../balloon/features.ts';
import { BITMAP_HEADER } from '../../../balloon/formats/page-bitmap.ts';
import { LIST_BYTES_MAX } from '../../../balloon/page-list.ts';
import { gpaOf, PAGE_SIZE } from '../../../memory/page.ts';
import { GIB, MIB } from '../../../policy/units.ts';
import { writeU64 } from '../../../sys/struct.ts';
import { DESCRIPTOR_FLAG } from '../../../virtio/layout.ts';
import { HandFrontEnd, type HandRing } from '../front-end.ts';
import type { HostilePlay } from '../play.ts';
import type { HostileData } from '../protocol.ts';
import { HOME, LIST_AT, REGIONS, tinyRegions } from './rings.ts';

/** What one region may have at most. */
const REGION_BYTES = 2 ** 42;
export const SPARSE_REGIONS = [1, 2, 3].map(index => ({
  guestAddress: index * REGION_BYTES,
  size: REGION_BYTES,
}));
const RING_SIZE = 64;

/** The rings for giving and taking back, whose every descriptor names this list. */
export function inflateAndDeflate(frontEnd: HandFrontEnd, listBytes: number): readonly HandRing[] {
  return [0, 1].map(index => {
    const ring = frontEnd.startRing(index, RING_SIZE, index * MIB);
    ring.write(0, { address: LIST_AT, length: listBytes, flags: 0, next: 0 });
    return ring;
  });
}

/** Gives what the list names and takes it back, so many times each. */
const inAndOut =
  (frontEnd: HandFrontEnd, rings: readonly HandRing[], times = 1): HostilePlay =>
  () => {
    for (const ring of rings) {
      ring.offer(...new Array<number>(times).fill(0));
      frontEnd.waitWorkedOff(ring);
    }
  };

export function hugeRange({ socketPath }: HostileData): HostilePlay {
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate(MUST_TELL_HOST | PAGE_LIST);
  frontEnd.handOver([HOME, ...SPARSE_REGIONS]);
  const list = new Uint8Array(24);
  const view = new DataView(list.buffer);
  [1, REGION_BYTES, 3 * REGION_BYTES].forEach((value, index) => {
    writeU64(view, index * 8, value);
  });
  frontEnd.memory.write(LIST_AT, list);
  return inAndOut(frontEnd, inflateAndDeflate(frontEnd, list.length));
}

export function alternatingLists({ socketPath }: HostileData): HostilePlay {
  const regionBytes = 4 * MIB;
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate();
  frontEnd.handOver([HOME, ...tinyRegions(regionBytes)]);
  const numbers = MIB / 4;
  for (let at = 0; at < numbers; at++) {
    const address = GIB + (at % REGIONS) * regionBytes + Math.floor(at / REGIONS) * PAGE_SIZE;
    frontEnd.memory.setU32(LIST_AT + at * 4, address / PAGE_SIZE);
  }
  return inAndOut(frontEnd, inflateAndDeflate(frontEnd, MIB), 8);
}

export function alternatingBits({ socketPath }: HostileData): HostilePlay {
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate(MUST_TELL_HOST | PAGE_LIST);
  const bitmapBytes = Math.floor((LIST_BYTES_MAX - BITMAP_HEADER.size) / 8) * 8;
  const pages = bitmapBytes * 8;
  frontEnd.handOver([HOME, { guestAddress: GIB, size: gpaOf(pages) }]);
  const list = new Uint8Array(BITMAP_HEADER.size + bitmapBytes).fill(0x55, BITMAP_HEADER.size);
  const header = { command: 0, pageShift: 12, flag: 0, requestId: 0, startPfn: GIB / PAGE_SIZE, bitmapBytes };
  BITMAP_HEADER.write(new DataView(list.buffer), 0, header);
  frontEnd.memory.write(LIST_AT, list);
  return inAndOut(frontEnd, inflateAndDeflate(frontEnd, list.length));
}

export function reportsOfUsedMemory({ socketPath }: HostileData): HostilePlay {
  const bytes = GIB;
  const frontEnd = new HandFrontEnd(socketPath);
  frontEnd.negotiate(PAGE_REPORTING);
  frontEnd.handOver([HOME, { guestAddress: GIB, size: bytes }]);
  frontEnd.startRing(0, RING_SIZE, 0);
  frontEnd.startRing(1, RING_SIZE, MIB);
  // Queues are numbered without gaps: without statistics and hints, reports come third.
  const ring = frontEnd.startRing(2, RING_SIZE, 2 * MIB);
  ring.write(0, { address: GIB, length: bytes, flags: DESCRIPTOR_FLAG.WRITE, next: 0 });
  return () => {
    for (let at = 0; at < bytes; at += PAGE_SIZE) frontEnd.memory.setU32(GIB + at, 1);
    ring.offer(0);
    frontEnd.waitWorkedOff(ring);
  };
}
