/** Guests that write nonsense: each buffer gets its fault, or the ring its typed error, and never anything else. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { target } from '../../fuzz/virtio.ts';
import { AnonymousBacking } from '../../src/memory/backing.ts';
import { MemoryAccessError, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { DescriptorChain } from '../../src/virtio/chain.ts';
import { createDeviceQueue, createDriverQueue } from '../../src/virtio/create.ts';
import { RING_INDIRECT_DESC } from '../../src/virtio/features.ts';
import { DESCRIPTOR_FLAG } from '../../src/virtio/layout.ts';
import { QUEUE_SIZE_MAX, VirtqueueError } from '../../src/virtio/queue.ts';
import { SplitDeviceQueue } from '../../src/virtio/split-device-queue.ts';
import {
  BUFFERS,
  configOf,
  DESCRIPTORS,
  MEMORY_END,
  packedConfigOf,
  RawPackedRing,
  RawSplitRing,
  testMemory,
} from './rings.ts';

const { NEXT, WRITE, INDIRECT, AVAIL } = DESCRIPTOR_FLAG;
const TABLE = BUFFERS + 0x1000;

/** What becomes of a buffer that `write` makes with head 0 in a split ring of eight. */
function faultOf(write: (ring: RawSplitRing) => void, features = RING_INDIRECT_DESC) {
  const memory = testMemory();
  const ring = new RawSplitRing(memory, 8);
  const queue = new SplitDeviceQueue(configOf(8, features));
  const chain = new DescriptorChain();
  write(ring);
  ring.offer(0);
  expect(queue.pop(memory, chain)).toBe(true);
  expect([chain.count, chain.readableBytes, chain.writableBytes]).toEqual([0, 0, 0]);
  // The buffer goes back with length 0, and the next one is served as if nothing had been.
  queue.pushUsed(memory, chain, 0);
  queue.publish(memory);
  expect(ring.used(0)).toEqual([0, 0]);
  ring.descriptor(3, BUFFERS, 1).offer(3);
  const next = new DescriptorChain();
  expect(queue.pop(memory, next)).toBe(true);
  expect(next.fault).toBeUndefined();
  return chain.fault;
}

describe('a chain that is nonsense has a fault and no segments', () => {
  it('a head beyond the table', () => {
    const memory = testMemory();
    const ring = new RawSplitRing(memory, 8).offer(8, 65535);
    const queue = new SplitDeviceQueue(configOf(8));
    const chain = new DescriptorChain();
    for (const head of [8, 65535]) {
      expect(queue.pop(memory, chain)).toBe(true);
      expect([chain.fault, chain.id]).toEqual(['head-range', head]);
      queue.pushUsed(memory, chain, 0);
    }
    queue.publish(memory);
    expect(ring.used(1)).toEqual([65535, 0]);
  });

  it('a link beyond the table', () => {
    expect(faultOf(ring => ring.descriptor(0, BUFFERS, 1, NEXT, 8))).toBe('next-range');
  });

  it('loops of one, and of all', () => {
    expect(faultOf(ring => ring.descriptor(0, BUFFERS, 1, NEXT, 0))).toBe('loop');
    expect(
      faultOf(ring => {
        for (let i = 0; i < 8; i++) ring.descriptor(i, BUFFERS, 1, NEXT, (i + 1) % 8);
      }),
    ).toBe('loop');
  });

  it('a readable segment after a writable one (2.7.4.2)', () => {
    expect(faultOf(ring => ring.descriptor(0, BUFFERS, 1, WRITE | NEXT, 1).descriptor(1, BUFFERS, 1))).toBe(
      'order',
    );
  });

  it.each([
    ['behind memory', MEMORY_END, 1],
    ['out of memory at its end', MEMORY_END - 1, 2],
    ['into a hole', 0x20_0000 - 1, 2],
    ['of 4 GiB', 0, 2 ** 32 - 1],
    ['at 2^53', 2 ** 53, 1],
    ['near the last address there is', 2 ** 64 - 2048, 1],
  ])('a segment %s', (_, address, length) => {
    expect(faultOf(ring => ring.descriptor(0, address, length))).toBe('address');
  });

  it('an indirect table that was not negotiated (2.7.5.3.1)', () => {
    expect(
      faultOf(ring => ring.table(TABLE, [[BUFFERS, 1, 0, 0]]).descriptor(0, TABLE, 16, INDIRECT), 0n),
    ).toBe('indirect-refused');
  });

  it('a table within a table', () => {
    const write = (ring: RawSplitRing) =>
      ring.table(TABLE, [[TABLE, 16, INDIRECT, 0]]).descriptor(0, TABLE, 16, INDIRECT);
    expect(faultOf(write)).toBe('indirect-nested');
  });

  it('a table whose descriptor goes on', () => {
    expect(faultOf(ring => ring.descriptor(0, TABLE, 16, INDIRECT | NEXT, 1))).toBe('indirect-linked');
  });

  it.each([0, 1, 15, 17, 16 * 9, 2 ** 32 - 16])('a table of %d bytes', length => {
    expect(faultOf(ring => ring.descriptor(0, TABLE, length, INDIRECT))).toBe('indirect-length');
  });

  it('a table outside memory, and one that ends outside', () => {
    expect(faultOf(ring => ring.descriptor(0, 2 ** 50, 16, INDIRECT))).toBe('address');
    expect(faultOf(ring => ring.descriptor(0, MEMORY_END - 8, 16, INDIRECT))).toBe('address');
  });

  it('a link beyond an indirect table, and a loop in one', () => {
    const through = (next: number) => (ring: RawSplitRing) =>
      ring
        .table(TABLE, [
          [BUFFERS, 1, NEXT, 1],
          [BUFFERS, 1, NEXT, next],
        ])
        .descriptor(0, TABLE, 32, INDIRECT);
    expect(faultOf(through(2))).toBe('next-range');
    expect(faultOf(through(0))).toBe('loop');
  });

  it('direct and indirect segments, together more than the queue has entries (2.7.5.3.1)', () => {
    const table = Array.from({ length: 8 }, (_, i) => [BUFFERS, 1, i < 7 ? NEXT : 0, i + 1] as const);
    const write = (ring: RawSplitRing) =>
      ring
        .table(TABLE, table)
        .descriptor(0, BUFFERS, 1, NEXT, 1)
        .descriptor(1, TABLE, 16 * 8, INDIRECT);
    expect(faultOf(write)).toBe('too-long');
  });

  it('the longest loop that there can be ends', () => {
    const memory = testMemory();
    const config = { ...configOf(QUEUE_SIZE_MAX), deviceArea: 0x14_0000 };
    const queue = new SplitDeviceQueue(config);
    queue.validate(memory);
    const ring = new RawSplitRing(memory, QUEUE_SIZE_MAX);
    for (let i = 0; i < QUEUE_SIZE_MAX; i++) ring.descriptor(i, BUFFERS, 1, NEXT, (i + 1) % QUEUE_SIZE_MAX);
    ring.offer(0);
    const chain = new DescriptorChain();
    expect(queue.pop(memory, chain)).toBe(true);
    expect([chain.fault, chain.descriptorCount]).toEqual(['loop', QUEUE_SIZE_MAX]);
  });

  it('more than 2^32 bytes (2.7.5.2), on both kinds of ring', () => {
    const memory = testMemory();
    // Never touched, so it costs addresses only.
    const guestAddress = 2 ** 33;
    const size = 3 * 2 ** 30;
    memory.add(
      new MemoryRegion({ guestAddress, size, userAddress: guestAddress }, new AnonymousBacking(size)),
    );
    const chain = new DescriptorChain();
    new RawSplitRing(memory, 8)
      .descriptor(0, guestAddress, size, NEXT, 1)
      .descriptor(1, guestAddress, size)
      .offer(0);
    expect(new SplitDeviceQueue(configOf(8)).pop(memory, chain)).toBe(true);
    expect(chain.fault).toBe('total-bytes');
    new RawPackedRing(memory)
      .descriptor(0, guestAddress, size, 1, AVAIL | NEXT)
      .descriptor(1, guestAddress, size, 2, AVAIL);
    expect(createDeviceQueue(packedConfigOf(8)).pop(memory, chain)).toBe(true);
    expect([chain.fault, chain.id]).toEqual(['total-bytes', 2]);
    memory.close();
  });
});

