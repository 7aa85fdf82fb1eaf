/** The driver's side of a split queue against rings written by hand: VIRTIO 1.4, section 2.7, and hostile devices. */
import { describe, expect, it } from 'vitest';
import { SegmentList } from '../../src/virtio/chain.ts';
import { IN_ORDER, RING_EVENT_IDX, RING_INDIRECT_DESC } from '../../src/virtio/features.ts';
import { DESCRIPTOR, DESCRIPTOR_FLAG } from '../../src/virtio/layout.ts';
import { VirtqueueError, VirtqueueUsageError } from '../../src/virtio/queue.ts';
import { SplitDriverQueue } from '../../src/virtio/split-driver-queue.ts';
import { at, BUFFERS, configOf, DESCRIPTORS, RawSplitRing, segments, testMemory } from './rings.ts';

const { NEXT, WRITE, INDIRECT } = DESCRIPTOR_FLAG;
const ONE = segments([[BUFFERS, 1]]);
const WRITABLE = segments([], [[BUFFERS, 64]]);

function setUp(size = 8, features = 0n) {
  const memory = testMemory();
  memory.fill(DESCRIPTORS, 0xaa, 0x1_0000);
  const ring = new RawSplitRing(memory, size);
  ring.usedFlags = 0xffff;
  const queue = new SplitDriverQueue(configOf(size, features));
  queue.initialize(memory);
  const used = { token: -1, written: -1 };
  /** Takes everything back: token and length of each. */
  const takeAll = () => {
    const taken: [number, number][] = [];
    while (queue.popUsed(memory, used)) taken.push([used.token, used.written]);
    return taken;
  };
  return { memory, ring, queue, used, takeAll };
}

describe('2.7.13 supplying buffers', () => {
  it('2.7.10.1: a new ring is zeroed, its flags with it', () => {
    const { ring } = setUp();
    expect([ring.usedFlags, ring.usedIndex, ring.availIndex]).toEqual([0, 0, 0]);
    expect(ring.readDescriptor(7)).toEqual({ address: 0, length: 0, flags: 0, next: 0 });
  });

  it('2.7.13.1: segments go into free descriptors, linked, writable ones marked', () => {
    const { ring, queue, memory } = setUp();
    const list = segments(
      [
        [BUFFERS, 1],
        [BUFFERS + 16, 2],
      ],
      [[2 ** 40 + 4096, 2 ** 32 - 4]],
    );
    expect(queue.addBuffer(memory, list, 42)).toBe(true);
    const head = ring.avail(0);
    const first = ring.readDescriptor(head);
    expect(first).toMatchObject({ address: BUFFERS, length: 1, flags: NEXT });
    const second = ring.readDescriptor(first.next);
    expect(second).toMatchObject({ address: BUFFERS + 16, length: 2, flags: NEXT });
    const third = ring.readDescriptor(second.next);
    expect(third).toEqual({ address: 2 ** 40 + 4096, length: 2 ** 32 - 4, flags: WRITE, next: 0 });
    expect([queue.freeCount, queue.outstandingCount]).toEqual([5, 1]);
  });

  it('2.7.13.3: the index moves with publish, once for all that was added', () => {
    const { ring, queue, memory } = setUp();
    for (let i = 0; i < 3; i++) queue.addBuffer(memory, ONE, i);
    expect(ring.availIndex).toBe(0);
    expect(queue.publish(memory)).toBe(true);
    expect(ring.availIndex).toBe(3);
    expect(queue.publish(memory)).toBe(false);
  });

  it('a queue without enough free descriptors takes nothing and changes nothing', () => {
    const { queue, memory, ring } = setUp(2);
    const two = segments([
      [BUFFERS, 1],
      [BUFFERS, 1],
    ]);
    expect(queue.addBuffer(memory, ONE, 0)).toBe(true);
    expect(queue.addBuffer(memory, two, 1)).toBe(false);
    expect(queue.addBuffer(memory, ONE, 2)).toBe(true);
    expect(queue.addBuffer(memory, ONE, 3)).toBe(false);
    queue.publish(memory);
    expect(ring.availIndex).toBe(2);
  });

  it('2.7.5.2, 2.7.5.3.1: no buffer is empty, longer than the queue, or of more than 2^32 bytes', () => {
    const { queue, memory } = setUp(2);
    const tooLong = segments([
      [0, 1],
      [0, 1],
      [0, 1],
    ]);
    const tooBig = segments([
      [0, 2 ** 32 - 1],
      [0, 2],
    ]);
    for (const list of [new SegmentList(), tooLong, tooBig]) {
      expect(() => queue.addBuffer(memory, list, 0)).toThrow(VirtqueueUsageError);
    }
  });

  it('2.7.5.3: an indirect table costs one descriptor', () => {
    const { ring, queue, memory } = setUp(2, RING_INDIRECT_DESC);
    const table = BUFFERS + 0x1000;
    expect(queue.addBuffer(memory, segments([[BUFFERS, 1]], [[BUFFERS + 8, 2]]), 1, table)).toBe(true);
    expect(queue.freeCount).toBe(1);
    expect(ring.readDescriptor(ring.avail(0))).toEqual({
      address: table,
      length: 32,
      flags: INDIRECT,
      next: 0,
    });
    expect(at(memory, DESCRIPTOR, table).read()).toEqual({
      address: BUFFERS,
      length: 1,
      flags: NEXT,
      next: 1,
    });
    expect(at(memory, DESCRIPTOR, table + 16).read()).toEqual({
      address: BUFFERS + 8,
      length: 2,
      flags: WRITE,
      next: 0,
    });
  });

  it('2.7.5.3.1: a table is refused where not negotiated', () => {
    const { queue, memory } = setUp();
    expect(() => queue.addBuffer(memory, ONE, 1, BUFFERS)).toThrow(VirtqueueUsageError);
  });
});

