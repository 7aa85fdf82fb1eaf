import { describe, expect, it } from 'vitest';
import { DEFLATE_ON_OOM } from '../../src/balloon/features.ts';
import { PROFILE_NAMES, profile } from '../../src/balloon/profiles.ts';
import { BalloonDriver } from '../../src/driver/balloon-driver.ts';
import { DriverProbeError, DriverStoppedError } from '../../src/driver/errors.ts';
import { ManualScheduler } from '../../src/driver/scheduler.ts';
import { GFP_UNMOVABLE } from '../../src/guest/gfp.ts';
import { GuestKernel } from '../../src/guest/kernel.ts';
import { StateReader, StateWriter } from '../../src/guest/saved-state.ts';
import { NIL } from '../../src/memory/page-blocks.ts';
import { DEVICE_STATUS } from '../../src/virtio/transport.ts';
import { heapMemory } from '../guest/guest.ts';
import { LoopbackTransport } from '../support/loopback-transport.ts';
import { promisesSettled } from '../support/promises.ts';
import { ScriptedDevice } from './scripted-device.ts';
import { MIB_PAGES, PACKED, SPLIT, World } from './world.ts';

describe('a driver that cannot start', () => {
  it('says so when the device refuses the features, marks it as failed and gives its memory back', async () => {
    const world = new World();
    world.transport.refusesFeatures = true;
    await expect(world.driver.probe()).rejects.toThrow(DriverProbeError);
    expect(world.driver.state).toBe('new');
    expect(await world.transport.readStatus()).toBe(DEVICE_STATUS.FAILED);
    expect(world.freePages).toBe(world.bootPages);
    world.transport.refusesFeatures = false;
    await world.start();
    expect(world.driver.state).toBe('running');
  });

  it('says so when the device lacks a queue', async () => {
    const world = new World({ device: { queueSizeMax: 0 } });
    await expect(world.driver.probe()).rejects.toThrow('no queue 0');
    expect(world.freePages).toBe(world.bootPages);
  });

  it("has the device let go of its rings before their memory is the guest's again", async () => {
    const world = new World();
    const { transport } = world;
    const { queueSizeMax } = transport;
    // The third queue is missing, and two are known to the device.
    transport.queueSizeMax = async index => (index === 2 ? 0 : queueSizeMax.call(transport, index));
    await expect(world.driver.probe()).rejects.toThrow('no queue 2');
    expect(transport.log.slice(-4)).toEqual([
      'queue 0',
      'queue 1',
      'reset',
      `status ${DEVICE_STATUS.FAILED}`,
    ]);
    expect(world.freePages).toBe(world.bootPages);
  });

  it('says so when the guest has no memory for it', async () => {
    const world = new World({ profile: 'page-chunks', sizeMiB: 8 });
    while (world.kernel.allocate(0, GFP_UNMOVABLE) !== NIL) {
      // Until nothing is left.
    }
    const before = world.freePages;
    await expect(world.driver.probe()).rejects.toThrow('no memory');
    expect(world.freePages).toBe(before);
  });

  it('says so when the connection is gone', async () => {
    const world = new World();
    world.transport.breakOff(new Error('no device listens'));
    await expect(world.driver.probe()).rejects.toThrow('no device listens');
    expect(world.freePages).toBe(world.bootPages);
  });

  it('is not probed twice', async () => {
    const world = new World();
    await world.start();
    await expect(world.driver.probe()).rejects.toThrow('running already');
  });

  it('can be removed without ever having run, and tells who waits', async () => {
    const world = new World();
    await expect(world.driver.settled()).rejects.toThrow(DriverStoppedError);
    await world.driver.remove();
    expect(world.driver.state).toBe('removed');
  });
});

describe('a device that makes no sense', () => {
  it('is not used any more, and its pages are kept until the driver is removed', async () => {
    const scheduler = new ManualScheduler();
    const memory = heapMemory(16);
    const kernel = new GuestKernel({ memory, clock: scheduler });
    const before = kernel.allocator.freePages + kernel.allocator.perCpuPages;
    const device = new ScriptedDevice(profile('virtio'), memory);
    const driver = new BalloonDriver({ kernel, transport: device, scheduler, profile: profile('virtio') });
    await driver.probe();
    device.configure({ numPages: 300 });
    await promisesSettled();
    const [buffer] = device.take('inflate');
    const settled = driver.settled();
    settled.catch(() => {});
    device.cheat(buffer);
    expect(driver.state).toBe('broken');
    await expect(settled).rejects.toThrow(DriverStoppedError);
    expect(driver.failure?.message).toContain('does not have');
    expect(driver.heldPages).toBe(300);
    device.configure({ numPages: 0 });
    driver.poll();
    expect(driver.heldPages).toBe(300);
    await driver.remove();
    expect(driver.heldPages).toBe(0);
    expect(kernel.allocator.freePages + kernel.allocator.perCpuPages).toBe(before);
  });

  it('is found out when its connection ends', async () => {
    const world = new World();
    await world.start();
    await world.aim(300);
    world.transport.breakOff(new Error('the cable'));
    await world.rest();
    expect(world.driver.state).toBe('broken');
    expect(world.driver.failure?.message).toBe('the cable');
    expect(world.driver.actualPages).toBe(300);
    await expect(world.driver.settled()).rejects.toThrow('the cable');
    // A guest out of memory must not wait for pages that no device gives back.
    expect(world.kernel.oom.run().released).toBe(0);
  });

  it('is found out when its configuration cannot be read', async () => {
    const world = new World();
    await world.start();
    world.transport.loseDevice();
    world.driver.onConfigChange();
    await world.rest();
    expect(world.driver.state).toBe('broken');
    await world.driver.remove();
    expect(world.freePages).toBe(world.bootPages);
  });
});

