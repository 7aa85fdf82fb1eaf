/** Between its last look at a ring and its wish for an interrupt a driver is deaf: no interrupt tells of what comes back then. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { PROFILE_NAMES } from '../../src/balloon/profiles.ts';
import { GET_UNUSED_PAGES } from '../../src/balloon/request-messages.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { PackedDriverQueue } from '../../src/virtio/packed-driver-queue.ts';
import { SplitDriverQueue } from '../../src/virtio/split-driver-queue.ts';
import { MIB_PAGES, PACKED, SPLIT, World } from './world.ts';

afterEach(() => vi.restoreAllMocks());

/** From here on the device answers just before the driver begins to listen, and never at another time. */
function answerTheDeaf(world: World): void {
  for (const { prototype } of [SplitDriverQueue, PackedDriverQueue]) {
    const { requestInterrupts } = prototype;
    vi.spyOn(prototype, 'requestInterrupts').mockImplementation(function (
      this: SplitDriverQueue & PackedDriverQueue,
      memory: GuestMemory,
      after?: number,
    ) {
      world.transport.serve();
      return requestInterrupts.call(this, memory, after);
    });
  }
}

describe.each(PROFILE_NAMES)('a driver of profile %s', profile => {
  it.each([
    ['split', SPLIT],
    ['packed', PACKED],
  ])('looks again once it listens (%s rings)', async (_, ringFeatures) => {
    const world = new World({
      profile,
      device: { mode: 'deferred' },
      driver: { ringFeatures, queueSizeMax: 8 },
    });
    await world.start();
    answerTheDeaf(world);
    for (const target of [16 * MIB_PAGES + 1, 3]) {
      world.device.targetPages = target;
      world.transport.deliver();
      await world.promises();
      expect(world.driver.actualPages).toBe(target);
    }
    if (world.device.hints.running) {
      world.device.hints.begin();
      world.transport.deliver();
      await world.promises();
      expect(world.device.hints.phase).toBe('stopped');
    }
    if (world.device.requests.running) {
      for (const id of [1, 2]) {
        world.device.requests.send(GET_UNUSED_PAGES);
        world.transport.deliver();
        expect(world.driver.counters.requests).toBe(id);
        expect(world.device.requests.progress).toMatchObject({ done: true });
      }
    }
    world.scheduler.advance(2_000);
    expect(world.kernel.checkInvariants().isolated).toBe(0);
    vi.restoreAllMocks();
    await world.rest();
    world.check();
  });
});
