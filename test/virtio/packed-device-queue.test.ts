/** The device's side of a packed queue against rings written by hand: a test per clause of VIRTIO 1.4, section 2.8. */
import { describe, expect, it } from 'vitest';
import { DescriptorChain } from '../../src/virtio/chain.ts';
import { IN_ORDER, RING_EVENT_IDX, RING_INDIRECT_DESC } from '../../src/virtio/features.ts';
import { DESCRIPTOR_FLAG, EVENT_FLAGS } from '../../src/virtio/layout.ts';
import { PackedDeviceQueue } from '../../src/virtio/packed-device-queue.ts';
import { VirtqueueError, VirtqueueUsageError, WRAP } from '../../src/virtio/queue.ts';
import { BUFFERS, packedConfigOf, RawPackedRing, segmentsOf, testMemory } from './rings.ts';

const { NEXT, WRITE, INDIRECT, AVAIL, USED } = DESCRIPTOR_FLAG;

function setUp(size = 8, features = 0n) {
  const memory = testMemory();
  const ring = new RawPackedRing(memory);
  const queue = new PackedDeviceQueue(packedConfigOf(size, features));
  queue.validate(memory);
  const chain = new DescriptorChain();
  const serve = (written = 0) => {
    const popped = queue.pop(memory, chain);
    if (popped) queue.pushUsed(memory, chain, written);
    return popped;
  };
  return { memory, ring, queue, chain, serve };
}

describe('2.8.1 wrap counters', () => {
  it('a zeroed ring has nothing available', () => {
    const { queue, memory, chain } = setUp();
    expect(queue.pop(memory, chain)).toBe(false);
  });

  it('AVAIL is the counter and USED its inverse in an available descriptor, both the counter in a used one', () => {
    const { ring, queue, memory, chain } = setUp(2);
    for (let lap = 0; lap < 4; lap++) {
      const [available, used] = lap % 2 === 0 ? [AVAIL, AVAIL | USED] : [USED, 0];
      for (const offset of [0, 1]) {
        expect(queue.pop(memory, chain)).toBe(false);
        ring.descriptor(offset, BUFFERS, 1, 40 + lap, available);
        expect(queue.pop(memory, chain)).toBe(true);
        expect(chain.id).toBe(40 + lap);
        queue.pushUsed(memory, chain, 0);
        queue.publish(memory);
        expect(ring.readDescriptor(offset)).toMatchObject({ id: 40 + lap, length: 0, flags: used });
      }
    }
    expect(queue.save()).toEqual({ nextAvail: WRAP, nextUsed: WRAP });
  });
});

