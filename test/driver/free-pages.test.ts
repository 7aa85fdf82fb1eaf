/** The three ways of telling the host which pages are free, beyond what every profile's test shows. */

import { describe, expect, it } from 'vitest';
import { HINT_ID_MIN } from '../../src/balloon/hint-session.ts';
import { DROP_CACHE, GET_UNUSED_PAGES, SHRINK } from '../../src/balloon/request-messages.ts';
import { GFP_MOVABLE } from '../../src/guest/gfp.ts';
import { NIL, PAGEBLOCK_ORDER } from '../../src/memory/page-blocks.ts';
import { PageSet } from '../../src/memory/page-set.ts';
import { MIB_PAGES, World } from './world.ts';

const BLOCK_PAGES = 1024;

/** The host ends its session, and the guest has all of its pages. */
async function endHints(world: World): Promise<void> {
  world.device.hints.done();
  await world.rest();
  expect(world.freePages + world.driver.ownPages).toBe(world.bootPages);
  world.check();
}

describe('hint sessions', () => {
  it('give blocks back before their end when the guest is short of memory, and go on', async () => {
    const world = new World();
    await world.start();
    world.device.hints.begin();
    await world.rest();
    const hinted = world.driver.counters.hintedPages;
    expect(world.freePages).toBeLessThan(world.bootPages - hinted + BLOCK_PAGES);
    const pages = 40 * MIB_PAGES;
    expect(await world.occupy('compiler', pages)).toBe(pages);
    expect(world.kernel.events.oomKills).toBe(0);
    expect(world.driver.counters.hintedPagesReleased).toBeGreaterThan(32 * MIB_PAGES);
    world.exit();
    world.device.hints.done();
    await world.rest();
    world.device.hints.begin();
    await world.rest();
    expect(world.driver.counters.hintSessions).toBe(2);
    await endHints(world);
  });

  it('go over to a new id in the middle, with a STOP between the two', async () => {
    const world = new World({ device: { mode: 'deferred' }, driver: { queueSizeMax: 4 } });
    await world.start();
    world.device.hints.begin();
    await world.beginning(1);
    expect(world.device.hints.phase).toBe('running');
    world.transport.unusedPages.clear();
    world.device.hints.begin();
    await world.rest();
    expect(world.device.hints.phase).toBe('stopped');
    expect(world.driver.counters.hintSessions).toBe(2);
    // All of it counts under the new id: what came under the older one too.
    expect(world.device.hints.stalePages).toBeGreaterThan(0);
    expect(world.transport.unusedPages.pages).toBe(14 * BLOCK_PAGES);
    await endHints(world);
  });

  it('leave a slot of the ring for the STOP, however slow the host is', async () => {
    const world = new World({ device: { mode: 'deferred' }, driver: { queueSizeMax: 2 } });
    await world.start();
    world.device.hints.begin();
    await world.rest();
    expect(world.device.hints.phase).toBe('stopped');
    expect(world.transport.unusedPages.pages).toBe(world.driver.counters.hintedPages);
    world.check();
  });

  it.each(['immediate', 'deferred'] as const)('fit a ring of one entry (device: %s)', async mode => {
    const world = new World({ device: { mode }, driver: { queueSizeMax: 1 } });
    await world.start();
    world.device.hints.begin();
    await world.rest();
    expect(world.device.hints.phase).toBe('stopped');
    expect(world.device.counters.hintedPages).toBeGreaterThan(32 * MIB_PAGES);
    await endHints(world);
  });

  it.each(['virtio', 'sg'] as const)(
    'are over when the device is lost, and the next one has its own (profile %s)',
    async profile => {
      const world = new World({ profile, device: { mode: 'deferred' }, driver: { queueSizeMax: 8 } });
      await world.start();
      world.device.hints.begin();
      await world.beginning(1);
      expect(world.driver.counters.hintedPages).toBeGreaterThan(0);
      const bases = world.driver.deviceLost();
      world.transport.loseDevice();
      expect(world.freePages + world.driver.ownPages).toBe(world.bootPages);
      world.transport.replaceDevice(bases);
      world.driver.deviceReplaced();
      await world.rest();
      expect(world.device.counters.hintedPages).toBe(0);
      world.device.hints.begin();
      await world.rest();
      expect(world.device.hints.phase).toBe('stopped');
      expect(world.device.counters.hintedPages).toBeGreaterThan(32 * MIB_PAGES);
      await endHints(world);
    },
  );

  it('leave nothing in the ring that counts for a session of the next device', async () => {
    const world = new World({ device: { mode: 'deferred' }, driver: { queueSizeMax: 8 } });
    await world.start();
    world.device.hints.begin();
    await world.beginning(0);
    const hinted = world.driver.counters.hintedPages;
    expect(hinted).toBeGreaterThan(0);
    const bases = world.driver.deviceLost();
    world.transport.loseDevice();
    expect(await world.occupy('editor', 56 * MIB_PAGES)).toBe(56 * MIB_PAGES);
    world.transport.replaceDevice(bases);
    // Another host, in a hurry: it has announced its session before it looks at the ring.
    world.device.hints.beginAt(HINT_ID_MIN + 5);
    world.device.hints.begin();
    world.driver.deviceReplaced();
    await world.rest();
    expect(world.device.hints.stalePages).toBe(hinted);
    expect(world.device.counters.hintedPages).toBeLessThan(8 * MIB_PAGES);
  });

  it('keep no block when the session cannot be ended with DONE', async () => {
    const world = new World({ profile: 'sg' });
    await world.start();
    world.device.hints.begin();
    await world.rest();
    expect(world.driver.counters.hintedPages).toBeGreaterThan(32 * MIB_PAGES);
    expect(world.freePages + world.driver.ownPages).toBe(world.bootPages);
    world.check();
  });
});

