/** The device's side of a split queue against rings written by hand: a test per clause of VIRTIO 1.4, section 2.7. */
import { describe, expect, it } from 'vitest';
import { DescriptorChain } from '../../src/virtio/chain.ts';
import { IN_ORDER, RING_EVENT_IDX, RING_INDIRECT_DESC } from '../../src/virtio/features.ts';
import { DESCRIPTOR_FLAG } from '../../src/virtio/layout.ts';
import { VirtqueueError, VirtqueueUsageError } from '../../src/virtio/queue.ts';
import { SplitDeviceQueue } from '../../src/virtio/split-device-queue.ts';
import { BUFFERS, configOf, RawSplitRing, segmentsOf, testMemory } from './rings.ts';

const { NEXT, WRITE, INDIRECT } = DESCRIPTOR_FLAG;

function setUp(size = 8, features = 0n, start?: number) {
  const memory = testMemory();
  const ring = new RawSplitRing(memory, size);
  if (start !== undefined) ring.availIndex = ring.usedIndex = start;
  const state = start === undefined ? undefined : { nextAvail: start, nextUsed: start };
  const queue = new SplitDeviceQueue(configOf(size, features), state);
  queue.validate(memory);
  const chain = new DescriptorChain();
  /** Pops everything; the segments of each buffer, or its fault. */
  const popAll = () => {
    const found = [];
    while (queue.pop(memory, chain)) found.push(chain.fault ?? segmentsOf(chain));
    return found;
  };
  return { memory, ring, queue, chain, popAll };
}

describe('2.7.5 the descriptor table', () => {
  it('a buffer of one descriptor', () => {
    const { ring, queue, memory, chain } = setUp();
    expect(queue.pop(memory, chain)).toBe(false);
    ring.descriptor(5, BUFFERS, 100).offer(5);
    expect(queue.pop(memory, chain)).toBe(true);
    expect(segmentsOf(chain)).toEqual([[BUFFERS, 100, 'r']]);
    expect([chain.id, chain.descriptorCount, chain.readableBytes, chain.writableBytes]).toEqual([
      5, 1, 100, 0,
    ]);
    expect(queue.pop(memory, chain)).toBe(false);
  });

  it('a chain linked by next in any order, readable before writable (2.7.4.2)', () => {
    const { ring, chain, popAll } = setUp();
    ring
      .descriptor(7, BUFFERS, 1, NEXT, 2)
      .descriptor(2, BUFFERS + 16, 2, NEXT, 4)
      .descriptor(4, BUFFERS + 32, 3, WRITE | NEXT, 0)
      .descriptor(0, BUFFERS + 48, 4, WRITE, 9999);
    ring.offer(7);
    expect(popAll()).toEqual([
      [
        [BUFFERS, 1, 'r'],
        [BUFFERS + 16, 2, 'r'],
        [BUFFERS + 32, 3, 'w'],
        [BUFFERS + 48, 4, 'w'],
      ],
    ]);
    expect([chain.descriptorCount, chain.readableCount, chain.writableBytes]).toEqual([4, 2, 7]);
  });

  it('a chain as long as the queue, the most that is allowed', () => {
    const { ring, popAll } = setUp(4);
    for (let i = 0; i < 4; i++) ring.descriptor(i, BUFFERS + i, 1, i < 3 ? NEXT : 0, i + 1);
    ring.offer(0);
    expect(popAll()[0]).toHaveLength(4);
  });

  it('a segment that spans two regions of memory', () => {
    const { ring, popAll } = setUp();
    ring.descriptor(0, BUFFERS + 0x7ff0, 0x20).offer(0);
    expect(popAll()).toEqual([[[BUFFERS + 0x7ff0, 0x20, 'r']]]);
  });

  it('a segment of no bytes', () => {
    const { ring, popAll } = setUp();
    ring.descriptor(0, BUFFERS, 0).offer(0);
    expect(popAll()).toEqual([[[BUFFERS, 0, 'r']]]);
  });
});

