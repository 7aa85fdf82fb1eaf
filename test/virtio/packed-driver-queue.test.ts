/** The driver's side of a packed queue against rings written by hand: VIRTIO 1.4, section 2.8, and hostile devices. */
import { describe, expect, it } from 'vitest';
import { SegmentList } from '../../src/virtio/chain.ts';
import { IN_ORDER, RING_EVENT_IDX, RING_INDIRECT_DESC } from '../../src/virtio/features.ts';
import { DESCRIPTOR_FLAG, EVENT_FLAGS, PACKED_DESCRIPTOR } from '../../src/virtio/layout.ts';
import { PackedDriverQueue } from '../../src/virtio/packed-driver-queue.ts';
import { VirtqueueError, VirtqueueUsageError, WRAP } from '../../src/virtio/queue.ts';
import { at, BUFFERS, DESCRIPTORS, packedConfigOf, RawPackedRing, segments, testMemory } from './rings.ts';

const { NEXT, WRITE, INDIRECT, AVAIL, USED } = DESCRIPTOR_FLAG;
const ONE = segments([[BUFFERS, 1]]);
const WRITABLE = segments([], [[BUFFERS, 64]]);

function setUp(size = 8, features = 0n) {
  const memory = testMemory();
  memory.fill(DESCRIPTORS, 0xaa, 0x1_0000);
  const ring = new RawPackedRing(memory);
  const queue = new PackedDriverQueue(packedConfigOf(size, features));
  queue.initialize(memory);
  const used = { token: -1, written: -1 };
  const takeAll = () => {
    const taken: [number, number][] = [];
    while (queue.popUsed(memory, used)) taken.push([used.token, used.written]);
    return taken;
  };
  const idAt = (offset: number) => ring.readDescriptor(offset).id;
  return { memory, ring, queue, used, takeAll, idAt };
}

describe('2.8.21 supplying buffers', () => {
  it('2.8.13: a new ring is zeroed', () => {
    expect(setUp().ring.readDescriptor(7)).toEqual({ address: 0, length: 0, id: 0, flags: 0 });
  });

  it('a list goes into the next descriptors, the id in the last, WRITE on what the device writes', () => {
    const { ring, queue, memory } = setUp();
    queue.addBuffer(
      memory,
      segments(
        [
          [BUFFERS, 1],
          [BUFFERS + 8, 2],
        ],
        [[2 ** 40, 2 ** 32 - 4]],
      ),
      42,
    );
    queue.publish(memory);
    expect([0, 1, 2].map(i => ring.readDescriptor(i))).toMatchObject([
      { address: BUFFERS, length: 1, flags: AVAIL | NEXT },
      { address: BUFFERS + 8, length: 2, flags: AVAIL | NEXT },
      { address: 2 ** 40, length: 2 ** 32 - 4, id: 0, flags: AVAIL | WRITE },
    ]);
    expect([queue.freeCount, queue.outstandingCount]).toEqual([5, 1]);
  });

  it('2.8.21.3: the first flags are written last: with publish, which shows all that was added', () => {
    const { ring, queue, memory } = setUp();
    for (let i = 0; i < 3; i++) queue.addBuffer(memory, ONE, i);
    expect(ring.readDescriptor(0).flags).toBe(0);
    expect(ring.readDescriptor(1).flags).toBe(AVAIL);
    expect(queue.publish(memory)).toBe(true);
    expect(ring.readDescriptor(0).flags).toBe(AVAIL);
    expect(queue.publish(memory)).toBe(false);
  });

  it('2.8.1: the wrap counter turns after the last descriptor, in the middle of a list too', () => {
    const { ring, queue, memory, takeAll, idAt } = setUp(3);
    const two = segments([
      [BUFFERS, 1],
      [BUFFERS, 1],
    ]);
    queue.addBuffer(memory, two, 0);
    queue.publish(memory);
    ring.descriptor(0, 0, 0, idAt(1), AVAIL | USED);
    expect(takeAll()).toEqual([[0, 0]]);
    queue.addBuffer(memory, two, 1);
    queue.publish(memory);
    expect(ring.readDescriptor(2).flags).toBe(AVAIL | NEXT);
    expect(ring.readDescriptor(0).flags).toBe(USED);
    ring.descriptor(2, 0, 0, idAt(0), AVAIL | USED);
    expect(takeAll()).toEqual([[1, 0]]);
    expect(queue.save()).toMatchObject({ nextAvail: 1, nextUsed: 1 });
  });

  it('2.8.17: a ring without enough free descriptors takes nothing; a list is never longer than the ring', () => {
    const { queue, memory } = setUp(2);
    const two = segments([
      [BUFFERS, 1],
      [BUFFERS, 1],
    ]);
    expect(queue.addBuffer(memory, ONE, 0)).toBe(true);
    expect(queue.addBuffer(memory, two, 1)).toBe(false);
    expect(queue.addBuffer(memory, ONE, 2)).toBe(true);
    expect(queue.addBuffer(memory, ONE, 3)).toBe(false);
    const three = segments([0, 1, 2].map(i => [BUFFERS + i, 1] as const));
    expect(() => queue.addBuffer(memory, three, 4)).toThrow(VirtqueueUsageError);
    expect(() => queue.addBuffer(memory, new SegmentList(), 4)).toThrow(VirtqueueUsageError);
  });

  it('2.8.19: in an indirect table WRITE is the only flag; it costs one descriptor', () => {
    const { ring, queue, memory } = setUp(2, RING_INDIRECT_DESC);
    const table = BUFFERS + 0x1000;
    queue.addBuffer(memory, segments([[BUFFERS, 1]], [[BUFFERS + 8, 2]]), 1, table);
    queue.publish(memory);
    expect(ring.readDescriptor(0)).toEqual({ address: table, length: 32, id: 0, flags: AVAIL | INDIRECT });
    expect(queue.freeCount).toBe(1);
    expect([0, 16].map(offset => at(memory, PACKED_DESCRIPTOR, table + offset).read())).toEqual([
      { address: BUFFERS, length: 1, id: 0, flags: 0 },
      { address: BUFFERS + 8, length: 2, id: 0, flags: WRITE },
    ]);
    expect(() => setUp().queue.addBuffer(memory, ONE, 1, table)).toThrow(VirtqueueUsageError);
  });
});