describe('2.7.14 receiving used buffers', () => {
  it('come back with their tokens, in any order, and free their descriptors', () => {
    const { ring, queue, memory, takeAll } = setUp(4);
    const pair = segments([[BUFFERS, 1]], [[BUFFERS, 64]]);
    queue.addBuffer(memory, pair, 2 ** 52);
    queue.addBuffer(memory, pair, 1);
    queue.publish(memory);
    expect(takeAll()).toEqual([]);
    ring.use([ring.avail(1), 10], [ring.avail(0), 64]);
    expect(takeAll()).toEqual([
      [1, 10],
      [2 ** 52, 64],
    ]);
    expect([queue.freeCount, queue.outstandingCount]).toEqual([4, 0]);
    const four = segments([0, 1, 2, 3].map(i => [BUFFERS + i, 1] as const));
    expect(queue.addBuffer(memory, four, 3)).toBe(true);
  });

  it('goes on over the wrap of the index at 65536', () => {
    const { memory, ring, queue } = setUp(4);
    ring.availIndex = ring.usedIndex = 65534;
    const later = new SplitDriverQueue(configOf(4), { ...queue.save(), nextAvail: 65534, nextUsed: 65534 });
    const used = { token: 0, written: 0 };
    for (let i = 0; i < 5; i++) {
      later.addBuffer(memory, ONE, i);
      later.publish(memory);
      ring.use([ring.avail((65534 + i) & 0xffff), 0]);
      expect(later.popUsed(memory, used)).toBe(true);
      expect(used.token).toBe(i);
    }
    expect(ring.availIndex).toBe(3);
  });

  it('a device that claims more than there was room for is not believed', () => {
    const { ring, queue, memory, takeAll } = setUp();
    queue.addBuffer(memory, WRITABLE, 7);
    queue.publish(memory);
    ring.use([ring.avail(0), 65]);
    expect(takeAll()).toEqual([[7, 64]]);
  });

  it.each([
    ['an id beyond the table', 8],
    ['a large id', 2 ** 32 - 1],
    ['an id that is not outstanding', 5],
  ])('a device that returns %s is refused', (_, id) => {
    const { ring, queue, memory, used } = setUp();
    queue.addBuffer(memory, ONE, 0);
    queue.publish(memory);
    ring.use([id, 0]);
    expect(() => queue.popUsed(memory, used)).toThrow(VirtqueueError);
    expect(queue.outstandingCount).toBe(1);
  });

  it('a device that returns a buffer twice is refused', () => {
    const { ring, queue, memory, used } = setUp();
    queue.addBuffer(memory, ONE, 0);
    queue.addBuffer(memory, ONE, 1);
    queue.publish(memory);
    ring.use([ring.avail(0), 0], [ring.avail(0), 0]);
    expect(queue.popUsed(memory, used)).toBe(true);
    expect(() => queue.popUsed(memory, used)).toThrow('which it does not have');
  });

  it('a used index beyond what the device has is refused, published buffers alone counted', () => {
    const { ring, queue, memory, used } = setUp();
    queue.addBuffer(memory, ONE, 0);
    queue.publish(memory);
    queue.addBuffer(memory, ONE, 1);
    ring.usedIndex = 2;
    expect(() => queue.popUsed(memory, used)).toThrow('the device has 1 buffers');
    expect(() => queue.requestInterrupts(memory)).toThrow(VirtqueueError);
  });

  it('nothing that the device writes into the table changes what is free', () => {
    const { ring, queue, memory, takeAll } = setUp(4);
    const two = segments([
      [BUFFERS, 1],
      [BUFFERS, 1],
    ]);
    queue.addBuffer(memory, two, 0);
    queue.publish(memory);
    const head = ring.avail(0);
    for (let i = 0; i < 4; i++) ring.descriptor(i, 0, 0, NEXT, i);
    ring.use([head, 0]);
    expect(takeAll()).toEqual([[0, 0]]);
    const four = segments([0, 1, 2, 3].map(i => [BUFFERS + i, 1] as const));
    expect(queue.addBuffer(memory, four, 1)).toBe(true);
    const seen = new Set<number>();
    for (let index = ring.avail(1), i = 0; i < 4; i++, index = ring.readDescriptor(index).next)
      seen.add(index);
    expect(seen.size).toBe(4);
  });
});