describe('2.8.6 chaining', () => {
  it('a list goes on in the next descriptors of the ring, over its end; its id is in the last', () => {
    const { ring, queue, memory, chain, serve } = setUp(3);
    ring.descriptor(0, BUFFERS, 1, 0, AVAIL).descriptor(1, BUFFERS, 1, 1, AVAIL);
    expect([serve(), serve(), serve()]).toEqual([true, true, false]);
    queue.publish(memory);
    ring
      .descriptor(0, BUFFERS + 2, 2, 9, USED | NEXT | WRITE)
      .descriptor(1, BUFFERS + 4, 4, 7, USED | WRITE)
      .descriptor(2, BUFFERS, 1, 5, AVAIL | NEXT);
    expect(queue.pop(memory, chain)).toBe(true);
    expect(segmentsOf(chain)).toEqual([
      [BUFFERS, 1, 'r'],
      [BUFFERS + 2, 2, 'w'],
      [BUFFERS + 4, 4, 'w'],
    ]);
    expect([chain.id, chain.descriptorCount]).toEqual([7, 3]);
    queue.pushUsed(memory, chain, 6);
    queue.publish(memory);
    // One used descriptor for the whole list, where the list began.
    expect(ring.readDescriptor(2)).toMatchObject({ id: 7, length: 6, flags: AVAIL | USED | WRITE });
    expect(queue.save()).toEqual({ nextAvail: 2, nextUsed: 2 });
  });

  it('lists stay as the driver wrote them until they are returned, for a device that takes another’s place', () => {
    const { ring, queue, memory, chain, serve } = setUp(4);
    for (let i = 0; i < 3; i++) ring.descriptor(i, BUFFERS + i, 16, i, AVAIL);
    const before = [0, 1, 2].map(offset => ring.readDescriptor(offset));
    const { nextAvail, nextUsed } = queue.save();
    expect([serve(), serve(), serve()]).toEqual([true, true, true]);
    expect([0, 1, 2].map(offset => ring.readDescriptor(offset))).toEqual(before);
    // The first one dies here; the next one finds all three.
    const next = new PackedDeviceQueue(packedConfigOf(4, 0n), { nextAvail, nextUsed });
    for (let i = 0; i < 3; i++) {
      expect(next.pop(memory, chain)).toBe(true);
      expect(segmentsOf(chain)).toEqual([[BUFFERS + i, 16, 'r']]);
      next.pushUsed(memory, chain, 0);
    }
    next.publish(memory);
    expect(ring.readDescriptor(2)).toMatchObject({ id: 2, length: 0, flags: AVAIL | USED });
  });

  it('a list that is nonsense is followed to its end, where its id is', () => {
    const { ring, queue, memory, chain } = setUp();
    ring
      .descriptor(0, BUFFERS, 1, 1, AVAIL | WRITE | NEXT)
      .descriptor(1, BUFFERS, 1, 2, AVAIL | NEXT)
      .descriptor(2, BUFFERS, 1, 3, AVAIL)
      .descriptor(3, BUFFERS, 1, 4, AVAIL);
    expect(queue.pop(memory, chain)).toBe(true);
    expect([chain.fault, chain.id, chain.descriptorCount]).toEqual(['order', 3, 3]);
    expect(queue.pop(memory, chain)).toBe(true);
    expect([chain.fault, chain.id]).toEqual([undefined, 4]);
  });

  it('a list without an end, and one that ends in what is not available, are the end of the ring', () => {
    const endless = setUp(4);
    for (let i = 0; i < 4; i++) endless.ring.descriptor(i, BUFFERS, 1, i, AVAIL | NEXT);
    expect(() => endless.queue.pop(endless.memory, endless.chain)).toThrow(VirtqueueError);
    const cut = setUp(4);
    cut.ring.descriptor(0, BUFFERS, 1, 0, AVAIL | NEXT);
    expect(() => cut.queue.pop(cut.memory, cut.chain)).toThrow('not available');
  });

  it('the ring cannot hold more descriptors than it has, those in use counted', () => {
    const { ring, queue, memory, chain } = setUp(2);
    ring.descriptor(0, BUFFERS, 1, 0, AVAIL).descriptor(1, BUFFERS, 1, 1, AVAIL);
    queue.pop(memory, chain);
    queue.pop(memory, chain);
    ring.descriptor(0, BUFFERS, 1, 0, USED);
    expect(() => queue.pop(memory, chain)).toThrow(VirtqueueError);
  });
});

describe('2.8.7 indirect descriptors', () => {
  const table = BUFFERS + 0x1000;

  it('every entry is a segment, WRITE is the only flag that counts, and ids do not', () => {
    const { ring, queue, memory, chain } = setUp(8, RING_INDIRECT_DESC);
    ring.table(table, [
      [BUFFERS, 1, NEXT | INDIRECT | AVAIL],
      [BUFFERS + 8, 2, WRITE],
    ]);
    ring.descriptor(0, table, 32, 77, AVAIL | INDIRECT | WRITE);
    expect(queue.pop(memory, chain)).toBe(true);
    expect(segmentsOf(chain)).toEqual([
      [BUFFERS, 1, 'r'],
      [BUFFERS + 8, 2, 'w'],
    ]);
    expect([chain.id, chain.descriptorCount]).toEqual([77, 1]);
  });

  it('2.8.19: a table is refused where not negotiated, or in a chained list, or of a wrong length', () => {
    const cases = [
      ['indirect-refused', 0n, 16, AVAIL | INDIRECT],
      ['indirect-linked', RING_INDIRECT_DESC, 16, AVAIL | INDIRECT | NEXT],
      ['indirect-length', RING_INDIRECT_DESC, 0, AVAIL | INDIRECT],
      ['indirect-length', RING_INDIRECT_DESC, 17, AVAIL | INDIRECT],
      ['indirect-length', RING_INDIRECT_DESC, 16 * 9, AVAIL | INDIRECT],
      ['address', RING_INDIRECT_DESC, 16, AVAIL | INDIRECT],
    ] as const;
    for (const [fault, features, length, flags] of cases) {
      const { ring, queue, memory, chain } = setUp(8, features);
      ring.table(table, [[BUFFERS, 1, 0]]);
      ring.descriptor(0, fault === 'address' ? 2 ** 45 : table, length, 5, flags);
      ring.descriptor(1, BUFFERS, 1, 5, AVAIL);
      expect(queue.pop(memory, chain)).toBe(true);
      expect([chain.fault, chain.id, chain.count]).toEqual([fault, 5, 0]);
    }
  });

  it('a table in the middle of a list is refused too', () => {
    const { ring, queue, memory, chain } = setUp(8, RING_INDIRECT_DESC);
    ring.descriptor(0, BUFFERS, 1, 0, AVAIL | NEXT).descriptor(1, table, 16, 6, AVAIL | INDIRECT);
    queue.pop(memory, chain);
    expect([chain.fault, chain.id, chain.descriptorCount]).toEqual(['indirect-linked', 6, 2]);
  });

  it('a table with a segment outside memory is refused', () => {
    const { ring, queue, memory, chain } = setUp(8, RING_INDIRECT_DESC);
    ring.table(table, [[2 ** 50, 1, 0]]).descriptor(0, table, 16, 1, AVAIL | INDIRECT);
    queue.pop(memory, chain);
    expect(chain.fault).toBe('address');
  });
});

