/** A driver's operations take turns, so that its callers need not know of each other: commands of a console may overlap. */
import { describe, expect, it } from 'vitest';
import { World } from './world.ts';

const OPERATIONS = ['reset', 'remove', 'probe'] as const;
/** Promises that settle between the two: from none, through every state, to all of the first operation's. */
const GAPS = [0, 1, 3, 7, 12, 20];
const TARGET = 500;

describe.each(OPERATIONS)('a %s', first => {
  describe.each(OPERATIONS)('and a %s on top of it', second => {
    it.each(['immediate', 'deferred'] as const)('take turns and harm no page (device: %s)', async mode => {
      for (const gap of GAPS) {
        const world = new World({ sizeMiB: 8, device: { mode } });
        await world.start();
        await world.aim(TARGET);
        const over = [start(world, first)];
        for (let turn = 0; turn < gap; turn++) await Promise.resolve();
        over.push(start(world, second));
        await through(world, over);
        world.kernel.checkInvariants();
        expect(world.driver.state).toBe(second === 'remove' ? 'removed' : 'running');
        expect(world.driver.actualPages).toBe(second === 'remove' ? 0 : TARGET);
        over.push(start(world, 'remove'));
        await through(world, over);
        expect(world.freePages).toBe(world.bootPages);
        world.check();
      }
    });
  });
});

/** A driver that runs is not probed; that it says so is all. */
const start = (world: World, operation: (typeof OPERATIONS)[number]): Promise<unknown> =>
  world.driver[operation]().catch(error => expect(error).toMatchObject({ code: 'AEROSTAT_DRIVER_PROBE' }));

/** Lets the machine run until all of it is over. */
async function through(world: World, over: readonly Promise<unknown>[]): Promise<void> {
  let running = true;
  const all = Promise.all(over).finally(() => {
    running = false;
  });
  while (running) await world.rest();
  await all;
  await world.rest();
}
