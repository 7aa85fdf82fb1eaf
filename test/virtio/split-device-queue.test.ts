import { describe, expect, it } from 'vitest';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { DescriptorChain } from '../../src/virtio/chain.ts';
import { RING_EVENT_IDX, VERSION_1 } from '../../src/virtio/features.ts';
import { SplitDeviceQueue } from '../../src/virtio/split-device-queue.ts';

describe('smoke', () => {
  it('pops and pushes', () => {
    const memory = new GuestMemory([
      new MemoryRegion({ guestAddress: 0, size: 65536, userAddress: 0 }, new HeapBacking(65536)),
    ]);
    const queue = new SplitDeviceQueue({
      size: 8,
      descriptorArea: 0,
      driverArea: 4096,
      deviceArea: 8192,
      features: VERSION_1 | RING_EVENT_IDX,
    });
    queue.validate(memory);
    const chain = new DescriptorChain();
    expect(queue.pop(memory, chain)).toBe(false);
    memory.setU64(16, 0x3000);
    memory.setU32(24, 100);
    memory.setU16(28, 2);
    memory.setU16(4096 + 4, 1);
    memory.setU16(4096 + 2, 1);
    expect(queue.pop(memory, chain)).toBe(true);
    expect([
      chain.id,
      chain.count,
      chain.address(0),
      chain.length(0),
      chain.isWritable(0),
      chain.fault,
    ]).toEqual([1, 1, 0x3000, 100, true, undefined]);
    queue.pushUsed(memory, chain, 10);
    expect(queue.publish(memory)).toBe(true);
    expect([memory.u16(8194), memory.u32(8196), memory.u32(8200)]).toEqual([1, 1, 10]);
    expect(queue.requestKicks(memory)).toBe(false);
  });
});