describe('requests', () => {
  it('are answered in as many lists as it takes, of which the last says so', async () => {
    const world = new World({ profile: 'page-chunks', sizeMiB: 64 });
    await world.start();
    await world.scatter('database', 40 * MIB_PAGES);
    world.device.requests.send(GET_UNUSED_PAGES);
    await world.rest();
    expect(world.device.requests.progress).toMatchObject({
      done: true,
      pages: world.kernel.allocator.freePages,
    });
    expect(world.device.requests.progress?.lists).toBeGreaterThan(2);
    world.check();
  });

  it('name blocks of a size that is worth it', async () => {
    const world = new World({ profile: 'page-order', driver: { unusedOrderMin: 9 } });
    await world.start();
    await world.scatter('database', 40 * MIB_PAGES);
    world.device.requests.send(GET_UNUSED_PAGES);
    await world.rest();
    expect(world.transport.unusedPages.pages % 512).toBe(0);
    expect(world.transport.unusedPages.pages).toBeLessThan(world.kernel.allocator.freePages);
  });

  it('to shrink are answered after the shrinkers ran', async () => {
    const world = new World({ profile: 'page-range' });
    await world.start();
    for (let page = 0; page < 2_000; page++) world.kernel.slab.grow();
    world.device.requests.send(SHRINK);
    await world.rest();
    expect(world.kernel.slab.pages).toBe(0);
    expect(world.device.requests.progress?.pages).toBe(world.kernel.allocator.freePages);
  });

  it('of an unknown kind are ignored, and the next one is answered', async () => {
    const world = new World({ profile: 'page-bitmap' });
    await world.start();
    world.device.requests.send(77);
    await world.rest();
    expect(world.driver.counters).toMatchObject({ unknownRequests: 1, requests: 0 });
    expect(world.device.requests.progress).toMatchObject({ done: false, lists: 0 });
    world.device.requests.send(GET_UNUSED_PAGES);
    await world.rest();
    expect(world.driver.counters).toMatchObject({ unknownRequests: 1, requests: 1 });
    expect(world.device.requests.progress).toMatchObject({ done: true });
  });

  it('have one answer with the host at a time, however often the driver is asked to look', async () => {
    const world = new World({ profile: 'page-chunks', device: { mode: 'deferred' } });
    await world.start();
    await world.scatter('database', 40 * MIB_PAGES);
    world.device.requests.send(GET_UNUSED_PAGES);
    while (world.device.requests.progress?.done === false) {
      world.transport.deliver();
      world.driver.poll();
      world.driver.poll();
      expect(world.transport.serve()).toBe(true);
    }
    expect(world.device.requests.progress?.pages).toBe(world.kernel.allocator.freePages);
    expect(world.transport.unusedPages.pages).toBe(world.kernel.allocator.freePages);
  });

  it('wait until the last one is answered', async () => {
    const world = new World({ profile: 'page-chunks', device: { mode: 'deferred' } });
    await world.start();
    await world.scatter('database', 40 * MIB_PAGES);
    const { freePages } = world.kernel.allocator;
    world.device.requests.send(GET_UNUSED_PAGES);
    await world.beginning(2);
    world.device.requests.send(DROP_CACHE);
    expect(world.device.requests.progress).toMatchObject({ command: GET_UNUSED_PAGES, done: false });
    await world.rest();
    expect(world.transport.unusedPages.pages).toBe(freePages);
    expect(world.device.requests.progress).toMatchObject({ command: DROP_CACHE, done: true });
  });

  it.each([1, 2])('wait when the ring has room for one thing at a time (%i entries)', async queueSizeMax => {
    const world = new World({ profile: 'page-order', driver: { queueSizeMax, ringFeatures: 0n } });
    await world.start();
    for (let round = 1; round <= 3; round++) {
      world.device.requests.send(GET_UNUSED_PAGES);
      await world.rest();
      expect(world.driver.counters.requests).toBe(round);
      expect(world.device.requests.progress).toMatchObject({ done: true });
    }
    world.check();
  });
});