describe.each(PROFILE_NAMES)('profile %s, with a device that is lost and replaced', profile => {
  it.each([
    ['split', SPLIT, 'deferred'],
    ['packed', PACKED, 'deferred'],
    ['split', SPLIT, 'immediate'],
  ] as const)('tells the new device of the balloon (%s ring, %#)', async (_, ringFeatures, mode) => {
    const world = new World({ profile, device: { mode }, driver: { ringFeatures } });
    const { driver } = world;
    await world.start();
    await world.occupy('editor', 4 * MIB_PAGES);
    await world.aim(16 * MIB_PAGES + 3);
    // In the middle of going up, and in the middle of going down.
    for (const target of [24 * MIB_PAGES, 4 * MIB_PAGES + 1]) {
      world.device.targetPages = target;
      await world.beginning(3);
      const bases = driver.deviceLost();
      world.transport.loseDevice();
      driver.poll();
      driver.onConfigChange();
      await world.rest();
      world.kernel.compact();
      world.kernel.oom.run();
      world.kernel.verify();
      world.transport.replaceDevice(bases);
      driver.deviceReplaced();
      await world.rest();
      await driver.settled();
      expect(driver.actualPages).toBe(target);
      world.check();
    }
    const removed = driver.remove();
    await world.rest();
    await removed;
    world.exit();
    expect(world.freePages).toBe(world.bootPages);
    expect(world.kernel.meminfo().totalBytes).toBe(world.kernel.allocator.managedPages * 4096);
  });

  it('tells the new device of all of what it knows in part, before any of it is used again', async () => {
    // One run of pages at a time, and several runs in a batch.
    const world = new World({
      profile,
      device: { mode: 'deferred' },
      driver: { orderMax: 0, depth: 1, pfnsPerBuffer: 16 },
    });
    await world.start();
    await world.scatter('database', 2 * MIB_PAGES);
    world.device.targetPages = 200;
    await world.beginning(2);
    const bases = world.driver.deviceLost();
    world.transport.loseDevice();
    world.transport.replaceDevice(bases);
    world.device.targetPages = 3;
    world.driver.deviceReplaced();
    for (let step = 0; step < 40; step++) {
      await world.beginning(1);
      world.checkSafety();
    }
    await world.rest();
    await world.driver.settled();
    expect(world.driver.actualPages).toBe(3);
    world.check();
  });

  it('keeps every page for the new device that it wants', async () => {
    const world = new World({ profile, device: { mode: 'deferred' }, driver: { orderMax: 0 } });
    await world.start();
    await world.aim(1_000);
    world.device.targetPages = 744;
    await world.beginning(0);
    const bases = world.driver.deviceLost();
    world.transport.loseDevice();
    world.transport.replaceDevice(bases);
    world.driver.deviceReplaced();
    await world.promises();
    // Those that were on their way to the guest still are; all others are wanted.
    expect(world.driver.heldPages).toBe(1_000);
    await world.rest();
    expect(world.driver.actualPages).toBe(744);
    world.check();
  });

  it('does not count on the new device knowing what was prepared for the old one', async () => {
    const world = new World({ profile, device: { mode: 'deferred' } });
    await world.start();
    await world.aim(257);
    world.device.targetPages = 0;
    world.kernel.oom.run();
    await world.beginning(0);
    world.device.targetPages = 1;
    const bases = world.driver.deviceLost();
    world.transport.loseDevice();
    world.transport.replaceDevice(bases);
    world.driver.deviceReplaced();
    await world.rest();
    await world.driver.settled();
    world.check();
  });

  it('gives every page back when it is removed while the device is away', async () => {
    const world = new World({ profile });
    await world.start();
    await world.aim(16 * MIB_PAGES);
    world.driver.deviceLost();
    world.transport.loseDevice();
    await expect(world.driver.remove()).resolves.toBeUndefined();
    expect(world.freePages).toBe(world.bootPages);
  });

  it('gives both pages of every move back that the device did not live to hear of', async () => {
    const world = new World({ profile, sizeMiB: 32, device: { mode: 'deferred' }, driver: { orderMax: 0 } });
    await world.start();
    await world.scatter('database', 12 * MIB_PAGES);
    await world.aim(10 * MIB_PAGES);
    await world.scatter('compiler', 8 * MIB_PAGES);
    world.kernel.compact();
    expect(world.driver.counters.movedPages).toBeGreaterThan(0);
    expect(world.driver.heldPages).toBeGreaterThan(world.driver.actualPages);
    world.driver.deviceLost();
    world.transport.loseDevice();
    await world.driver.remove();
    world.kernel.checkInvariants();
    world.exit();
    expect(world.freePages).toBe(world.bootPages);
  });

  it('gives pages back at once while the device is away, to a guest that is out of memory', async () => {
    const world = new World({ profile });
    await world.start();
    await world.aim(16 * MIB_PAGES);
    world.driver.deviceLost();
    world.transport.loseDevice();
    const { freePages } = world;
    const { released } = world.kernel.oom.run();
    expect(released).toBeGreaterThanOrEqual(256);
    expect(world.freePages).toBe(freePages + released);
    expect(world.driver.heldPages).toBe(16 * MIB_PAGES - released);
  });

  it('counts ballooned memory as the guest has it again, when it was not counted (no DEFLATE_ON_OOM)', async () => {
    const world = new World({ profile, driver: { features: ~DEFLATE_ON_OOM } });
    const totalPages = () => world.kernel.meminfo().totalBytes / 4096;
    const { managedPages } = world.kernel.allocator;
    await world.start();
    await world.aim(16 * MIB_PAGES);
    expect(totalPages()).toBe(managedPages - 16 * MIB_PAGES);
    world.transport.breakOff();
    await world.driver.remove();
    expect(totalPages()).toBe(managedPages);
  });

  it('ends a removal that the device does not live to see', async () => {
    const world = new World({ profile, device: { mode: 'deferred' } });
    await world.start();
    await world.aim(16 * MIB_PAGES);
    const removed = world.driver.remove();
    await world.promises();
    world.driver.deviceLost();
    world.transport.loseDevice();
    await removed;
    expect(world.driver.state).toBe('removed');
    expect(world.freePages).toBe(world.bootPages);
  });
});

