import { describe, expect, it } from 'vitest';
import { DEFLATE_ON_OOM } from '../../src/balloon/features.ts';
import { profile } from '../../src/balloon/profiles.ts';
import { MIB_PAGES, World } from './world.ts';

describe('a guest that is short of memory', () => {
  it('is asked again after a while for what it could not give', async () => {
    const world = new World({ sizeMiB: 32 });
    const { driver, kernel } = world;
    await world.start();
    await world.occupy('editor', 16 * MIB_PAGES);
    await world.aim(24 * MIB_PAGES);
    expect(driver.backingOff).toBe(true);
    const first = driver.actualPages;
    expect(first).toBeGreaterThan(12 * MIB_PAGES);
    for (const process of kernel.processes) for (let page = 0; page < 1024; page++) process.unmap(page);
    await world.pass(199);
    expect(driver.actualPages).toBe(first);
    await world.pass(1);
    expect(driver.actualPages).toBeGreaterThan(first);
    expect(driver.counters.allocationFailures).toBeGreaterThan(1);
    world.exit();
    await world.pass(200);
    await driver.settled();
    expect(driver.actualPages).toBe(24 * MIB_PAGES);
    expect(driver.backingOff).toBe(false);
    world.check();
  });

  it('is asked again at once when the host says something', async () => {
    const world = new World({ sizeMiB: 32, driver: { retryMs: 10_000 } });
    await world.start();
    await world.occupy('editor', 16 * MIB_PAGES);
    await world.aim(24 * MIB_PAGES);
    expect(world.driver.backingOff).toBe(true);
    world.exit();
    await world.aim(20 * MIB_PAGES);
    expect(world.driver.actualPages).toBe(20 * MIB_PAGES);
    expect(world.driver.backingOff).toBe(false);
  });

  it('keeps what it took back when the target had been reached, until the host says something', async () => {
    const world = new World({ sizeMiB: 32 });
    await world.start();
    await world.aim(16 * MIB_PAGES);
    expect(world.kernel.oom.run().released).toBe(256);
    expect(world.driver.actualPages).toBe(16 * MIB_PAGES - 256);
    await world.pass(60_000);
    expect(world.device.actualPages).toBe(16 * MIB_PAGES - 256);
    world.driver.onConfigChange();
    await world.rest();
    expect(world.driver.actualPages).toBe(16 * MIB_PAGES);
    world.check();
  });

  it('gets a handful of pages at a time, and no more while the host has not answered', async () => {
    const world = new World({ device: { mode: 'deferred' }, driver: { oomPages: 100 } });
    await world.start();
    await world.aim(2_000);
    expect(world.kernel.oom.run().released).toBe(100);
    expect(world.kernel.oom.run().released).toBe(100);
    await world.rest();
    expect(world.driver.actualPages).toBe(1_900);
    expect(world.driver.counters).toMatchObject({ oomReleases: 1, oomPages: 100 });
    world.check();
  });

  it('gets at once what the host has not heard of', async () => {
    const world = new World({ device: { mode: 'deferred' } });
    await world.start();
    world.device.targetPages = 2_000;
    await world.beginning(0);
    const { freePages } = world;
    expect(world.kernel.oom.run().released).toBe(256);
    expect(world.freePages).toBe(freePages + 256);
    await world.pass(200);
    expect(world.driver.actualPages).toBe(2_000);
    world.check();
  });

  it('is asked for no more for a while after it took back what was being inflated', async () => {
    const world = new World({ device: { mode: 'deferred' } });
    await world.start();
    world.device.targetPages = 2_000;
    await world.beginning(0);
    world.kernel.oom.run();
    expect(world.driver.backingOff).toBe(true);
    // The host answers, and still there is nothing that the guest must give.
    await world.rest();
    expect(world.driver.heldPages).toBe(256);
    await world.pass(200);
    expect(world.driver.actualPages).toBe(2_000);
    world.check();
  });

  it('is not asked for memory in the middle of a compaction', async () => {
    const world = new World({ sizeMiB: 32, device: { mode: 'deferred' } });
    const { driver, kernel } = world;
    await world.start();
    await world.scatter('database', 12 * MIB_PAGES);
    await world.aim(10 * MIB_PAGES);
    await world.scatter('compiler', 8 * MIB_PAGES);
    world.device.targetPages = 14 * MIB_PAGES;
    await world.beginning(0);
    const { heldPages } = driver;
    // What the host has returned makes room for more, of which the driver learns as it tells of the first move.
    world.transport.serve();
    kernel.compact();
    const { movedPages } = driver.counters;
    expect(movedPages).toBeGreaterThan(0);
    expect(driver.heldPages).toBe(heldPages + movedPages);
    await world.rest();
    expect(driver.actualPages).toBe(14 * MIB_PAGES);
    world.check();
  });

  it('opens a large block when it needs less, and the rest stays in the balloon', async () => {
    const world = new World({ profile: 'page-chunks' });
    await world.start();
    await world.aim(8 * MIB_PAGES);
    const orders: number[] = [];
    world.driver.forEachBlock((_, order) => orders.push(order));
    expect(orders).toEqual([10, 10]);
    world.kernel.oom.run();
    expect(world.driver.actualPages).toBe(8 * MIB_PAGES - 256);
    world.check();
  });

  it('has nothing of the balloon without DEFLATE_ON_OOM, nor counts it as its own', async () => {
    const { featureMask } = profile('virtio');
    const world = new World({ driver: { features: featureMask & ~DEFLATE_ON_OOM } });
    await world.start();
    const { totalBytes } = world.kernel.meminfo();
    await world.aim(2_000);
    expect(world.kernel.meminfo().totalBytes).toBe(totalBytes - 2_000 * 4096);
    expect(world.kernel.oom.run().released).toBe(0);
    await world.aim(500);
    expect(world.kernel.meminfo().totalBytes).toBe(totalBytes - 500 * 4096);
    await world.driver.remove();
    expect(world.kernel.meminfo().totalBytes).toBe(totalBytes);
  });

  it('gives smaller and smaller blocks where its memory is in pieces', async () => {
    const world = new World({ profile: 'sg', sizeMiB: 32 });
    await world.start();
    await world.scatter('database', 20 * MIB_PAGES);
    await world.aim(16 * MIB_PAGES);
    await world.driver.settled();
    const orders = new Set<number>();
    world.driver.forEachBlock((_, order) => orders.add(order));
    expect(orders.has(0)).toBe(true);
    expect(Math.max(...orders)).toBeGreaterThanOrEqual(9);
    world.check();
  });
});