describe('2.7.10 available buffer notifications', () => {
  const publishOne = (features: bigint, prepare: (ring: RawSplitRing) => void) => {
    const { ring, queue, memory } = setUp(8, features);
    prepare(ring);
    queue.addBuffer(memory, ONE, 0);
    return queue.publish(memory);
  };

  it('2.7.10.1: without event indices flags decide, and avail_event does not count', () => {
    expect(
      publishOne(0n, ring => {
        ring.availEvent = 5;
      }),
    ).toBe(true);
    expect(
      publishOne(0n, ring => {
        ring.usedFlags = 1;
      }),
    ).toBe(false);
  });

  it('2.7.10.1: with event indices avail_event decides, and flags do not count', () => {
    expect(
      publishOne(RING_EVENT_IDX, ring => {
        ring.usedFlags = 1;
      }),
    ).toBe(true);
    expect(
      publishOne(RING_EVENT_IDX, ring => {
        ring.availEvent = 1;
      }),
    ).toBe(false);
  });
});

describe('2.7.7 used buffer notifications', () => {
  it('2.7.7.1: without event indices the driver sets flags to 1 and 0', () => {
    const { ring, queue, memory } = setUp();
    queue.suppressInterrupts(memory);
    expect(ring.availFlags).toBe(1);
    expect(queue.requestInterrupts(memory)).toBe(false);
    expect(ring.availFlags).toBe(0);
  });

  it('2.7.7.1: with event indices flags stay 0 and used_event names the entry to be told of', () => {
    const { ring, queue, memory } = setUp(8, RING_EVENT_IDX);
    for (let i = 0; i < 4; i++) queue.addBuffer(memory, ONE, i);
    queue.publish(memory);
    queue.suppressInterrupts(memory);
    expect([ring.availFlags, ring.usedEvent]).toEqual([0, 0x8000]);
    expect(queue.requestInterrupts(memory)).toBe(false);
    expect(ring.usedEvent).toBe(0);
    expect(queue.requestInterrupts(memory, 2)).toBe(false);
    expect(ring.usedEvent).toBe(2);
    // There are four: an event further off would never come.
    queue.requestInterrupts(memory, 100);
    expect([ring.availFlags, ring.usedEvent]).toEqual([0, 3]);
  });

  it('tells of what came back before the request could be seen', () => {
    for (const features of [0n, RING_EVENT_IDX]) {
      const { ring, queue, memory, takeAll } = setUp(8, features);
      queue.addBuffer(memory, ONE, 0);
      queue.publish(memory);
      expect(queue.requestInterrupts(memory)).toBe(false);
      ring.use([ring.avail(0), 0]);
      expect(queue.requestInterrupts(memory)).toBe(true);
      expect(takeAll()).toHaveLength(1);
      expect(queue.requestInterrupts(memory)).toBe(false);
    }
  });
});