describe.each(['virtio', 'hinting'] as const)('reporting, profile %s', profile => {
  it('waits a while, tells of every large block, and of none of them twice', async () => {
    const world = new World({ profile });
    await world.start();
    await world.pass(1_999);
    expect(world.device.counters.reportedPages).toBe(0);
    await world.pass(1);
    const reported = world.device.counters.reportedPages;
    expect(reported).toBeGreaterThan(48 * MIB_PAGES);
    expect(world.driver.counters.reportedPages).toBe(reported);
    expect(world.kernel.checkInvariants()).toMatchObject({ isolated: 0, reported });
    await world.pass(60_000);
    expect(world.device.counters.reportedPages).toBe(reported);
    world.check();
  });

  it('sleeps once all is told', async () => {
    const world = new World({ profile });
    await world.start();
    await world.occupy('editor', MIB_PAGES);
    world.exit();
    await world.pass(2_000);
    expect(world.driver.counters.reports).toBeGreaterThan(0);
    await world.pass(2_000);
    expect(world.scheduler.nextDueMs).toBeUndefined();
  });

  it('tells again of what was used and became free', async () => {
    const world = new World({ profile });
    await world.start();
    await world.pass(2_000);
    const before = world.device.counters.reportedPages;
    await world.occupy('editor', 8 * MIB_PAGES);
    world.exit();
    await world.pass(2_000);
    const again = world.device.counters.reportedPages - before;
    expect(again).toBeGreaterThan(4 * MIB_PAGES);
    expect(again).toBeLessThan(24 * MIB_PAGES);
    world.check();
  });

  it.each([
    [false, 8],
    [true, 8],
  ])(
    'keeps at most so many blocks from the guest (pipelined: %s)',
    async (reportingPipelined, reportingBlocks) => {
      const world = new World({
        profile,
        device: { mode: 'deferred' },
        driver: { reportingPipelined, reportingBlocks },
      });
      await world.start();
      world.scheduler.advance(2_000);
      expect(world.driver.counters.reports).toBe(reportingPipelined ? 2 : 1);
      const { isolated } = world.kernel.checkInvariants();
      expect(isolated).toBeGreaterThan((reportingBlocks - 1) * BLOCK_PAGES);
      expect(isolated).toBeLessThanOrEqual(reportingBlocks * BLOCK_PAGES);
      await world.rest();
      expect(world.kernel.checkInvariants().isolated).toBe(0);
      expect(world.driver.counters.reports).toBe(reportingPipelined ? 4 : 2);
      world.check();
    },
  );

  it.each([false, true])(
    'leaves the guest as much as it tells of: a slow host starves no process (pipelined: %s)',
    async reportingPipelined => {
      const world = new World({
        profile,
        device: { mode: 'deferred' },
        driver: { reportingPipelined },
      });
      await world.start();
      const { freePages } = world.kernel.allocator;
      const large = new PageSet(Number.MAX_SAFE_INTEGER);
      world.kernel.allocator.listFree(large, PAGEBLOCK_ORDER);
      world.scheduler.advance(2_000);
      const { isolated } = world.kernel.checkInvariants();
      expect(isolated).toBeGreaterThan(0);
      expect(isolated).toBeLessThanOrEqual(freePages / 2);
      // What had to wait for it is told of when it is back.
      await world.rest();
      expect(world.driver.counters.reportedPages).toBe(large.pages);
      await world.occupy('editor', 24 * MIB_PAGES);
      await world.rest();
      expect(world.kernel.events.oomKills).toBe(0);
      world.check();
    },
  );

  it('reports block by block where the ring has room for one buffer', async () => {
    const world = new World({
      profile,
      device: { mode: 'deferred' },
      driver: { reportingPipelined: true, queueSizeMax: 1 },
    });
    await world.start();
    await world.pass(2_000);
    const { isolated, reported } = world.kernel.checkInvariants();
    expect(isolated).toBe(0);
    expect(reported).toBeGreaterThan(48 * MIB_PAGES);
    world.check();
  });

  it('begins another pass for what became free during the first', async () => {
    const world = new World({ profile, device: { mode: 'deferred' } });
    await world.start();
    await world.occupy('editor', 16 * MIB_PAGES);
    world.scheduler.advance(2_000);
    // Half of what is free, and then the rest of it.
    await world.beginning(2);
    world.exit();
    await world.rest();
    const first = world.device.counters.reportedPages;
    await world.pass(2_000);
    expect(world.device.counters.reportedPages).toBeGreaterThan(first);
    world.check();
  });

  it('is told to a new host from the beginning', async () => {
    const world = new World({ profile });
    await world.start();
    await world.pass(2_000);
    const reported = world.device.counters.reportedPages;
    await world.driver.reset();
    expect(world.kernel.checkInvariants().reported).toBe(0);
    await world.pass(2_000);
    expect(world.device.counters.reportedPages).toBe(2 * reported);
  });

  it('leaves a guest that fills its memory enough to go on', async () => {
    const world = new World({ profile, device: { mode: 'deferred' } });
    await world.start();
    world.scheduler.advance(2_000);
    for (let pfn = 0; pfn !== NIL; ) {
      pfn = world.kernel.allocate(0, GFP_MOVABLE);
      if (pfn !== NIL) world.kernel.access.touch(pfn);
    }
    await world.rest();
    world.checkSafety();
  });
});
