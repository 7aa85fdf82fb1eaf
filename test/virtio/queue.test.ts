import { describe, expect, it } from 'vitest';
import { createDeviceQueue, createDriverQueue } from '../../src/virtio/create.ts';
import { RING_EVENT_IDX, RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import {
  DESCRIPTOR,
  EVENT_SUPPRESSION,
  layoutOf,
  PACKED_DESCRIPTOR,
  RING_HEADER,
  USED_ELEMENT,
} from '../../src/virtio/layout.ts';
import { PackedDeviceQueue } from '../../src/virtio/packed-device-queue.ts';
import { PackedDriverQueue } from '../../src/virtio/packed-driver-queue.ts';
import { checkConfig, passedEvent, VirtqueueError, VirtqueueUsageError } from '../../src/virtio/queue.ts';
import { SplitDeviceQueue } from '../../src/virtio/split-device-queue.ts';
import { SplitDriverQueue } from '../../src/virtio/split-driver-queue.ts';
import { stateFromVringBase, stateToVringBase } from '../../src/virtio/vring-base.ts';
import { configOf, DEVICE_AREA, MEMORY_END, packedConfigOf, testMemory } from './rings.ts';

describe('layouts', () => {
  it('have the sizes of 2.7 and 2.8', () => {
    expect([DESCRIPTOR.size, RING_HEADER.size, USED_ELEMENT.size]).toEqual([16, 4, 8]);
    expect([PACKED_DESCRIPTOR.size, EVENT_SUPPRESSION.size]).toEqual([16, 4]);
    expect(layoutOf({ size: 256, features: VERSION_1 | RING_EVENT_IDX })).toEqual({
      descriptorArea: { alignment: 16, size: 4096 },
      driverArea: { alignment: 2, size: 6 + 2 * 256 },
      deviceArea: { alignment: 4, size: 6 + 8 * 256 },
    });
    expect(layoutOf({ size: 256, features: VERSION_1 }).driverArea.size).toBe(4 + 2 * 256);
    expect(layoutOf({ size: 255, features: RING_PACKED })).toEqual({
      descriptorArea: { alignment: 16, size: 4080 },
      driverArea: { alignment: 4, size: 4 },
      deviceArea: { alignment: 4, size: 4 },
    });
  });
});

describe('a configuration', () => {
  it.each([0, -1, 1.5, 65536, Number.NaN])('of size %d is refused for both kinds', size => {
    expect(() => checkConfig(configOf(size))).toThrow(VirtqueueError);
    expect(() => checkConfig(packedConfigOf(size))).toThrow(VirtqueueError);
  });

  it('of a split queue has a power of two as size (2.7), of a packed one any up to 2^15 (2.8)', () => {
    expect(() => checkConfig(configOf(6))).toThrow('not a power of two');
    expect(() => checkConfig(configOf(32768))).not.toThrow();
    expect(() => checkConfig(packedConfigOf(6))).not.toThrow();
    expect(() => checkConfig(packedConfigOf(32768))).not.toThrow();
  });

  it('has aligned parts (2.7.1, 2.8.11)', () => {
    const config = configOf(8);
    expect(() => checkConfig({ ...config, descriptorArea: 8 })).toThrow('descriptor area');
    expect(() => checkConfig({ ...config, driverArea: 1 })).toThrow('driver area');
    expect(() => checkConfig({ ...config, deviceArea: 2 })).toThrow('device area');
    expect(() => checkConfig({ ...config, driverArea: 2 })).not.toThrow();
    expect(() => checkConfig({ ...packedConfigOf(8), driverArea: 2 })).toThrow('aligned to 4');
    expect(() => checkConfig({ ...config, deviceArea: 2 ** 53 })).toThrow(VirtqueueError);
    expect(() => checkConfig({ ...config, deviceArea: -4 })).toThrow(VirtqueueError);
  });

  it('lies in guest memory with every part', () => {
    const memory = testMemory();
    for (const config of [configOf(8), packedConfigOf(8)]) {
      expect(() => createDeviceQueue(config).validate(memory)).not.toThrow();
      for (const part of ['descriptorArea', 'driverArea', 'deviceArea'] as const) {
        const outside = createDeviceQueue({ ...config, [part]: MEMORY_END });
        expect(() => outside.validate(memory)).toThrow('is not guest memory');
      }
    }
    // The last byte counts: a used ring of 8 entries needs 68 bytes.
    const tail = MEMORY_END - 64;
    expect(() => createDeviceQueue({ ...configOf(8), deviceArea: tail }).validate(memory)).toThrow(
      VirtqueueError,
    );
    expect(() => createDeviceQueue({ ...configOf(8), deviceArea: tail - 4 }).validate(memory)).not.toThrow();
  });

  it('makes the negotiated kind of queue, and a class refuses the other kind', () => {
    expect(createDeviceQueue(configOf(8))).toBeInstanceOf(SplitDeviceQueue);
    expect(createDriverQueue(configOf(8))).toBeInstanceOf(SplitDriverQueue);
    expect(createDeviceQueue(packedConfigOf(8))).toBeInstanceOf(PackedDeviceQueue);
    expect(createDriverQueue(packedConfigOf(8))).toBeInstanceOf(PackedDriverQueue);
    expect(() => new SplitDeviceQueue(packedConfigOf(8))).toThrow(VirtqueueUsageError);
    expect(() => new SplitDriverQueue(packedConfigOf(8))).toThrow(VirtqueueUsageError);
    expect(() => new PackedDeviceQueue(configOf(8))).toThrow(VirtqueueUsageError);
    expect(() => new PackedDriverQueue(configOf(8))).toThrow(VirtqueueUsageError);
  });

  it('errors carry stable codes', () => {
    expect(new VirtqueueError('x').code).toBe('AEROSTAT_VIRTQUEUE');
    expect(new VirtqueueUsageError('x').code).toBe('AEROSTAT_VIRTQUEUE_USAGE');
  });
});

describe('an event index', () => {
  it('is passed when the entry of its number was written, also over the wrap (2.7.7.2)', () => {
    expect(passedEvent(0, 1, 0)).toBe(true);
    expect(passedEvent(0, 2, 1)).toBe(false);
    expect(passedEvent(1, 1, 0)).toBe(false);
    expect(passedEvent(5, 8, 3)).toBe(true);
    expect(passedEvent(8, 8, 3)).toBe(false);
    expect(passedEvent(65535, 2, 65534)).toBe(true);
    expect(passedEvent(1, 2, 65534)).toBe(true);
    expect(passedEvent(2, 2, 65534)).toBe(false);
  });
});

describe('a vring base (vhost-user SET_VRING_BASE, GET_VRING_BASE)', () => {
  it('of a split queue is the next available index; the used one is read from the ring', () => {
    const memory = testMemory();
    const config = configOf(8);
    memory.setU16(DEVICE_AREA + RING_HEADER.offset.index, 65530);
    const state = stateFromVringBase(memory, config, 3);
    expect(state).toEqual({ nextAvail: 3, nextUsed: 65530 });
    expect(stateToVringBase(config.features, state)).toBe(3);
    expect(() => stateFromVringBase(memory, config, 65536)).toThrow(VirtqueueError);
  });

  it('of a packed queue carries both positions with their wrap counters', () => {
    const memory = testMemory();
    const config = packedConfigOf(7);
    for (const base of [0x8000_8000, 0x0006_8006, 0x8000_0006, 0]) {
      const state = stateFromVringBase(memory, config, base);
      expect(stateToVringBase(config.features, state)).toBe(base);
    }
    expect(stateFromVringBase(memory, config, 0x8002_0003)).toEqual({ nextAvail: 3, nextUsed: 0x8002 });
    expect(() => stateFromVringBase(memory, config, 7)).toThrow('beyond its 7 entries');
    expect(() => stateFromVringBase(memory, config, 0x8007_0000)).toThrow(VirtqueueError);
  });

  it('is refused for a queue outside guest memory', () => {
    const config = { ...configOf(8), deviceArea: MEMORY_END };
    expect(() => stateFromVringBase(testMemory(), config, 0)).toThrow(VirtqueueError);
  });

  it('of another type than a number of the protocol is refused', () => {
    expect(() => stateFromVringBase(testMemory(), packedConfigOf(8), 2 ** 33)).toThrow(VirtqueueError);
    expect(() => stateFromVringBase(testMemory(), configOf(8), -1)).toThrow(VirtqueueError);
  });
});