describe('a batch of which a host that is gone knew a part', () => {
  it('is told again as a whole, once, whatever becomes of the hosts', async () => {
    // A buffer for each page, and all of them one batch.
    const world = new World({
      profile: 'sg',
      device: { mode: 'deferred' },
      driver: { orderMax: 0, depth: 1, sort: false },
    });
    const { driver, transport } = world;
    const replace = (): void => {
      const bases = driver.deviceLost();
      transport.loseDevice();
      transport.replaceDevice(bases);
      driver.deviceReplaced();
    };
    await world.start();
    await world.scatter('database', 2 * MIB_PAGES);
    world.device.targetPages = 100;
    await world.beginning(10);
    const known = world.device.counters.pages;
    replace();
    // The next one has returned the rest, and nothing of the repetition yet.
    while (world.device.counters.pages < 100 - known) await world.beginning(1);
    expect(driver.actualPages).toBe(0);
    replace();
    await world.rest();
    expect(driver.actualPages).toBe(100);
    expect(world.device.counters.pages).toBe(100);
    world.check();
  });
});

describe.each(PROFILE_NAMES)('profile %s, in a guest that was saved and goes on elsewhere', profileName => {
  it.each([
    ['immediate', 'all features', {}],
    ['deferred', 'all features', {}],
    ['deferred', 'without DEFLATE_ON_OOM', { features: ~DEFLATE_ON_OOM }],
  ] as const)('takes over what the former driver had (%s, %s)', async (mode, _, tuning) => {
    const world = new World({ profile: profileName, device: { mode }, driver: tuning });
    await world.start();
    await world.occupy('editor', 8 * MIB_PAGES);
    await world.aim(16 * MIB_PAGES + 5);
    if (profile(profileName).freePages.kind === 'session') world.device.hints.begin();
    world.scheduler.advance(2_000);
    world.device.targetPages = 20 * MIB_PAGES;
    await world.beginning(3);

    const saved = new StateWriter();
    world.kernel.save(saved);
    const scheduler = new ManualScheduler();
    // The memory moved with the guest; here it simply stayed where it was.
    const { memory } = world;
    const kernel = GuestKernel.restore({ memory, clock: scheduler }, new StateReader(saved.bytes()));
    const transport = new LoopbackTransport({ profile: profile(profileName), memory });
    const driver = new BalloonDriver({
      ...tuning,
      kernel,
      transport,
      scheduler,
      profile: profile(profileName),
    });
    transport.device.targetPages = 18 * MIB_PAGES;
    await driver.probe();
    await driver.settled();
    expect(driver.actualPages).toBe(18 * MIB_PAGES);
    expect(transport.device.accounts.balloonedPages).toBe(18 * MIB_PAGES);
    expect(kernel.checkInvariants().isolated).toBe(0);
    kernel.verify();
    await driver.remove();
    for (const process of kernel.processes) process.exit();
    kernel.dropCaches();
    kernel.allocator.drainPerCpu();
    expect(kernel.allocator.freePages).toBe(kernel.allocator.managedPages);
    expect(kernel.meminfo().totalBytes).toBe(kernel.allocator.managedPages * 4096);
    expect(kernel.allocator.owners.names.filter(name => name.startsWith('balloon'))).toEqual([]);
  });
});