describe('2.8.22 receiving used buffers', () => {
  it('come back by id, in any order; the ring goes on behind all their descriptors', () => {
    const { ring, queue, memory, takeAll, idAt } = setUp(4);
    queue.addBuffer(memory, segments([[BUFFERS, 1]], [[BUFFERS, 64]]), 70);
    queue.addBuffer(memory, WRITABLE, 71);
    queue.publish(memory);
    const [first, second] = [idAt(1), idAt(2)];
    expect(takeAll()).toEqual([]);
    ring.descriptor(0, 0, 10, second, AVAIL | USED | WRITE);
    expect(takeAll()).toEqual([[71, 10]]);
    ring.descriptor(1, 0, 64, first, AVAIL | USED | WRITE);
    expect(takeAll()).toEqual([[70, 64]]);
    expect(queue.freeCount).toBe(4);
  });

  it('2.8.4: without WRITE in a used descriptor its length means nothing', () => {
    const { ring, queue, memory, takeAll, idAt } = setUp();
    queue.addBuffer(memory, WRITABLE, 7);
    queue.publish(memory);
    ring.descriptor(0, 0, 10, idAt(0), AVAIL | USED | NEXT);
    expect(takeAll()).toEqual([[7, 0]]);
  });

  it('a device that claims more than there was room for is not believed', () => {
    const { ring, queue, memory, takeAll, idAt } = setUp();
    queue.addBuffer(memory, WRITABLE, 7);
    queue.publish(memory);
    ring.descriptor(0, 0, 65, idAt(0), AVAIL | USED | WRITE);
    expect(takeAll()).toEqual([[7, 64]]);
  });

  it('a device that returns what it does not have is refused', () => {
    for (const id of [8, 65535, 3]) {
      const { ring, queue, memory, used } = setUp();
      queue.addBuffer(memory, ONE, 0);
      queue.publish(memory);
      ring.descriptor(0, 0, 0, id, AVAIL | USED);
      expect(() => queue.popUsed(memory, used)).toThrow(VirtqueueError);
      expect(queue.outstandingCount).toBe(1);
    }
  });

  it('a device that returns a buffer twice is refused', () => {
    const { ring, queue, memory, used, idAt } = setUp();
    queue.addBuffer(memory, ONE, 0);
    queue.publish(memory);
    const id = idAt(0);
    ring.descriptor(0, 0, 0, id, AVAIL | USED).descriptor(1, 0, 0, id, AVAIL | USED);
    expect(queue.popUsed(memory, used)).toBe(true);
    expect(() => queue.popUsed(memory, used)).toThrow('which it does not have');
  });
});