describe('2.7.5.3 indirect descriptors', () => {
  const table = BUFFERS + 0x1000;

  it('a table is walked by next from its first entry, not all of it need be in use', () => {
    const { ring, chain, popAll } = setUp(8, RING_INDIRECT_DESC);
    ring.table(table, [
      [BUFFERS, 1, NEXT, 2],
      [0, 0xffff, 0, 0],
      [BUFFERS + 8, 2, WRITE, 0],
    ]);
    ring.descriptor(3, table, 48, INDIRECT).offer(3);
    expect(popAll()).toEqual([
      [
        [BUFFERS, 1, 'r'],
        [BUFFERS + 8, 2, 'w'],
      ],
    ]);
    expect(chain.descriptorCount).toBe(1);
  });

  it('2.7.5.3.2: the write flag of the descriptor that refers to a table is ignored', () => {
    const { ring, popAll } = setUp(8, RING_INDIRECT_DESC);
    ring.table(table, [[BUFFERS, 1, 0, 0]]).descriptor(0, table, 16, INDIRECT | WRITE);
    ring.offer(0);
    expect(popAll()).toEqual([[[BUFFERS, 1, 'r']]]);
  });

  it('2.7.5.3.2: direct descriptors may come before the one with the table', () => {
    const { ring, chain, popAll } = setUp(8, RING_INDIRECT_DESC);
    ring.table(table, [[BUFFERS + 8, 2, WRITE, 0]]);
    ring.descriptor(1, BUFFERS, 1, NEXT, 6).descriptor(6, table, 16, INDIRECT).offer(1);
    expect(popAll()).toEqual([
      [
        [BUFFERS, 1, 'r'],
        [BUFFERS + 8, 2, 'w'],
      ],
    ]);
    expect(chain.descriptorCount).toBe(2);
  });

  it('a table may lie at any address, and across regions', () => {
    const { ring, memory, popAll } = setUp(8, RING_INDIRECT_DESC);
    for (const address of [BUFFERS + 0x1001, BUFFERS + 0x7ff8]) {
      ring
        .table(address, [[BUFFERS, 1, 0, 0]])
        .descriptor(0, address, 16, INDIRECT)
        .offer(0);
      expect(popAll()).toEqual([[[BUFFERS, 1, 'r']]]);
    }
    expect(memory.regions).toHaveLength(3);
  });

  it('a table of as many entries as the queue has, and one that makes the scratch grow', () => {
    const { ring, popAll } = setUp(256, RING_INDIRECT_DESC);
    ring.table(
      table,
      Array.from({ length: 256 }, (_, i) => [BUFFERS, 1, i < 255 ? NEXT : 0, i + 1] as const),
    );
    ring.descriptor(0, table, 4096, INDIRECT).offer(0);
    expect(popAll()[0]).toHaveLength(256);
  });
});

describe('2.7.6 the available ring', () => {
  it('is taken in order, at its index modulo the size', () => {
    const { ring, queue, memory, chain } = setUp(4);
    const ids: number[] = [];
    for (let i = 0; i < 10; i++) {
      ring.descriptor((i * 3) % 4, BUFFERS, 1).offer((i * 3) % 4);
      queue.pop(memory, chain);
      ids.push(chain.id);
      queue.pushUsed(memory, chain, 0);
      queue.publish(memory);
    }
    expect(ids).toEqual([0, 3, 2, 1, 0, 3, 2, 1, 0, 3]);
    expect(queue.nextAvail).toBe(10);
  });

  it('goes on over the wrap of the index at 65536', () => {
    const { ring, queue, memory, chain } = setUp(4, 0n, 65534);
    for (let i = 0; i < 4; i++) ring.descriptor(i, BUFFERS, 1);
    ring.offer(0, 1, 2, 3);
    expect(ring.availIndex).toBe(2);
    const positions: number[] = [];
    while (queue.pop(memory, chain)) {
      positions.push(chain.position);
      queue.pushUsed(memory, chain, 0);
    }
    queue.publish(memory);
    expect(positions).toEqual([65534, 65535, 0, 1]);
    expect(ring.usedIndex).toBe(2);
    expect(queue.save()).toEqual({ nextAvail: 2, nextUsed: 2 });
  });

  it('its index is read once a batch: what is offered meanwhile is the next batch', () => {
    const { ring, queue, memory, chain } = setUp();
    ring.descriptor(0, BUFFERS, 1).descriptor(1, BUFFERS, 1).offer(0, 1);
    queue.pop(memory, chain);
    ring.availIndex = 60000;
    expect(queue.pop(memory, chain)).toBe(true);
    expect(() => queue.pop(memory, chain)).toThrow(VirtqueueError);
  });

  it('2.7.6.1: an index that goes back, or on by more than the queue has, is the end of the ring', () => {
    for (const index of [65535, 9]) {
      const { ring, queue, memory, chain } = setUp(8);
      ring.availIndex = index;
      expect(() => queue.pop(memory, chain)).toThrow(VirtqueueError);
      expect(() => queue.requestKicks(memory)).toThrow(VirtqueueError);
    }
  });

  it('cannot hold more buffers than the queue has, those in use counted', () => {
    const { ring, queue, memory, chain } = setUp(4);
    ring.descriptor(0, BUFFERS, 1).offer(0, 0, 0, 0);
    for (let i = 0; i < 4; i++) expect(queue.pop(memory, chain)).toBe(true);
    ring.offer(0);
    expect(() => queue.pop(memory, chain)).toThrow('of which 4 are in use');
    queue.pushUsed(memory, chain, 0);
    queue.publish(memory);
    expect(queue.pop(memory, chain)).toBe(true);
  });
});

