/** The first list for a target is short, so that the host gives memory back while the guest still looks for the rest. */
import { expect, it } from 'vitest';
import { MIB_PAGES, World } from './world.ts';

const TARGET = 768 * MIB_PAGES;

it.each(['page-range', 'page-chunks', 'page-order'] as const)(
  'a guest with %s has the host begin with 64 MiB, for each target anew',
  async profile => {
    const world = new World({ profile, sizeMiB: 1024, device: { mode: 'deferred' } });
    await world.start();
    for (let time = 0; time < 2; time++) {
      world.device.targetPages = TARGET;
      await world.beginning(1);
      expect(world.device.accounts.balloonedPages).toBe(64 * MIB_PAGES);
      await world.rest();
      expect(world.driver.actualPages).toBe(TARGET);
      // 512 MiB were in the second, and all the rest in the third.
      expect(world.driver.counters.inflateBuffers).toBe(3 * (time + 1));
      await world.aim(0);
      expect(world.driver.actualPages).toBe(0);
    }
    world.check();
  },
);