describe('2.7.9 in-order use', () => {
  const addThree = () => {
    const all = setUp(4, IN_ORDER);
    for (let i = 0; i < 3; i++) all.queue.addBuffer(all.memory, WRITABLE, i);
    all.queue.publish(all.memory);
    return all;
  };

  it('2.7.5.2: descriptors are used in ring order, over the end of the table', () => {
    const { ring, queue, memory, takeAll } = addThree();
    expect([0, 1, 2].map(i => ring.avail(i))).toEqual([0, 1, 2]);
    ring.use([0, 64], [1, 64], [2, 64]);
    takeAll();
    const three = segments([0, 1, 2].map(i => [BUFFERS + i, 1] as const));
    queue.addBuffer(memory, three, 9);
    expect(ring.avail(3)).toBe(3);
    expect([ring.readDescriptor(3).next, ring.readDescriptor(0).next]).toEqual([0, 1]);
  });

  it('one element stands for all up to the buffer that it names; those before were written completely', () => {
    const { ring, queue, memory, takeAll } = addThree();
    ring.use([2, 5]);
    ring.usedIndex = 3;
    expect(takeAll()).toEqual([
      [0, 64],
      [1, 64],
      [2, 5],
    ]);
    expect(queue.freeCount).toBe(4);
    queue.addBuffer(memory, WRITABLE, 3);
    queue.publish(memory);
    ring.use([3, 1]);
    expect(takeAll()).toEqual([[3, 1]]);
  });

  it('a state within a batch is refused', () => {
    const { ring, queue, memory, used } = addThree();
    ring.use([2, 5]);
    ring.usedIndex = 3;
    queue.popUsed(memory, used);
    expect(() => queue.save()).toThrow('within a batch');
  });
});

describe('a saved state', () => {
  it('is refused while something is added and not published', () => {
    const { queue, memory } = setUp();
    queue.addBuffer(memory, ONE, 0);
    expect(() => queue.save()).toThrow(VirtqueueUsageError);
  });

  it('is plain data from which another queue goes on, and asks for one kick', () => {
    const { ring, queue, memory } = setUp(4, RING_EVENT_IDX);
    const pair = segments([[BUFFERS, 1]], [[BUFFERS, 64]]);
    queue.addBuffer(memory, pair, 5);
    queue.addBuffer(memory, ONE, 6);
    queue.publish(memory);
    ring.availEvent = 100;
    const saved = JSON.parse(JSON.stringify(queue.save()));
    const other = new SplitDriverQueue(configOf(4, RING_EVENT_IDX), saved);
    expect([other.freeCount, other.outstandingCount]).toEqual([1, 2]);
    expect(other.save()).toEqual(queue.save());
    const used = { token: 0, written: 0 };
    ring.use([ring.avail(0), 3]);
    expect(other.popUsed(memory, used)).toBe(true);
    expect(used).toEqual({ token: 5, written: 3 });
    other.addBuffer(memory, pair, 7);
    expect(other.publish(memory)).toBe(true);
    other.addBuffer(memory, ONE, 8);
    expect(other.publish(memory)).toBe(false);
  });

  it('detaching gives back every token and starts anew', () => {
    const { ring, queue, memory, takeAll } = setUp(4);
    for (let i = 0; i < 3; i++) queue.addBuffer(memory, ONE, 10 + i);
    queue.publish(memory);
    ring.use([ring.avail(0), 0]);
    expect(takeAll()).toEqual([[10, 0]]);
    const tokens: number[] = [];
    queue.detachUnused(token => tokens.push(token));
    expect(tokens.sort()).toEqual([11, 12]);
    queue.initialize(memory);
    expect([queue.freeCount, queue.outstandingCount]).toEqual([4, 0]);
    queue.addBuffer(memory, ONE, 20);
    queue.publish(memory);
    ring.use([ring.avail(0), 0]);
    expect(takeAll()).toEqual([[20, 0]]);
  });
});