describe('2.7.8 the used ring', () => {
  it('2.7.8.2: elements come first and the index, which shows them, with publish', () => {
    const { ring, queue, memory, chain } = setUp();
    ring.descriptor(6, BUFFERS, 100, WRITE).descriptor(1, BUFFERS, 8, WRITE).offer(6, 1);
    queue.pop(memory, chain);
    queue.pushUsed(memory, chain, 60);
    queue.pop(memory, chain);
    queue.pushUsed(memory, chain, 8);
    expect([ring.used(0), ring.used(1)]).toEqual([
      [6, 60],
      [1, 8],
    ]);
    expect(ring.usedIndex).toBe(0);
    expect(queue.publish(memory)).toBe(true);
    expect(ring.usedIndex).toBe(2);
  });

  it('publishing nothing wants no interrupt', () => {
    const { queue, memory } = setUp();
    expect(queue.publish(memory)).toBe(false);
  });

  it('a buffer may be held back and returned after others', () => {
    const { ring, queue, memory, chain } = setUp();
    ring.descriptor(0, BUFFERS, 10, WRITE).descriptor(1, BUFFERS, 4, WRITE).offer(0, 1);
    queue.pop(memory, chain);
    const held = chain.hold();
    queue.pop(memory, chain);
    queue.pushUsed(memory, chain, 1);
    queue.pushUsed(memory, held, 10);
    expect([ring.used(0), ring.used(1)]).toEqual([
      [1, 1],
      [0, 10],
    ]);
  });

  it('refuses a length that the buffer has no room for', () => {
    const { ring, queue, memory, chain } = setUp();
    ring.descriptor(0, BUFFERS, 10, WRITE).offer(0);
    queue.pop(memory, chain);
    for (const written of [11, -1, Number.NaN]) {
      expect(() => queue.pushUsed(memory, chain, written)).toThrow(VirtqueueUsageError);
    }
  });

  it('a length of 2^32 bytes, which its field cannot hold, is understated', () => {
    const { ring, queue, memory } = setUp();
    const held = { id: 1, position: 0, descriptorCount: 2, writableBytes: 2 ** 32, fault: undefined };
    queue.pushUsed(memory, held, 2 ** 32);
    expect(ring.used(0)).toEqual([1, 2 ** 32 - 1]);
  });
});

describe('2.7.7 used buffer notifications', () => {
  const useOne = (features: bigint, prepare: (ring: RawSplitRing) => void) => {
    const { ring, queue, memory, chain } = setUp(8, features);
    prepare(ring);
    ring.descriptor(0, BUFFERS, 1).offer(0);
    queue.pop(memory, chain);
    queue.pushUsed(memory, chain, 0);
    return queue.publish(memory);
  };

  it('2.7.7.2: without event indices flags decide, and used_event does not count', () => {
    const event = (ring: RawSplitRing) => {
      ring.usedEvent = 100;
    };
    expect(useOne(0n, event)).toBe(true);
    const flagged = (ring: RawSplitRing) => {
      ring.availFlags = 1;
    };
    expect(useOne(0n, flagged)).toBe(false);
  });

  it('2.7.7.2: with event indices used_event decides, and flags do not count', () => {
    const passed = (ring: RawSplitRing) => {
      ring.availFlags = 1;
      ring.usedEvent = 0;
    };
    expect(useOne(RING_EVENT_IDX, passed)).toBe(true);
    const notYet = (ring: RawSplitRing) => {
      ring.usedEvent = 1;
    };
    expect(useOne(RING_EVENT_IDX, notYet)).toBe(false);
  });

  it('a batch that passes used_event wants one interrupt, wherever in the batch it lies', () => {
    const { ring, queue, memory, chain } = setUp(8, RING_EVENT_IDX);
    ring.usedEvent = 2;
    for (let i = 0; i < 5; i++) ring.descriptor(i, BUFFERS, 1);
    ring.offer(0, 1, 2, 3, 4);
    while (queue.pop(memory, chain)) queue.pushUsed(memory, chain, 0);
    expect(queue.publish(memory)).toBe(true);
  });

  it('a queue that goes on from a saved state asks once, for what no kick may have told of', () => {
    const { ring, queue, memory, chain } = setUp(8, RING_EVENT_IDX, 10);
    ring.usedEvent = 9;
    ring.descriptor(0, BUFFERS, 1).offer(0, 0);
    queue.pop(memory, chain);
    queue.pushUsed(memory, chain, 0);
    expect(queue.publish(memory)).toBe(true);
    queue.pop(memory, chain);
    queue.pushUsed(memory, chain, 0);
    expect(queue.publish(memory)).toBe(false);
  });
});