describe('2.8.2 used descriptors', () => {
  it('the first flags are written last: with publish, which shows the whole batch', () => {
    const { ring, queue, memory, serve } = setUp();
    for (let i = 0; i < 3; i++) ring.descriptor(i, BUFFERS, 8, i, AVAIL | WRITE);
    serve(8);
    serve(0);
    serve(3);
    expect(ring.readDescriptor(0)).toMatchObject({ id: 0, flags: AVAIL | WRITE });
    expect(queue.publish(memory)).toBe(true);
    expect([0, 1, 2].map(i => ring.readDescriptor(i))).toMatchObject([
      { id: 0, length: 8, flags: AVAIL | USED | WRITE },
      { id: 1, length: 0, flags: AVAIL | USED },
      { id: 2, length: 3, flags: AVAIL | USED | WRITE },
    ]);
    expect(queue.publish(memory)).toBe(false);
  });

  it('2.8.12: buffers are returned in the order in which they complete', () => {
    const { ring, queue, memory, chain } = setUp();
    ring
      .descriptor(0, BUFFERS, 1, 10, AVAIL | NEXT)
      .descriptor(1, BUFFERS, 1, 10, AVAIL)
      .descriptor(2, BUFFERS, 1, 11, AVAIL);
    queue.pop(memory, chain);
    const first = chain.hold();
    queue.pop(memory, chain);
    queue.pushUsed(memory, chain, 0);
    queue.pushUsed(memory, first, 0);
    queue.publish(memory);
    expect([ring.readDescriptor(0).id, ring.readDescriptor(1).id]).toEqual([11, 10]);
    expect(queue.save()).toEqual({ nextAvail: WRAP | 3, nextUsed: WRAP | 3 });
  });

  it('refuses a length that the buffer has no room for', () => {
    const { ring, queue, memory, chain } = setUp();
    ring.descriptor(0, BUFFERS, 8, 0, AVAIL | WRITE);
    queue.pop(memory, chain);
    expect(() => queue.pushUsed(memory, chain, 9)).toThrow(VirtqueueUsageError);
    queue.pushUsed(memory, chain, 8);
    expect(() => queue.save()).toThrow(VirtqueueUsageError);
  });
});

