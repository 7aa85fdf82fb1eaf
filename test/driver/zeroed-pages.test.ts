/**
 * What a driver makes of the drafts of 2026: pages that the host promised to be zeros are not filled again, and hinted blocks
 * stay out of the guest's reach until the host has returned them.
 */
import { describe, expect, it } from 'vitest';
import { DEVICE_INIT_ON_INFLATE, DEVICE_INIT_REPORTED } from '../../src/balloon/features.ts';
import { profile } from '../../src/balloon/profiles.ts';
import { GFP_MOVABLE, GFP_ZERO } from '../../src/guest/gfp.ts';
import { NIL, PAGES_PER_BLOCK_MAX } from '../../src/memory/page-blocks.ts';
import { MIB_PAGES, PACKED, SPLIT, World, type WorldOptions } from './world.ts';

const MASK = profile('device-init').featureMask;

/** A guest whose memory was all in use once, and what it writes from then on. */
async function used(options: WorldOptions = {}): Promise<{ world: World; written: () => number }> {
  let writes = 0;
  const world = new World({
    profile: 'device-init',
    sizeMiB: 32,
    ...options,
    kernel: {
      checkZeros: true,
      writeLog: {
        add: (_, count) => {
          writes += count;
        },
      },
      ...options.kernel,
    },
  });
  // Before the driver: nothing is reported yet.
  await world.occupy('first', 24 * MIB_PAGES);
  world.exit();
  await world.start();
  return {
    world,
    written: () => {
      const written = writes;
      writes = 0;
      return written;
    },
  };
}

/** Takes `pages` pages of zeros; whether kernel or host zeroed them. */
function takeZeros(world: World, pages: number): void {
  for (let taken = 0; taken < pages; taken++) {
    const pfn = world.kernel.allocate(0, GFP_MOVABLE | GFP_ZERO);
    expect(pfn).not.toBe(NIL);
    expect(world.kernel.access.isFilledWith(pfn, 0)).toBe(true);
  }
  expect(world.kernel.zeroFaults).toBe(0);
}

describe.each([
  ['split', SPLIT],
  ['packed', PACKED],
])('on %s rings', (_, ringFeatures) => {
  it('pages that were reported need no filling', async () => {
    const { world, written } = await used({ driver: { ringFeatures } });
    await world.pass(2_000);
    expect(world.driver.counters.zeroedPages).toBeGreaterThan(16 * MIB_PAGES);
    written();
    takeZeros(world, 12 * MIB_PAGES);
    // What the processor kept for itself was not reported.
    expect(written()).toBeLessThan(3 * MIB_PAGES);
  });

  it('pages that come back from the balloon need no filling', async () => {
    const features = MASK & ~DEVICE_INIT_REPORTED;
    const { world, written } = await used({
      driver: { ringFeatures, features, pfnsPerBuffer: 100, depth: 3 },
    });
    await world.aim(20 * MIB_PAGES + 3);
    expect(world.driver.counters.zeroedPages).toBe(20 * MIB_PAGES + 3);
    world.check();
    await world.aim(0);
    written();
    takeZeros(world, 16 * MIB_PAGES);
    expect(written()).toBeLessThan(8 * MIB_PAGES);
  });
});

it('a page that was used since is filled', async () => {
  const { world, written } = await used();
  await world.pass(2_000);
  await world.occupy('second', 20 * MIB_PAGES);
  world.exit();
  written();
  takeZeros(world, 4 * MIB_PAGES);
  expect(written()).toBeGreaterThan(3 * MIB_PAGES);
});

it('where the host promises nothing, or the guest wants something else than zeros, everything is filled', async () => {
  const features = MASK & ~(DEVICE_INIT_REPORTED | DEVICE_INIT_ON_INFLATE);
  const { world, written } = await used({ driver: { features } });
  await world.aim(4 * MIB_PAGES);
  await world.aim(0);
  await world.pass(2_000);
  expect(world.driver.counters.zeroedPages).toBe(0);
  written();
  takeZeros(world, 4 * MIB_PAGES);
  expect(written()).toBe(4 * MIB_PAGES);

  const poisoned = new World({ profile: 'device-init', kernel: { poison: 0 } });
  await poisoned.start();
  expect(poisoned.device.inflation.acknowledgesFirst).toBe(true);
});

it('on a ring with one entry lists go without room for an answer', async () => {
  const { world } = await used({ driver: { ringFeatures: 0n, queueSizeMax: 1, pfnsPerBuffer: 256 } });
  await world.aim(2 * MIB_PAGES + 5);
  expect(world.driver.actualPages).toBe(2 * MIB_PAGES + 5);
  world.check();
});

describe('hinted blocks', () => {
  const start = async (name: 'virtio' | 'hint-ack') => {
    const world = new World({ profile: name, sizeMiB: 64, device: { mode: 'deferred' } });
    await world.start();
    world.device.hints.begin();
    // The driver has hinted, and the device has not looked.
    await world.beginning(0);
    return world;
  };

  it('are kept by the driver as soon as they are sent, in the standard', async () => {
    const world = await start('virtio');
    expect(world.kernel.shrinkAll()).toBeGreaterThanOrEqual(PAGES_PER_BLOCK_MAX);
  });

  it('are out of reach until they are returned, where the driver waits for that', async () => {
    const world = await start('hint-ack');
    expect(world.driver.counters.hintedPages).toBeGreaterThanOrEqual(PAGES_PER_BLOCK_MAX);
    expect(world.kernel.shrinkAll()).toBe(0);
    await world.rest();
    expect(world.device.hints.phase).toBe('stopped');
    expect(world.device.counters.hintedPages).toBe(world.driver.counters.hintedPages);
    expect(world.device.reporting.totals.bytes).toBe(world.driver.counters.hintedPages * 4096);
    expect(world.kernel.shrinkAll()).toBe(world.driver.counters.hintedPages);
    world.device.hints.done();
    await world.rest();
    world.check();
    expect(world.freePages).toBe(world.bootPages - world.driver.ownPages);
  });

  it('that come back after DONE are the guest’s at once, and so are those of a driver that is removed', async () => {
    const world = await start('hint-ack');
    world.device.hints.done();
    await world.rest();
    expect(world.freePages).toBe(world.bootPages - world.driver.ownPages);
    world.device.hints.begin();
    await world.beginning(1);
    const removed = world.driver.remove();
    await world.rest();
    await removed;
    expect(world.freePages).toBe(world.bootPages);
  });
});
