/**
 * The length of every used entry, as the ring shows it and not as a driver would read it. A balloon device writes into no
 * buffer but the one for requests, so all others come back with length 0, whatever room a guest offers in them.
 */
import { describe, expect, test } from 'vitest';
import type { QueueRole } from '../../src/balloon/features.ts';
import { PROFILE_NAMES, profile } from '../../src/balloon/profiles.ts';
import { GET_UNUSED_PAGES } from '../../src/balloon/request-messages.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { GuestBuffer } from '../../src/testing/hand-queue.ts';
import { DESCRIPTOR_FLAG, PACKED_DESCRIPTOR, RING_HEADER, USED_ELEMENT } from '../../src/virtio/layout.ts';
import { descriptorAt } from '../../src/virtio/packed-ring.ts';
import { type DeviceRig, FIRST_PAGE, openRig, packed, type Run, u32 } from '../support/device-rig.ts';
import type { RigQueue } from '../support/rig-queue.ts';

const RINGS = [
  ['split', {}],
  ['packed', packed],
] as const;
const RUNS: readonly Run[] = [
  [FIRST_PAGE, 16],
  [FIRST_PAGE + 64, 1],
];
const ROOM = (FIRST_PAGE + 1024) * PAGE_SIZE;
/** One statistic. */
const SAMPLE = new Uint8Array(10);

/** What was not touched by the device, in the test's eyes: no used entry has it. */
const UNTOUCHED = 0x5e5e_5e5e;

/** The used entry at `position` of the ring. */
function usedEntry(rig: DeviceRig, { config }: RigQueue, position: number, isPacked: boolean) {
  const { memory } = rig;
  if (!isPacked) {
    const element = config.deviceArea + RING_HEADER.size + (position % config.size) * USED_ELEMENT.size;
    return { lengthAt: element + USED_ELEMENT.offset.length, writes: () => false };
  }
  const descriptor = descriptorAt(config.descriptorArea, position);
  return {
    lengthAt: descriptor + PACKED_DESCRIPTOR.offset.length,
    writes: () => (memory.u16(descriptor + PACKED_DESCRIPTOR.offset.flags) & DESCRIPTOR_FLAG.WRITE) !== 0,
  };
}

/** Sends a buffer, lets `then` make the device return it, and gives what its used entry says. */
function lengthOf(
  rig: DeviceRig,
  queue: RigQueue,
  buffer: GuestBuffer,
  isPacked: boolean,
  then: () => void = () => {},
): { length: number; writes: boolean } {
  const entry = usedEntry(rig, queue, queue.driver.save().nextUsed, isPacked);
  // A packed entry lies where the descriptor was, which the driver fills.
  if (!isPacked) rig.memory.write(entry.lengthAt, u32(UNTOUCHED));
  rig.forgetLists();
  const token = queue.add(buffer);
  queue.kick();
  then();
  expect(queue.collect()).toMatchObject([{ token }]);
  return { length: rig.memory.u32(entry.lengthAt), writes: entry.writes() };
}

const NOTHING = { length: 0, writes: false };

/** Lists as they should be, and the same with room behind them, with sense and without. */
function* variants(buffer: GuestBuffer): Generator<GuestBuffer> {
  yield buffer;
  for (const bytes of [PAGE_SIZE, 64]) yield { ...buffer, in: [...(buffer.in ?? []), [ROOM, bytes]] };
  // Not guest memory.
  yield { ...buffer, in: [...(buffer.in ?? []), [2 ** 45, 64]] };
}

describe.each(PROFILE_NAMES)('profile %s', name => {
  const abi = profile(name);

  function* listsFor(rig: DeviceRig, role: QueueRole): Generator<GuestBuffer> {
    if (role === 'inflate' || role === 'deflate') yield* rig.encode(rig.inflateFormat, RUNS);
    if (role === 'reporting' || role === 'hinting') yield* rig.encode(abi.freePages.format, RUNS);
    if (role === 'hint') {
      yield { out: [u32(rig.device.hints.begin())] };
      yield* rig.encode(abi.freePages.format, RUNS);
      yield { out: [u32(0)] };
    }
  }

  // With `written` anything but 0 in one of the device's calls of pushUsed, or a packed entry marked as written, it fails.
  test.each(RINGS)('returns every list with length 0 (%s rings)', (kind, rings) => {
    // The drafts of 2026 have lengths (zeroed-pages.test.ts), for drivers that took their bits: an interim one reads them.
    const { reported, inflated } = abi.zeroing;
    const rig = openRig({ profile: name, without: reported | inflated, ...rings });
    let sent = 0;
    for (const queue of rig.queues) {
      for (const list of [...listsFor(rig, queue.role)]) {
        for (const buffer of variants(list)) {
          expect(lengthOf(rig, queue, buffer, kind === 'packed'), queue.role).toEqual(NOTHING);
          sent++;
        }
      }
    }
    expect(sent).toBeGreaterThanOrEqual(8);
    expect(rig.device.counters.badBuffers).toBeLessThan(sent);
  });

  test.each(RINGS)('returns statistics with length 0, asked for and paused (%s rings)', (kind, rings) => {
    const rig = openRig({ profile: name, ...rings });
    const queue = rig.queues.find(({ role }) => role === 'stats');
    // Not every generation has them.
    if (queue === undefined) return;
    const isPacked = kind === 'packed';
    const ask = () => rig.device.statistics.request();
    const buffers: GuestBuffer[] = [{ out: [SAMPLE] }, { out: [SAMPLE], in: [[ROOM, 64]] }];
    for (const buffer of buffers) expect(lengthOf(rig, queue, buffer, isPacked, ask)).toEqual(NOTHING);
    const nonsense = { out: [new Uint8Array(7)], in: [[ROOM, 64]] } as const;
    expect(lengthOf(rig, queue, nonsense, isPacked)).toEqual(NOTHING);
    const pause = () => rig.device.stopQueue(queue.index, 'paused');
    expect(lengthOf(rig, queue, buffers[1], isPacked, pause)).toEqual(NOTHING);
  });

  test.each(RINGS)(
    'returns answers, and a buffer that no request needed, with length 0 (%s rings)',
    (kind, rings) => {
      const { freePages } = abi;
      // Not every generation has requests.
      if (freePages.kind !== 'request') return;
      const { protocol } = freePages;
      const rig = openRig({ profile: name, ...rings });
      const queue = rig.queue('request');
      const isPacked = kind === 'packed';
      const ask = () => rig.device.requests.send(GET_UNUSED_PAGES);
      const size = protocol.requestBytes;
      // The one length that is not 0.
      expect(lengthOf(rig, queue, { in: [[ROOM, size + 16]] }, isPacked, ask).length).toBe(size);
      const { id = 0 } = rig.device.requests.progress ?? {};
      const answer = rig.encode(freePages.format, RUNS, {
        start: protocol.prefixBytes,
        edit: (list, last) => protocol.writeAnswer(list, { command: GET_UNUSED_PAGES, id, done: last }),
      });
      for (const list of [...answer].flatMap(buffer => [...variants(buffer)])) {
        expect(lengthOf(rig, queue, list, isPacked)).toEqual(NOTHING);
      }
      const pause = () => rig.device.stopQueue(queue.index, 'paused');
      expect(lengthOf(rig, queue, { in: [[ROOM, size]] }, isPacked, pause)).toEqual(NOTHING);
    },
  );
});