describe('2.8.10 event suppression', () => {
  const publishOne = (features: bigint, event: { position: number; flags: number }) => {
    const { ring, queue, memory, serve } = setUp(8, features);
    ring.driverEvent.write(event);
    ring.descriptor(0, BUFFERS, 1, 0, AVAIL | NEXT).descriptor(1, BUFFERS, 1, 0, AVAIL);
    serve();
    return queue.publish(memory);
  };

  it('the driver gets interrupts always, never, or at a descriptor', () => {
    expect(publishOne(0n, { position: 0, flags: EVENT_FLAGS.ENABLE })).toBe(true);
    expect(publishOne(0n, { position: 0, flags: EVENT_FLAGS.DISABLE })).toBe(false);
    const at = (position: number) => publishOne(RING_EVENT_IDX, { position, flags: EVENT_FLAGS.DESCRIPTOR });
    expect([at(WRAP), at(WRAP | 1), at(WRAP | 2), at(0), at(1)]).toEqual([true, true, false, false, false]);
  });

  it('without event indices, and for the reserved value, it gets them', () => {
    expect(publishOne(0n, { position: WRAP | 7, flags: EVENT_FLAGS.DESCRIPTOR })).toBe(true);
    expect(publishOne(RING_EVENT_IDX, { position: WRAP | 7, flags: 3 })).toBe(true);
  });

  it('a position in the next lap counts from there', () => {
    const { ring, queue, memory, serve } = setUp(2, RING_EVENT_IDX);
    ring.driverEvent.write({ position: 0, flags: EVENT_FLAGS.DESCRIPTOR });
    ring.descriptor(0, BUFFERS, 1, 0, AVAIL).descriptor(1, BUFFERS, 1, 1, AVAIL);
    serve();
    serve();
    expect(queue.publish(memory)).toBe(false);
    ring.descriptor(0, BUFFERS, 1, 0, USED);
    serve();
    expect(queue.publish(memory)).toBe(true);
  });

  it('the device asks for kicks always, never, or at the next descriptor', () => {
    const plain = setUp();
    plain.queue.suppressKicks(plain.memory);
    expect(plain.ring.deviceEvent.read().flags).toBe(EVENT_FLAGS.DISABLE);
    expect(plain.queue.requestKicks(plain.memory)).toBe(false);
    expect(plain.ring.deviceEvent.read().flags).toBe(EVENT_FLAGS.ENABLE);
    const indexed = setUp(8, RING_EVENT_IDX);
    indexed.ring.descriptor(0, BUFFERS, 1, 0, AVAIL);
    expect(indexed.queue.requestKicks(indexed.memory)).toBe(true);
    indexed.serve();
    expect(indexed.queue.requestKicks(indexed.memory)).toBe(false);
    expect(indexed.ring.deviceEvent.read()).toEqual({ position: WRAP | 1, flags: EVENT_FLAGS.DESCRIPTOR });
  });

  it('a queue that goes on from a saved state asks once, unless the driver wants none', () => {
    for (const [flags, expected] of [
      [EVENT_FLAGS.DESCRIPTOR, true],
      [EVENT_FLAGS.DISABLE, false],
    ] as const) {
      const { ring, memory, chain } = setUp(8, RING_EVENT_IDX);
      const state = { nextAvail: WRAP, nextUsed: WRAP };
      const queue = new PackedDeviceQueue(packedConfigOf(8, RING_EVENT_IDX), state);
      ring.driverEvent.write({ position: WRAP | 5, flags });
      ring.descriptor(0, BUFFERS, 1, 0, AVAIL).descriptor(1, BUFFERS, 1, 0, AVAIL);
      queue.pop(memory, chain);
      queue.pushUsed(memory, chain, 0);
      expect(queue.publish(memory)).toBe(expected);
      queue.pop(memory, chain);
      queue.pushUsed(memory, chain, 0);
      expect(queue.publish(memory)).toBe(false);
    }
  });
});

describe('2.8.8 in-order use', () => {
  const offerThree = () => {
    const all = setUp(8, IN_ORDER);
    all.ring
      .descriptor(0, BUFFERS, 4, 0, AVAIL | WRITE | NEXT)
      .descriptor(1, BUFFERS, 4, 0, AVAIL | WRITE)
      .descriptor(2, BUFFERS, 8, 2, AVAIL | WRITE)
      .descriptor(3, BUFFERS, 8, 3, AVAIL | WRITE);
    const held = [0, 1, 2].map(() => {
      all.queue.pop(all.memory, all.chain);
      return all.chain.hold();
    });
    return { ...all, held };
  };

  it('buffers that were written completely share one descriptor, which names the last of them', () => {
    const { ring, queue, memory, held } = offerThree();
    for (const buffer of held) queue.pushUsed(memory, buffer, 8);
    queue.publish(memory);
    expect(ring.readDescriptor(0)).toMatchObject({ id: 3, length: 8, flags: AVAIL | USED | WRITE });
    expect(ring.readDescriptor(2).flags).toBe(AVAIL | WRITE);
    expect(queue.save()).toEqual({ nextAvail: WRAP | 4, nextUsed: WRAP | 4 });
  });

  it('one that was not keeps its own descriptor and length, and a batch can begin after it', () => {
    const { ring, queue, memory, held } = offerThree();
    queue.pushUsed(memory, held[0], 1);
    queue.pushUsed(memory, held[1], 8);
    queue.pushUsed(memory, held[2], 2);
    queue.publish(memory);
    expect(ring.readDescriptor(0)).toMatchObject({ id: 0, length: 1, flags: AVAIL | USED | WRITE });
    expect(ring.readDescriptor(2)).toMatchObject({ id: 3, length: 2, flags: AVAIL | USED | WRITE });
    expect(ring.readDescriptor(3).flags).toBe(AVAIL | WRITE);
  });

  it('a buffer out of turn is refused', () => {
    const { queue, memory, held } = offerThree();
    expect(() => queue.pushUsed(memory, held[1], 8)).toThrow('out of order');
  });
});
