/** How often a device interrupts a driver that said, by event index, at which buffer it wants to hear. */

import { describe, expect, test } from 'vitest';
import { BalloonDevice } from '../../src/device/balloon-device.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { processClock } from '../../src/sys/monotonic.ts';
import { createDeviceQueue } from '../../src/virtio/create.ts';
import { RING_EVENT_IDX, RING_PACKED } from '../../src/virtio/features.ts';
import { EVENT_FLAGS, EVENT_SUPPRESSION, usedEventOffset } from '../../src/virtio/layout.ts';
import { WRAP } from '../../src/virtio/queue.ts';
import { stateFromVringBase } from '../../src/virtio/vring-base.ts';
import { type DeviceRig, FIRST_PAGE, HostLog, openRig, pfns } from '../support/device-rig.ts';
import type { RigQueue } from '../support/rig-queue.ts';

const P = FIRST_PAGE;
const BATCH = 5;

/** Makes a batch of lists available, of `segments` descriptors each, before the device looks. */
function addBatch(rig: DeviceRig, queue: RigQueue, segments = 1): void {
  rig.forgetLists();
  for (let buffer = 0; buffer < BATCH; buffer++) {
    const out = Array.from({ length: segments }, (_, part) => pfns(P + buffer * 8 + part));
    queue.add({ out });
  }
}

describe('a packed batch', () => {
  function interruptsFor(
    offset: number,
    { segments, size = 64 }: { segments: number; size?: number },
  ): number {
    const rig = openRig({ ringFeatures: RING_PACKED | RING_EVENT_IDX, queueSize: size });
    const queue = rig.queue('inflate');
    addBatch(rig, queue, segments);
    const { driverArea } = queue.config;
    rig.memory.setU16(driverArea + EVENT_SUPPRESSION.offset.position, WRAP | offset);
    rig.memory.setU16(driverArea + EVENT_SUPPRESSION.offset.flags, EVENT_FLAGS.DESCRIPTOR);
    queue.kick();
    expect(queue.collect()).toHaveLength(BATCH);
    expect(rig.balloonedPages).toBe(BATCH * segments);
    return queue.interrupts;
  }

  // Compared with the first or the last descriptor alone, and not with all of the batch, it fails.
  test.each([1, 3])(
    'has one interrupt wherever the event falls into it (buffers of %i descriptors)',
    segments => {
      for (let offset = 0; offset < BATCH * segments; offset++) {
        expect(interruptsFor(offset, { segments }), `event at ${offset}`).toBe(1);
      }
    },
  );

  test('has none when the event lies behind it', () => {
    for (const offset of [BATCH, BATCH + 1, 63]) expect(interruptsFor(offset, { segments: 1 })).toBe(0);
  });
});

describe('a split ring that another device takes over', () => {
  /** Positions before the restore, and how far the driver's wish lies behind them. */
  // A successor that compares with used_event alone, and owes nothing, is silent, and the driver waits for ever.
  test.each([1, 2, 40])(
    'whose used_event lies %i behind interrupts once, and then as it is asked',
    behind => {
      const rig = openRig({ ringFeatures: RING_EVENT_IDX });
      const queue = rig.queue('inflate');
      const { config } = queue;
      for (let done = 0; done < 48; done++) queue.exchange({ out: [pfns(P + done)] });
      // The predecessor published, and was gone before it had interrupted: the driver still waits for an older entry.
      const usedEventAt = config.driverArea + usedEventOffset(config.size);
      rig.memory.setU16(usedEventAt, 48 - behind);

      const successor = new BalloonDevice({
        profile: rig.profile,
        features: rig.profile.featureMask,
        host: new HostLog(),
        clock: processClock,
        unusedPages: { add: () => {} },
      });
      successor.regionAdded(rig.region);
      successor.setFeatures(rig.features);
      let interrupts = 0;
      const state = stateFromVringBase(rig.memory, config, 48);
      expect(state).toEqual({ nextAvail: 48, nextUsed: 48 });
      successor.startQueue(queue.index, createDeviceQueue(config, state), rig.memory, {
        interrupt: () => interrupts++,
        fail: () => {},
      });
      const serve = () => {
        queue.driver.publish(rig.memory);
        while (successor.serveQueue(queue.index));
        return queue.collect().length;
      };
      addBatch(rig, queue);
      expect(serve()).toBe(BATCH);
      expect(interrupts).toBe(1);
      // The wish has not moved: once was enough.
      addBatch(rig, queue);
      expect(serve()).toBe(BATCH);
      expect(interrupts).toBe(1);
      // It moves into the next batch: once again.
      rig.memory.setU16(usedEventAt, 48 + 2 * BATCH + 3);
      addBatch(rig, queue);
      expect(serve()).toBe(BATCH);
      expect(interrupts).toBe(2);
      successor.regionRemoved(rig.region);
      expect(rig.memory.u16(P * PAGE_SIZE)).toBe(0);
    },
  );
});
