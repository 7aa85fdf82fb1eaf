/**
 * Rings that make no sense, whose memory goes away, or that are always full: a ring is stopped and told of, or has to
 * wait for its turn, and the others go on.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { FileBacking } from '../../src/memory/file-backing.ts';
import { MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { libc } from '../../src/sys/libc.ts';
import { createDeviceQueue } from '../../src/virtio/create.ts';
import { RING_INDIRECT_DESC } from '../../src/virtio/features.ts';
import { DESCRIPTOR, DESCRIPTOR_FLAG, RING_HEADER } from '../../src/virtio/layout.ts';
import { type DeviceRig, FIRST_PAGE, openRig, packed, pfns } from '../support/device-rig.ts';

import { expectOthersToWork, ROLES } from './others-at-work.ts';

const P = FIRST_PAGE;
const { NEXT, INDIRECT } = DESCRIPTOR_FLAG;

afterAll(() => expect(openDescriptorCount()).toBe(0));

describe('a ring that makes no sense', () => {
  test.each(ROLES)('is stopped: the available index of the %s queue jumps', role => {
    const rig = openRig();
    const queue = rig.queue(role);
    rig.memory.setU16(queue.config.driverArea + 2, 65);
    expect(() => queue.kick()).not.toThrow();
    expect(queue.failures).toBe(1);
    expect(rig.host.brokenRings).toMatchObject([{ index: queue.index }]);
    expect(rig.device.counters.brokenRings).toBe(1);
    // It is not looked at again.
    expect(rig.device.serveQueue(queue.index)).toBe(false);
    expect(rig.device.counters.brokenRings).toBe(1);
    expectOthersToWork(rig, role);
  });

  test('is stopped: a packed list that never ends', () => {
    const rig = openRig({ ...packed, queueSize: 4 });
    const { index, config } = rig.queue('inflate');
    for (let entry = 0; entry < 4; entry++) {
      rig.memory.setU16(config.descriptorArea + entry * 16 + 14, DESCRIPTOR_FLAG.AVAIL | NEXT);
    }
    expect(() => rig.device.serveQueue(index)).not.toThrow();
    expect(rig.host.brokenRings).toHaveLength(1);
    expectOthersToWork(rig, 'inflate');
  });

  test('can be set up anew, and has forgotten the buffer that it kept', () => {
    const rig = openRig();
    const queue = rig.queue('stats');
    queue.exchange({ out: [new Uint8Array(10)] });
    rig.memory.setU16(queue.config.driverArea + 2, 999);
    queue.kick();
    expect(rig.device.statistics.running).toBe(false);
    queue.driver.detachUnused(() => {});
    queue.driver.initialize(rig.memory);
    rig.device.startQueue(queue.index, createDeviceQueue(queue.config), rig.memory, {
      interrupt: () => {},
      fail: () => {},
    });
    rig.device.statistics.request();
    expect(queue.collect()).toEqual([]);
    queue.exchange({ out: [new Uint8Array(20)] });
    rig.device.statistics.request();
    expect(queue.collect()).toHaveLength(1);
  });
});

describe('memory that goes while rings are in it', () => {
  const withoutMemory = (rig: DeviceRig): void => {
    rig.device.regionRemoved(rig.region);
    rig.memory.remove(rig.region)?.close();
  };

  test.each(ROLES)('stops the %s ring when it is served', role => {
    const rig = openRig();
    withoutMemory(rig);
    expect(() => rig.device.serveQueue(rig.queue(role).index)).not.toThrow();
    expect(rig.queue(role).failures).toBe(1);
    expect(rig.host.brokenRings).toHaveLength(1);
  });

  test('stops the statistics ring when a sample is asked for', () => {
    const rig = openRig();
    rig.queue('stats').exchange({ out: [new Uint8Array(10)] });
    withoutMemory(rig);
    expect(() => rig.device.statistics.request()).not.toThrow();
    expect(rig.host.brokenRings).toMatchObject([{ index: rig.queue('stats').index }]);
    expect(() => rig.device.statistics.request()).not.toThrow();
    expect(rig.host.brokenRings).toHaveLength(1);
  });

  test('stops the request ring when something is asked', () => {
    const rig = openRig({ profile: 'page-range' });
    rig.queue('request').exchange({ in: [[P * PAGE_SIZE, 16]] });
    withoutMemory(rig);
    expect(() => rig.device.requests.send(0)).not.toThrow();
    expect(rig.host.brokenRings).toHaveLength(1);
  });

  test('keeps no ring from being paused', () => {
    const rig = openRig();
    rig.queue('stats').exchange({ out: [new Uint8Array(10)] });
    const other = openRig({ profile: 'page-range' });
    other.queue('request').exchange({ in: [[P * PAGE_SIZE, 16]] });
    for (const each of [rig, other]) {
      withoutMemory(each);
      for (const { index } of each.queues) expect(() => each.device.stopQueue(index, 'paused')).not.toThrow();
      expect(each.host.brokenRings).toEqual([]);
    }
    expect(rig.device.statistics.sampledMs).toBeNull();
  });

  test('stops the ring whose list lies in memory that cannot be mapped', () => {
    const F_ADD_SEALS = 1033;
    const F_SEAL_FUTURE_WRITE = 0x10;
    const rig = openRig();
    const fd = createMemfd({ name: 'sealed', size: 2 ** 20 });
    expect(libc.fcntl(fd.number, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)).toBe(0);
    const region = new MemoryRegion(
      { guestAddress: 2 ** 30, size: 2 ** 20, userAddress: 2 ** 30 },
      new FileBacking(fd, 0, 2 ** 20),
    );
    rig.memory.add(region);
    rig.device.regionAdded(region);
    rig.queue('inflate').add({ outAt: [[2 ** 30, 64]] });
    expect(() => rig.queue('inflate').kick()).not.toThrow();
    expect(rig.host.brokenRings.map(({ error }) => (error as { code?: string }).code)).toEqual([
      'AEROSTAT_SYSTEM',
    ]);
    expectOthersToWork(rig, 'inflate');
  });
});

describe('a guest that never stops', () => {
  test('gets a turn’s share of work, and the rest of its batch after the others', () => {
    const rig = openRig({ profile: 'page-chunks', memory: 'shmem', memoryBytes: 2 ** 34, queueSize: 64 });
    const queue = rig.queue('inflate');
    const [buffer] = rig.encode(rig.inflateFormat, [[P, rig.region.pageCount - P]]);
    for (let count = 0; count < 16; count++) queue.add(buffer);
    queue.driver.publish(rig.memory);
    let turns = 1;
    while (rig.device.serveQueue(queue.index)) turns++;
    expect(turns).toBeGreaterThanOrEqual(8);
    expect(queue.collect()).toHaveLength(16);
  });

  test.each([
    ['chains of nothing as long as the ring', 0n],
    ['tables as long as the ring that are nonsense in the end', RING_INDIRECT_DESC],
  ])('gets a turn’s share of %s, which name no page and have no bytes', (_, ringFeatures) => {
    const size = 1024;
    const rig = openRig({ queueSize: size, ringFeatures });
    const { config, index } = rig.queue('deflate');
    const table = ringFeatures === 0n ? config.descriptorArea : P * PAGE_SIZE;
    for (let at = 0; at < size; at++) {
      const descriptor = { address: 0, length: 0, flags: NEXT, next: (at + 1) % size };
      rig.memory.write(table + at * DESCRIPTOR.size, DESCRIPTOR.encode(descriptor));
    }
    if (ringFeatures !== 0n) {
      const descriptor = { address: table, length: size * DESCRIPTOR.size, flags: INDIRECT, next: 0 };
      rig.memory.write(config.descriptorArea, DESCRIPTOR.encode(descriptor));
    }
    // All buffers are the same chain: a guest writes one number to have all of it walked again.
    rig.memory.setU16(config.driverArea + RING_HEADER.offset.index, size);
    let turns = 1;
    while (rig.device.serveQueue(index)) turns++;
    expect(rig.device.counters.badBuffers).toBe(size);
    expect(turns).toBeGreaterThanOrEqual(size / 64);
  });

  test('gets a turn’s share of buffers that cost nothing but themselves', () => {
    const size = 16384;
    const rig = openRig({ queueSize: 64, ringFeatures: 0n });
    const { index } = rig.queue('deflate');
    // A ring as large as there may be, where a test has its pages.
    const base = P * PAGE_SIZE;
    const config = {
      size,
      features: rig.features,
      descriptorArea: base,
      driverArea: base + size * DESCRIPTOR.size,
      deviceArea: base + 2 * size * DESCRIPTOR.size,
    };
    rig.device.stopQueue(index, 'paused');
    rig.device.startQueue(index, createDeviceQueue(config), rig.memory, {
      interrupt: () => {},
      fail: () => {},
    });
    rig.memory.setU16(config.driverArea + RING_HEADER.offset.index, size);
    let turns = 1;
    while (rig.device.serveQueue(index)) turns++;
    expect(rig.device.counters.buffers).toBe(size);
    expect(turns).toBeGreaterThanOrEqual(4);
  });

  test('cannot make one list cost more than memory has pages', () => {
    const rig = openRig({ profile: 'page-range' });
    const { pageCount } = rig.region;
    const workBefore = rig.device.accounts.budget.spent;
    const entries = 60_000;
    const bytes = new Uint8Array(8 + entries * 8);
    const view = new DataView(bytes.buffer);
    view.setUint32(4, entries * 8, true);
    for (let index = 0; index < entries; index++) view.setUint32(8 + index * 8, 4095, true);
    rig.queue('inflate').exchange({ out: [bytes] });
    expect(rig.balloonedPages).toBe(4095);
    const runWork = 32 * entries;
    const bufferWork = 2048;
    expect(rig.device.accounts.budget.spent - workBefore).toBeLessThanOrEqual(
      pageCount + runWork + bytes.length + bufferWork,
    );
    expect(rig.device.counters.badPages).toBe(entries * 4095 - pageCount);
  });

  test('gets no more than a few batches in a row', () => {
    const rig = openRig({ queueSize: 8 });
    const queue = rig.queue('inflate');
    let refills = 0;
    queue.beforePublish = () => {
      if (refills++ < 20) {
        queue.add({ out: [pfns(P)] });
        queue.driver.publish(rig.memory);
      }
      rig.forgetLists();
    };
    queue.add({ out: [pfns(P)] });
    queue.driver.publish(rig.memory);
    expect(rig.device.serveQueue(queue.index)).toBe(true);
    expect(refills).toBe(4);
  });
});

test('a ring that a front-end describes and no negotiated feature uses is taken and left alone', () => {
  const rig = openRig();
  rig.device.startQueue(9, createDeviceQueue(rig.queues[0].config), rig.memory, {
    interrupt: () => {},
    fail: () => {},
  });
  expect(rig.device.serveQueue(9)).toBe(false);
  expect(() => rig.device.stopQueue(9, 'paused')).not.toThrow();
  expect(rig.host.badInputs).toEqual([]);
});
