import { describe, expect, it } from 'vitest';
import { PROFILE_NAMES, type ProfileName } from '../../src/balloon/profiles.ts';
import { BalloonDriver } from '../../src/driver/balloon-driver.ts';
import type { DriverTuning } from '../../src/driver/options.ts';
import { IN_ORDER, RING_EVENT_IDX, RING_PACKED } from '../../src/virtio/features.ts';
import { MIB_PAGES, SPLIT, World, type WorldOptions } from './world.ts';

async function inflated(tuning: Partial<DriverTuning>, options: WorldOptions = {}): Promise<World> {
  const world = new World({ ...options, driver: tuning });
  await world.start();
  await world.aim(16 * MIB_PAGES);
  await world.driver.settled();
  world.check();
  return world;
}

describe('what can be tuned', () => {
  it.each([
    [16, 256],
    [256, 16],
    [4096, 1],
    [65_536, 1],
  ])('%i page frame numbers in a buffer make %i buffers of 4096 pages', async (pfnsPerBuffer, buffers) => {
    const { driver, device } = await inflated({ pfnsPerBuffer });
    expect(driver.counters.inflateBuffers).toBe(buffers);
    expect(device.counters.inflateBuffers).toBe(buffers);
    expect(driver.counters.listBytes).toBe(4096 * 4);
  });

  it.each([
    [1, 1],
    [4, 4],
    [64, 16],
  ])('at a depth of %i there are %i buffers with the host at once', async (depth, outstanding) => {
    const world = new World({ device: { mode: 'deferred' }, driver: { depth } });
    await world.start();
    world.device.targetPages = 16 * MIB_PAGES;
    await world.beginning(0);
    expect(world.driver.counters.inflateBuffers).toBe(outstanding);
    await world.rest();
    expect(world.driver.actualPages).toBe(16 * MIB_PAGES);
    world.check();
  });

  it('has the next pages ready while the host has the last ones, and sends them when it is their turn', async () => {
    for (const ahead of [true, false]) {
      const world = new World({ device: { mode: 'deferred' }, driver: { ahead } });
      await world.start();
      world.device.targetPages = 600;
      await world.beginning(0);
      expect(world.driver.counters.inflateBuffers).toBe(1);
      expect(world.driver.heldPages).toBe(ahead ? 512 : 256);
      await world.rest();
      expect(world.driver.actualPages).toBe(600);
      world.check();
    }
  });

  it('sends nothing that was made ready for a target that has changed since', async () => {
    const world = new World({ device: { mode: 'deferred' } });
    await world.start();
    world.device.targetPages = 600;
    await world.beginning(0);
    world.device.targetPages = 256;
    await world.beginning(0);
    expect(world.driver.heldPages).toBe(256);
    await world.rest();
    expect(world.device.counters).toMatchObject({ pages: 256, deflatedPages: 0 });
    world.device.targetPages = 0;
    await world.beginning(0);
    world.device.targetPages = 800;
    await world.rest();
    world.device.targetPages = 0;
    await world.beginning(0);
    world.device.targetPages = 500;
    await world.beginning(0);
    await world.rest();
    expect(world.driver.actualPages).toBe(500);
    expect(world.device.counters.deflatedPages).toBeLessThan(800);
    world.check();
  });

  it('inflates again what it could not keep of a target that came back', async () => {
    const world = new World({ device: { mode: 'deferred' } });
    await world.start();
    await world.aim(1_000);
    world.device.targetPages = 0;
    await world.beginning(0);
    // For now the balloon has as many pages as the host wishes for again.
    world.device.targetPages = 1_000;
    await world.beginning(0);
    expect(world.driver.actualPages).toBe(1_000);
    await world.rest();
    expect(world.device.counters.deflatedPages).toBe(256);
    expect(world.driver.actualPages).toBe(1_000);
    world.check();
  });

  it('pages listed one by one come in whole huge pages first, and from fragments only when there are no more', async () => {
    const wholeOnes = async (orderMax: number | null): Promise<number> => {
      const world = new World({ driver: { orderMax } });
      await world.start();
      await world.scatter('database', 8 * MIB_PAGES);
      const given = 2048;
      await world.aim(given);
      const ballooned = new Set<number>();
      world.driver.forEachBlock((pfn, order) => {
        for (let page = pfn; page < pfn + 2 ** order; page++) ballooned.add(page);
      });
      expect(ballooned.size).toBe(given);
      expect(world.driver.counters.inflateBuffers).toBe(given / 256);
      const starts = [...ballooned].filter(pfn => pfn % 512 === 0);
      world.check();
      return starts.filter(pfn =>
        Array.from({ length: 512 }, (_, page) => pfn + page).every(page => ballooned.has(page)),
      ).length;
    };
    expect(await wholeOnes(9)).toBe(4);
    expect(await wholeOnes(null)).toBeLessThan(4);
  });

  it('a new target waits for no more than a huge page that is on its way', async () => {
    const world = new World({ device: { mode: 'deferred' }, driver: { orderMax: 9, ahead: false } });
    await world.start();
    world.device.targetPages = 16 * MIB_PAGES;
    await world.beginning(0);
    world.device.targetPages = 0;
    await world.beginning(0);
    expect(world.driver.heldPages).toBe(512);
    await world.rest();
    expect(world.device.counters.pages).toBe(512);
    expect(world.driver.actualPages).toBe(0);
    world.check();
  });

  it('sg fills the ring, kicks once and collects', async () => {
    const world = new World({
      profile: 'sg',
      device: { mode: 'deferred' },
      driver: { orderMax: 0, queueSizeMax: 32 },
    });
    await world.start();
    await world.scatter('database', 8 * MIB_PAGES);
    const { kicks } = world.driver.counters;
    world.device.targetPages = 1_000;
    await world.beginning(0);
    expect(world.driver.counters.inflateBuffers).toBe(32);
    expect(world.driver.counters.kicks).toBe(kicks + 1);
    await world.rest();
    expect(world.driver.actualPages).toBe(1_000);
    world.check();
  });

  it('sorted page frame numbers are fewer runs', async () => {
    const runsOf = async (sort: boolean): Promise<number> => {
      const world = new World({ driver: { sort } });
      await world.start();
      // What was just freed is handed out backwards.
      const process = world.kernel.spawn('editor');
      for (let page = 0; page < 200; page++) process.write(page);
      process.exit();
      await world.aim(200);
      world.check();
      return world.driver.counters.runs;
    };
    expect(await runsOf(true)).toBeLessThan(await runsOf(false));
  });

  it.each<[ProfileName, number]>([
    ['virtio', 0],
    ['page-bitmap', 0],
    ['page-order', 10],
    ['page-range', 10],
    ['page-chunks', 10],
    ['sg', 10],
    ['hinting', 0],
  ])('profile %s takes blocks of up to order %i', async (profile, order) => {
    const { driver } = await inflated({}, { profile });
    const orders: number[] = [];
    driver.forEachBlock((_, one) => orders.push(one));
    expect(Math.max(...orders)).toBe(order);
  });

  it('rings are as large as the device and the driver allow, and a power of two where they are split', async () => {
    const options = { device: { queueSizeMax: 100 } };
    const split = await inflated({}, options);
    const packed = await inflated({ ringFeatures: SPLIT | RING_PACKED }, options);
    expect(split.driver.features & RING_PACKED).toBe(0n);
    expect(packed.driver.features & RING_PACKED).toBe(RING_PACKED);
    await inflated({ queueSizeMax: 1 }, options);
  });

  it.each(PROFILE_NAMES)(
    'rings of one entry do, without a table to put more into (profile %s)',
    async profile => {
      const world = await inflated({ queueSizeMax: 1, ringFeatures: 0n }, { profile });
      await world.aim(0);
      await world.driver.settled();
      world.check();
    },
  );

  it('takes IN_ORDER where it is offered, but not on a ring that keeps a buffer for requests', async () => {
    const ringFeatures = SPLIT | IN_ORDER;
    const device = { ringFeatures };
    expect((await inflated({ ringFeatures }, { device })).driver.features & IN_ORDER).toBe(IN_ORDER);
    const chunks = await inflated({ ringFeatures }, { device, profile: 'page-chunks' });
    expect(chunks.driver.features & IN_ORDER).toBe(0n);
  });

  it('does without event indices, and without every feature but the lists', async () => {
    const { driver } = await inflated({ ringFeatures: 0n, features: 0n });
    expect(driver.features & RING_EVENT_IDX).toBe(0n);
    expect(driver.counters.statisticsBuffers).toBe(0);
  });

  it('sends page frame numbers where the lists of a profile were not negotiated', async () => {
    const { driver, device } = await inflated({ features: 0n }, { profile: 'page-chunks' });
    expect(driver.counters.inflateBuffers).toBe(16);
    expect(device.accounts.balloonedPages).toBe(4096);
  });

  it('makes shorter lists where its memory is in pieces', async () => {
    const world = new World({ profile: 'page-chunks', sizeMiB: 32, driver: { orderMax: 0 } });
    // Nothing but single pages is free, and compaction may not make room by moving others.
    world.fragment();
    await world.start();
    await world.aim(2_000);
    await world.driver.settled();
    // 2047 chunks fit one list of 32 KiB, and some 250 fit a page.
    expect(world.driver.counters.inflateBuffers).toBeGreaterThan(2);
    world.check();
  });

  it('leaves the thread to others between turns', async () => {
    const world = new World({ sizeMiB: 192 });
    await world.start();
    world.device.targetPages = 40_000;
    await world.promises();
    expect(world.driver.actualPages).toBeGreaterThan(32_000);
    expect(world.driver.actualPages).toBeLessThan(40_000);
    expect(world.scheduler.nextDueMs).toBe(world.scheduler.now());
    await world.rest();
    expect(world.driver.actualPages).toBe(40_000);
  });

  it('works with interrupts that do not say for which queue they are', async () => {
    const world = new World({ device: { mode: 'deferred' } });
    await world.start();
    world.device.targetPages = 1_000;
    await world.beginning(0);
    while (world.transport.serve()) world.driver.onInterrupt(null);
    await world.rest();
    expect(world.driver.actualPages).toBe(1_000);
    expect(world.driver.counters.interrupts).toBeGreaterThan(0);
  });

  it('works without interrupts, when it is asked to look', async () => {
    const world = new World({ device: { mode: 'deferred' } });
    await world.start();
    world.device.targetPages = 1_000;
    await world.beginning(0);
    while (world.transport.serve()) world.driver.poll();
    expect(world.driver.actualPages).toBe(1_000);
  });

  it.each<Partial<DriverTuning>>([
    { pfnsPerBuffer: 15 },
    { pfnsPerBuffer: 65_537 },
    { depth: 0 },
    { orderMax: 11 },
    { queueSizeMax: 0 },
    { retryMs: 0 },
    { oomPages: 0 },
    { reportingBlocks: 33 },
    { reportingDelayMs: -1 },
    { unusedOrderMin: 11 },
  ])('refuses %o', tuning => {
    const { kernel, transport, scheduler, driver } = new World();
    const options = { kernel, transport, scheduler, profile: driver.profile, ...tuning };
    expect(() => new BalloonDriver(options)).toThrow(Object.keys(tuning)[0]);
  });
});