describe('2.8.10 event suppression', () => {
  const publishOne = (features: bigint, position: number, flags: number) => {
    const { ring, queue, memory } = setUp(8, features);
    ring.deviceEvent.write({ position, flags });
    queue.addBuffer(memory, ONE, 0);
    return queue.publish(memory);
  };

  it('the device gets kicks always, never, or at a descriptor', () => {
    expect(publishOne(0n, 0, EVENT_FLAGS.ENABLE)).toBe(true);
    expect(publishOne(0n, 0, EVENT_FLAGS.DISABLE)).toBe(false);
    expect(publishOne(RING_EVENT_IDX, WRAP, EVENT_FLAGS.DESCRIPTOR)).toBe(true);
    expect(publishOne(RING_EVENT_IDX, WRAP | 1, EVENT_FLAGS.DESCRIPTOR)).toBe(false);
  });

  it('the driver asks for interrupts always, never, or at a descriptor', () => {
    const plain = setUp();
    plain.queue.suppressInterrupts(plain.memory);
    expect(plain.ring.driverEvent.read().flags).toBe(EVENT_FLAGS.DISABLE);
    expect(plain.queue.requestInterrupts(plain.memory)).toBe(false);
    expect(plain.ring.driverEvent.read().flags).toBe(EVENT_FLAGS.ENABLE);
    const indexed = setUp(4, RING_EVENT_IDX);
    for (let i = 0; i < 3; i++) indexed.queue.addBuffer(indexed.memory, ONE, i);
    indexed.queue.publish(indexed.memory);
    expect(indexed.queue.requestInterrupts(indexed.memory)).toBe(false);
    expect(indexed.ring.driverEvent.read()).toEqual({ position: WRAP, flags: EVENT_FLAGS.DESCRIPTOR });
    indexed.queue.requestInterrupts(indexed.memory, 100);
    expect(indexed.ring.driverEvent.read().position).toBe(WRAP | 2);
  });

  it('tells of what came back before the request could be seen', () => {
    const { ring, queue, memory, takeAll, idAt } = setUp(8, RING_EVENT_IDX);
    queue.addBuffer(memory, ONE, 0);
    queue.publish(memory);
    ring.descriptor(0, 0, 0, idAt(0), AVAIL | USED);
    expect(queue.requestInterrupts(memory)).toBe(true);
    expect(takeAll()).toHaveLength(1);
    expect(queue.requestInterrupts(memory)).toBe(false);
  });
});

describe('2.8.8 in-order use', () => {
  it('one descriptor stands for all up to the buffer that it names; those before were written completely', () => {
    const { ring, queue, memory, takeAll } = setUp(5, IN_ORDER);
    queue.addBuffer(memory, segments([[BUFFERS, 1]], [[BUFFERS, 64]]), 0);
    queue.addBuffer(memory, WRITABLE, 1);
    queue.addBuffer(memory, WRITABLE, 2);
    queue.publish(memory);
    const last = ring.readDescriptor(3).id;
    ring.descriptor(0, 0, 5, last, AVAIL | USED | WRITE);
    expect(takeAll()).toEqual([
      [0, 64],
      [1, 64],
      [2, 5],
    ]);
    expect(queue.save()).toMatchObject({ nextAvail: WRAP | 4, nextUsed: WRAP | 4 });
  });

  it('a state within a batch is refused, and its buffers need no interrupt', () => {
    const { ring, queue, memory, used } = setUp(4, IN_ORDER);
    queue.addBuffer(memory, WRITABLE, 0);
    queue.addBuffer(memory, WRITABLE, 1);
    queue.publish(memory);
    ring.descriptor(0, 0, 5, ring.readDescriptor(1).id, AVAIL | USED | WRITE);
    queue.popUsed(memory, used);
    expect(() => queue.save()).toThrow('within a batch');
    expect(queue.requestInterrupts(memory)).toBe(true);
  });
});

describe('a saved state', () => {
  it('is plain data from which another queue goes on, and asks for one kick', () => {
    const { ring, queue, memory, idAt } = setUp(4, RING_EVENT_IDX);
    queue.addBuffer(memory, WRITABLE, 5);
    expect(() => queue.save()).toThrow(VirtqueueUsageError);
    queue.publish(memory);
    ring.deviceEvent.write({ position: 0, flags: EVENT_FLAGS.DESCRIPTOR });
    const other = new PackedDriverQueue(
      packedConfigOf(4, RING_EVENT_IDX),
      JSON.parse(JSON.stringify(queue.save())),
    );
    expect([other.freeCount, other.outstandingCount]).toEqual([3, 1]);
    expect(other.save()).toEqual(queue.save());
    other.addBuffer(memory, ONE, 6);
    expect(other.publish(memory)).toBe(true);
    expect(idAt(1)).not.toBe(idAt(0));
    const used = { token: 0, written: 0 };
    ring.descriptor(0, 0, 3, idAt(0), AVAIL | USED | WRITE);
    expect(other.popUsed(memory, used)).toBe(true);
    expect(used).toEqual({ token: 5, written: 3 });
  });

  it('detaching gives back every token and starts anew', () => {
    const { ring, queue, memory, takeAll, idAt } = setUp(4);
    for (let i = 0; i < 3; i++) queue.addBuffer(memory, ONE, 10 + i);
    queue.publish(memory);
    const tokens: number[] = [];
    queue.detachUnused(token => tokens.push(token));
    expect(tokens.sort()).toEqual([10, 11, 12]);
    queue.initialize(memory);
    expect([queue.freeCount, queue.outstandingCount]).toEqual([4, 0]);
    queue.addBuffer(memory, ONE, 20);
    queue.publish(memory);
    ring.descriptor(0, 0, 0, idAt(0), AVAIL | USED);
    expect(takeAll()).toEqual([[20, 0]]);
  });
});
