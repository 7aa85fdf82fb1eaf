import { describe, expect, it } from 'vitest';
import { MIB_PAGES, PACKED, SPLIT, World } from './world.ts';

describe('inflation and deflation', () => {
  it.each([
    ['split', SPLIT],
    ['packed', PACKED],
  ])('reach the target exactly and give every page back (%s ring)', async (_, ringFeatures) => {
    const world = new World({ driver: { ringFeatures } });
    const { driver } = world;
    await driver.probe();
    await world.aim(32 * MIB_PAGES + 3);
    await driver.settled();
    expect(driver.actualPages).toBe(32 * MIB_PAGES + 3);
    world.check();
    await world.aim(777);
    await driver.settled();
    expect(driver.actualPages).toBe(777);
    world.check();
    await driver.remove();
    expect(driver.state).toBe('removed');
    expect(world.device.accounts.balloonedPages).toBe(0);
    expect(world.freePages).toBe(world.bootPages);
    world.check();
  });
});
