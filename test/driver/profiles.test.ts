import { describe, expect, it } from 'vitest';
import { PROFILE_NAMES } from '../../src/balloon/profiles.ts';
import { MIB_PAGES, PACKED, SPLIT, World } from './world.ts';

describe.each(PROFILE_NAMES)('profile %s', profile => {
  it.each([
    ['split', SPLIT, 'immediate'],
    ['packed', PACKED, 'immediate'],
    ['split', SPLIT, 'deferred'],
    ['packed', PACKED, 'deferred'],
    ['split, without indirect tables and event indices', 0n, 'deferred'],
  ] as const)(
    'reaches targets exactly and gives every page back (%s ring, %#)',
    async (_, ringFeatures, mode) => {
      const world = new World({ profile, driver: { ringFeatures }, device: { mode } });
      const { driver } = world;
      await driver.probe();
      for (const target of [32 * MIB_PAGES + 3, 777, 1000, 1000, 0, 5]) {
        await world.aim(target);
        await driver.settled();
        expect(driver.actualPages).toBe(target);
        world.check();
      }
      const removed = driver.remove();
      await world.rest();
      await removed;
      expect(world.device.accounts.balloonedPages).toBe(0);
      expect(world.freePages).toBe(world.bootPages);
      world.check();
    },
  );
});