describe('2.7.10 available buffer notifications', () => {
  it('2.7.10.2: without event indices the device sets flags to 1 and 0', () => {
    const { ring, queue, memory } = setUp();
    queue.suppressKicks(memory);
    expect(ring.usedFlags).toBe(1);
    expect(queue.requestKicks(memory)).toBe(false);
    expect(ring.usedFlags).toBe(0);
  });

  it('2.7.10.2: with event indices flags stay 0 and avail_event names the next buffer', () => {
    const { ring, queue, memory, chain } = setUp(8, RING_EVENT_IDX);
    ring.descriptor(0, BUFFERS, 1).offer(0, 0, 0);
    while (queue.pop(memory, chain)) queue.pushUsed(memory, chain, 0);
    queue.suppressKicks(memory);
    expect(queue.requestKicks(memory)).toBe(false);
    expect([ring.usedFlags, ring.availEvent]).toEqual([0, 3]);
  });

  it('tells of what became available before the request could be seen', () => {
    for (const features of [0n, RING_EVENT_IDX]) {
      const { ring, queue, memory, popAll } = setUp(8, features);
      expect(queue.requestKicks(memory)).toBe(false);
      ring.descriptor(0, BUFFERS, 1).offer(0);
      expect(queue.requestKicks(memory)).toBe(true);
      expect(queue.requestKicks(memory)).toBe(true);
      expect(popAll()).toHaveLength(1);
    }
  });
});

describe('2.7.9 in-order use', () => {
  const offerThree = () => {
    const all = setUp(8, IN_ORDER);
    for (let i = 0; i < 3; i++) all.ring.descriptor(i, BUFFERS, 8, WRITE);
    all.ring.offer(0, 1, 2);
    const held = [0, 1, 2].map(() => {
      all.queue.pop(all.memory, all.chain);
      return all.chain.hold();
    });
    return { ...all, held };
  };

  it('buffers that were written completely share one element, which names the last of them', () => {
    const { ring, queue, memory, held } = offerThree();
    for (const buffer of held) queue.pushUsed(memory, buffer, 8);
    queue.publish(memory);
    expect(ring.usedIndex).toBe(3);
    expect(ring.used(0)).toEqual([2, 8]);
    expect(ring.used(1)).toEqual([0, 0]);
  });

  it('one that was not written completely keeps its own element and length', () => {
    const { ring, queue, memory, held } = offerThree();
    queue.pushUsed(memory, held[0], 3);
    queue.pushUsed(memory, held[1], 8);
    queue.pushUsed(memory, held[2], 5);
    queue.publish(memory);
    expect([ring.used(0), ring.used(1)]).toEqual([
      [0, 3],
      [2, 5],
    ]);
    expect(ring.usedIndex).toBe(3);
  });

  it('a batch ends with publish', () => {
    const { ring, queue, memory, held } = offerThree();
    queue.pushUsed(memory, held[0], 8);
    queue.publish(memory);
    queue.pushUsed(memory, held[1], 8);
    queue.publish(memory);
    expect([ring.used(0), ring.used(1)]).toEqual([
      [0, 8],
      [1, 8],
    ]);
  });

  it('a buffer that is nonsense is never skipped, for it was not written', () => {
    const { ring, queue, memory, chain } = setUp(8, IN_ORDER);
    ring
      .descriptor(0, 2 ** 40, 8, WRITE)
      .descriptor(1, BUFFERS, 8)
      .offer(0, 1);
    while (queue.pop(memory, chain)) queue.pushUsed(memory, chain, 0);
    expect([ring.used(0), ring.used(1)]).toEqual([
      [0, 0],
      [1, 0],
    ]);
  });

  it('a buffer out of turn is refused', () => {
    const { queue, memory, held } = offerThree();
    expect(() => queue.pushUsed(memory, held[1], 8)).toThrow('out of order');
    queue.pushUsed(memory, held[0], 8);
    expect(() => queue.pushUsed(memory, held[0], 8)).toThrow(VirtqueueUsageError);
  });
});

describe('a saved state', () => {
  it('is refused while something is pushed and not published', () => {
    const { ring, queue, memory, chain } = setUp();
    ring.descriptor(0, BUFFERS, 1).offer(0);
    queue.pop(memory, chain);
    queue.pushUsed(memory, chain, 0);
    expect(() => queue.save()).toThrow(VirtqueueUsageError);
    queue.publish(memory);
    expect(queue.save()).toEqual({ nextAvail: 1, nextUsed: 1 });
  });
});
