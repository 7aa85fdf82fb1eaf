import { describe, expect, it } from 'vitest';
import { profile as abiOf, type ProfileName } from '../../src/balloon/profiles.ts';
import { DROP_CACHE, GET_UNUSED_PAGES, SHRINK } from '../../src/balloon/request-messages.ts';
import { EMBEDDED_PROFILES } from '../support/profile-names.ts';
import { MIB_PAGES, PACKED, SPLIT, World, type WorldOptions } from './world.ts';

const RINGS = [
  ['split ring, device in the same thread', SPLIT, 'immediate'],
  ['packed ring, device in the same thread', PACKED, 'immediate'],
  ['split ring, device that answers later', SPLIT, 'deferred'],
  ['packed ring, device that answers later', PACKED, 'deferred'],
  ['bare split ring, device that answers later', 0n, 'deferred'],
] as const;

describe.each(EMBEDDED_PROFILES)('profile %s', profile => {
  describe.each(RINGS)('on a %s', (_, ringFeatures, mode) => {
    const start = async (options: WorldOptions = {}): Promise<World> => {
      const world = new World({
        profile,
        device: { mode },
        ...options,
        driver: { ringFeatures, ...options.driver },
      });
      await world.start();
      return world;
    };

    /** Removes the driver: both sides have every page where it was. */
    const finish = async (world: World): Promise<void> => {
      const removed = world.driver.remove();
      await world.rest();
      await removed;
      world.check();
      expect(world.device.accounts.balloonedPages).toBe(0);
      expect(world.driver.ownPages).toBe(0);
      world.exit();
      expect(world.freePages).toBe(world.bootPages);
      expect(world.kernel.meminfo().totalBytes).toBe(world.kernel.allocator.managedPages * 4096);
    };

    it('reaches targets exactly', async () => {
      const world = await start();
      for (const target of [32 * MIB_PAGES + 3, 777, 1000, 1000, 0, 5]) {
        await world.aim(target);
        await world.driver.settled();
        expect(world.driver.actualPages).toBe(target);
        world.check();
      }
      await finish(world);
    });

    it('gives pages back to a guest out of memory, and no process dies', async () => {
      const world = await start();
      await world.aim(48 * MIB_PAGES);
      await world.driver.settled();
      const written = await world.occupy('editor', 20 * MIB_PAGES);
      expect(written).toBe(20 * MIB_PAGES);
      expect(world.kernel.events.oomKills).toBe(0);
      expect(world.driver.counters.oomReleases).toBeGreaterThan(0);
      expect(world.driver.actualPages).toBeLessThan(48 * MIB_PAGES);
      world.check();
      await finish(world);
    });

    it('lets compaction move ballooned pages in the middle of an inflation', async () => {
      // Page by page, because blocks do not move.
      const world = await start({ driver: { orderMax: 0 } });
      await world.scatter('database', 12 * MIB_PAGES);
      world.device.targetPages = 24 * MIB_PAGES;
      await world.beginning(16);
      await world.scatter('compiler', 8 * MIB_PAGES);
      world.kernel.compact();
      await world.rest();
      world.device.targetPages = 20 * MIB_PAGES;
      await world.beginning();
      world.kernel.compact();
      await world.rest();
      await world.driver.settled();
      expect(world.driver.counters.movedPages).toBeGreaterThan(0);
      expect(world.driver.actualPages).toBe(20 * MIB_PAGES);
      world.check();
      await finish(world);
    });

    it('names free pages to the host', async () => {
      const world = await start();
      await world.occupy('editor', 8 * MIB_PAGES);
      const free = await nameFreePages(world, profile);
      expect(free).toBeGreaterThan(32 * MIB_PAGES);
      for (const page of world.livePages()) expect(world.transport.unusedPages.has(page)).toBe(false);
      world.check();
      await finish(world);
    });

    it('starts over after a reset, with nothing lost', async () => {
      const world = await start();
      await world.occupy('editor', 4 * MIB_PAGES);
      await world.aim(16 * MIB_PAGES);
      await world.driver.settled();
      world.device.targetPages = 24 * MIB_PAGES;
      await world.beginning();
      const reset = world.driver.reset();
      await world.rest();
      await reset;
      await world.rest();
      await world.driver.settled();
      expect(world.driver.actualPages).toBe(24 * MIB_PAGES);
      world.check();
      await finish(world);
    });

    it('can be removed in the middle of everything', async () => {
      const world = await start();
      await world.occupy('editor', 4 * MIB_PAGES);
      world.device.targetPages = 24 * MIB_PAGES;
      await world.beginning();
      askForFreePages(world, profile);
      world.transport.deliver();
      await world.promises();
      await finish(world);
    });

    it('is removed from a device that does not answer any more', async () => {
      const world = await start();
      await world.aim(16 * MIB_PAGES);
      world.device.targetPages = 24 * MIB_PAGES;
      await world.beginning();
      world.transport.breakOff();
      await world.rest();
      expect(world.driver.state).toBe('broken');
      expect(world.driver.heldPages).toBeGreaterThan(0);
      await world.driver.remove();
      expect(world.freePages).toBe(world.bootPages);
    });
  });
});

/** Has the host ask, and nothing more. */
function askForFreePages(world: World, profile: ProfileName): void {
  if (abiOf(profile).freePages.kind === 'session') world.device.hints.begin();
  else if (profile === 'hinting') world.scheduler.advance(2_000);
  else world.device.requests.send(GET_UNUSED_PAGES);
}

/** Uses whatever channel the profile has; returns the pages that the host heard of. */
async function nameFreePages(world: World, profile: ProfileName): Promise<number> {
  const { device, transport } = world;
  switch (profile) {
    case 'virtio':
    case 'device-init':
    case 'hint-ack':
    case 'sg': {
      device.hints.begin();
      await world.rest();
      expect(device.hints.phase).toBe('stopped');
      const { pages } = transport.unusedPages;
      if (profile !== 'sg') expect(world.kernel.allocator.freeBlocks(10)).toBe(0);
      device.hints.done();
      await world.rest();
      expect(world.kernel.allocator.freeBlocks(10)).toBeGreaterThan(0);
      return pages;
    }
    case 'hinting':
      await world.pass(2_000);
      return device.counters.reportedPages;
    default: {
      device.requests.send(DROP_CACHE);
      await world.rest();
      expect(device.requests.progress).toMatchObject({ command: DROP_CACHE, pages: 0, done: true });
      device.requests.send(SHRINK);
      await world.rest();
      expect(device.requests.progress).toMatchObject({ command: SHRINK, done: true });
      transport.unusedPages.clear();
      device.requests.send(GET_UNUSED_PAGES);
      await world.rest();
      expect(device.requests.progress).toMatchObject({ command: GET_UNUSED_PAGES, done: true });
      expect(transport.unusedPages.pages).toBe(world.kernel.allocator.freePages);
      return transport.unusedPages.pages;
    }
  }
}