describe('memory that goes away', () => {
  it('is found by validate; without it the next access throws a typed error', () => {
    for (const config of [configOf(8), packedConfigOf(8)]) {
      const memory = testMemory();
      const queue = createDeviceQueue(config);
      queue.validate(memory);
      const [region] = memory.regions;
      memory.remove(region);
      expect(() => queue.validate(memory)).toThrow(VirtqueueError);
      expect(() => queue.pop(memory, new DescriptorChain())).toThrow(MemoryAccessError);
      expect(() => queue.requestKicks(memory)).toThrow(MemoryAccessError);
    }
  });
});

describe('arbitrary bytes', () => {
  it('as guest memory give buffers, faults or VirtqueueError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 6, maxLength: 3000, size: 'max' }), bytes => target(bytes)),
      { numRuns: 500 },
    );
  });

  it('as ring entries that are nearly right do too', () => {
    // Small numbers are more often indices, flags and lengths that mean something.
    const byte = fc.oneof({ weight: 5, arbitrary: fc.nat(9) }, { weight: 1, arbitrary: fc.nat(255) });
    const bytes = fc.array(byte, { minLength: 6, maxLength: 2500, size: 'max' });
    fc.assert(
      fc.property(bytes, numbers => target(Uint8Array.from(numbers))),
      { numRuns: 500 },
    );
  });

  it('from a device give a driver its buffers back once, or VirtqueueError', () => {
    const chunk = fc.uint8Array({ minLength: 1, maxLength: 128, size: 'max' });
    fc.assert(
      fc.property(fc.boolean(), fc.array(chunk, { maxLength: 20 }), (packed, chunks) => {
        const memory = testMemory();
        const config = packed ? packedConfigOf(8) : configOf(8);
        const driver = createDriverQueue(config);
        driver.initialize(memory);
        const away = new Set<number>();
        const used = { token: 0, written: 0 };
        const list = new DescriptorChain();
        list.addWritable(BUFFERS, 16);
        try {
          for (const [token, bytes] of chunks.entries()) {
            if (driver.addBuffer(memory, list, token)) away.add(token);
            driver.publish(memory);
            memory.write(packed ? DESCRIPTORS : config.deviceArea, bytes);
            while (driver.popUsed(memory, used)) {
              expect(away.delete(used.token)).toBe(true);
              expect(used.written).toBeLessThanOrEqual(16);
            }
            driver.requestInterrupts(memory);
          }
        } catch (error) {
          if (!(error instanceof VirtqueueError)) throw error;
        }
        expect(driver.outstandingCount).toBe(away.size);
        expect(driver.freeCount).toBe(8 - away.size);
      }),
      { numRuns: 300 },
    );
  });
});
