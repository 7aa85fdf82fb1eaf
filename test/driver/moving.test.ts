import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type ProfileName, profile } from '../../src/balloon/profiles.ts';
import { GET_UNUSED_PAGES } from '../../src/balloon/request-messages.ts';
import { DeviceStateError, loadDevice, saveDevice } from '../../src/device/saved-device.ts';
import { BalloonDriver } from '../../src/driver/balloon-driver.ts';
import { DriverStateError, DriverStoppedError } from '../../src/driver/errors.ts';
import { decodeDriver } from '../../src/driver/saved-driver.ts';
import { GFP_UNMOVABLE } from '../../src/guest/gfp.ts';
import { GuestKernel } from '../../src/guest/kernel.ts';
import { StateReader, StateWriter } from '../../src/guest/saved-state.ts';
import { gpaOf } from '../../src/memory/page.ts';
import { LoopbackTransport } from '../support/loopback-transport.ts';
import { MIB_PAGES, PACKED, SEED, SPLIT, World, type WorldOptions } from './world.ts';

/** Stops a world as a migration does. */
async function stop(world: World): Promise<void> {
  const paused = world.driver.pause();
  await world.rest();
  await paused;
  world.transport.stopRings();
  world.driver.collect();
}

interface Saved {
  readonly guest: Uint8Array;
  readonly driver: Uint8Array;
  readonly device: Uint8Array;
}

function save({ kernel, driver, device }: World): Saved {
  const into = new StateWriter();
  kernel.save(into);
  return { guest: into.bytes().slice(), driver: driver.save(), device: saveDevice(device) };
}

/** The same memory at another host: a kernel, a driver and a device that know nothing but what was saved. */
async function arrive(from: World, name: ProfileName, saved: Saved, options: WorldOptions = {}) {
  const { memory, scheduler } = from;
  const kernel = GuestKernel.restore({ memory, clock: scheduler }, new StateReader(saved.guest));
  const transport = new LoopbackTransport({ profile: profile(name), memory, ...options.device });
  const driver = new BalloonDriver({
    kernel,
    transport,
    scheduler,
    profile: profile(name),
    ...options.driver,
  });
  await driver.load(saved.driver);
  loadDevice(transport.device, saved.device);
  return Object.assign(Object.create(World.prototype), from, { kernel, transport, driver }) as World;
}

/** What a driver writes of itself, as far as it is tampered with here. */
interface Editable {
  readonly rings: { nextAvail: number; nextUsed: number; links: number[]; firstFree: number }[];
  readonly allotments: ([address: number, size: number] | null)[];
}

/** Grows with every buffer that names free pages. */
const toldOf = ({ driver: { counters } }: World): number =>
  counters.hintedPages + counters.reports + counters.listBytes;

const RINGS = { split: SPLIT, packed: PACKED };
const CASES = (
  ['virtio', 'page-bitmap', 'page-order', 'page-range', 'page-chunks', 'sg', 'hinting'] as const
).flatMap(name => (['split', 'packed'] as const).map(rings => [name, rings] as const));

describe('a driver and its device go on elsewhere', () => {
  test.each(CASES)('in the middle of an inflation, profile %s, %s rings', async (name, rings) => {
    const options: WorldOptions = { profile: name, driver: { ringFeatures: RINGS[rings] } };
    const here = new World({ ...options, device: { mode: 'deferred' } });
    await here.start();
    await here.occupy('editor', 1000);
    await here.aim(4 * MIB_PAGES);
    here.device.targetPages = 12 * MIB_PAGES;
    await here.beginning(2);
    await stop(here);
    // What was begun is through, and nothing else was.
    expect(here.driver.actualPages).toBe(here.device.accounts.balloonedPages);
    expect(here.device.accounts.pendingPages).toBe(0);
    const there = await arrive(here, name, save(here), options);
    expect(there.device.accounts.balloonedPages).toBe(here.device.accounts.balloonedPages);
    expect(there.driver.actualPages).toBe(here.driver.actualPages);
    await there.driver.run();
    await there.rest();
    expect(there.driver.actualPages).toBe(12 * MIB_PAGES);
    await there.aim(2 * MIB_PAGES);
    expect(there.device.accounts.balloonedPages).toBe(2 * MIB_PAGES);
    expect(there.device.actualPages).toBe(2 * MIB_PAGES);
    await there.pass(5_000);
    there.kernel.checkInvariants();
    expect(there.kernel.verify()).toBeGreaterThanOrEqual(1000);
    expect(there.transport.complaints).toEqual([]);
    await there.driver.remove();
    there.kernel.checkInvariants();
    expect(there.driver.heldPages + there.driver.ownPages).toBe(0);
  });

  test('and what was hinted is free there, and hinted under another id', async () => {
    const here = new World();
    await here.start();
    const free = here.freePages;
    here.device.hints.begin();
    await here.rest();
    expect(here.freePages).toBeLessThan(free / 2);
    here.device.hints.end();
    await stop(here);
    const there = await arrive(here, 'virtio', save(here));
    expect(there.freePages).toBe(free);
    await there.driver.run();
    await there.rest();
    const id = there.device.hints.begin();
    expect(id).toBeGreaterThan(here.device.hints.session.id ?? 0);
    await there.rest();
    expect(there.device.counters.hintedPages).toBeGreaterThan(free / 2);
    there.device.hints.done();
    await there.rest();
    expect(there.freePages).toBe(free);
  });

  test('and its statistics come along', async () => {
    const here = new World();
    await here.start();
    await stop(here);
    const there = await arrive(here, 'virtio', save(here));
    expect(there.device.statistics.sample).toEqual(here.device.statistics.sample);
    await there.driver.run();
    await there.rest();
    there.device.statistics.request();
    await there.rest();
    expect(there.device.counters.statsBuffers).toBe(2);
  });
});

describe('a driver that paused', () => {
  test('goes on where it was, when nothing came of it', async () => {
    const world = new World({ device: { mode: 'deferred' } });
    await world.start();
    world.device.targetPages = 8 * MIB_PAGES;
    await world.beginning(1);
    const paused = world.driver.pause();
    await world.rest();
    await paused;
    const { actualPages } = world.driver;
    expect(actualPages).toBeLessThan(8 * MIB_PAGES);
    await world.pass(3_000);
    expect(world.driver.actualPages).toBe(actualPages);
    world.driver.resume();
    await world.rest();
    expect(world.driver.actualPages).toBe(8 * MIB_PAGES);
  });

  test.each(['virtio', 'hinting'] as const)(
    'reports nothing until it goes on (profile %s)',
    async profile => {
      const world = new World({ profile, device: { mode: 'deferred' } });
      await world.start();
      const paused = world.driver.pause();
      await world.rest();
      await paused;
      await world.pass(3_000);
      expect(world.driver.counters.reports).toBe(0);
      world.driver.resume();
      await world.rest();
      expect(world.driver.counters.reportedPages).toBeGreaterThan(48 * MIB_PAGES);
    },
  );

  test.each(['virtio', 'sg', 'hinting', 'page-chunks'] as const)(
    'tells of no more free pages until it goes on, and waits for those that it told of (profile %s)',
    async profile => {
      const world = new World({
        profile,
        device: { mode: 'deferred' },
        driver: { queueSizeMax: 4, reportingBlocks: 2, ringFeatures: 0n },
      });
      const { driver } = world;
      await world.start();
      await world.scatter('database', 16 * MIB_PAGES);
      const free = world.freePages;
      if (profile === 'page-chunks') world.device.requests.send(GET_UNUSED_PAGES);
      else if (profile === 'hinting') world.scheduler.advance(2_000);
      else world.device.hints.begin();
      await world.beginning(1);
      let over = false;
      const paused = driver.pause().then(() => {
        over = true;
      });
      const told = toldOf(world);
      expect(told).toBeGreaterThan(0);
      await world.promises();
      expect(over).toBe(false);
      await world.rest();
      await paused;
      expect(toldOf(world)).toBe(told);
      expect(world.freePages).toBe(free);
      world.kernel.checkInvariants();
      driver.resume();
      await world.rest();
      expect(toldOf(world)).toBeGreaterThan(told);
      world.check();
    },
  );

  test('says so when its device returns nothing', async () => {
    const world = new World({ device: { mode: 'deferred' } });
    await world.start();
    world.device.targetPages = 8 * MIB_PAGES;
    await world.beginning(0);
    const paused = world.driver.pause();
    world.scheduler.advance(10_000);
    await expect(paused).rejects.toThrow(DriverStoppedError);
    world.driver.resume();
    await world.rest();
    expect(world.driver.actualPages).toBe(8 * MIB_PAGES);
  });

  test('is not asked to when it does not run, or its device is away', async () => {
    const world = new World();
    await expect(world.driver.pause()).rejects.toThrow(DriverStoppedError);
    await world.start();
    world.driver.deviceLost();
    await expect(world.driver.pause()).rejects.toThrow(DriverStoppedError);
    expect(() => world.driver.save()).toThrow(DriverStoppedError);
  });
});

describe(`saved states that make no sense (seed ${SEED})`, () => {
  async function savedWorld(): Promise<{ world: World; saved: Saved }> {
    const world = new World({ sizeMiB: 32 });
    await world.start();
    await world.aim(MIB_PAGES);
    await stop(world);
    return { world, saved: save(world) };
  }

  test('are refused by the driver with an error of its own', async () => {
    const { saved } = await savedWorld();
    const bytes = fc.tuple(fc.nat({ max: saved.driver.length - 1 }), fc.integer({ min: 0, max: 255 }));
    fc.assert(
      fc.property(bytes, ([at, value]) => {
        const changed = saved.driver.slice();
        changed[at] = value;
        try {
          decodeDriver(changed);
        } catch (error) {
          expect(error).toBeInstanceOf(DriverStateError);
        }
      }),
      { seed: SEED, numRuns: 300 },
    );
  });

  test.each(['split', 'packed'] as const)(
    'are refused by a driver that would go on with them (%s rings)',
    async rings => {
      const options: WorldOptions = { sizeMiB: 8, driver: { ringFeatures: RINGS[rings] } };
      const world = new World(options);
      await world.start();
      const others = world.kernel.allocate(2, GFP_UNMOVABLE);
      const free = world.kernel.allocate(2, GFP_UNMOVABLE);
      world.kernel.free(free, 2);
      await stop(world);
      const saved = save(world);
      const text = new TextDecoder().decode(saved.driver);
      const {
        rings: [{ links }],
        allotments: [[address, bytes]],
      } = JSON.parse(text);
      const size = links.length;
      const ringAt =
        (at: number, length = bytes) =>
        ({ allotments }: Editable) =>
          allotments.splice(0, 1, [at, length]);
      const cases: [string, (driver: Editable) => unknown][] = [
        ['another profile', driver => Object.assign(driver, { profile: 'sg' })],
        ['features of no device', driver => Object.assign(driver, { features: 'ffffffffffffffff' })],
        ['a ring less', driver => driver.rings.pop()],
        ['a ring more', driver => driver.rings.push(driver.rings[0])],
        ['a buffer that the device had', ({ rings: [ring] }) => ring.nextUsed++],
        ['a free descriptor beyond the end', ({ rings: [ring] }) => Object.assign(ring, { firstFree: size })],
        ['a link beyond the end', ({ rings: [ring] }) => ring.links.splice(1, 1, size + 1)],
        ['a shorter ring', ({ rings: [ring] }) => ring.links.pop()],
        ['a longer ring', ({ rings: [ring] }) => ring.links.push(0)],
        ['no memory at all', ({ allotments }) => allotments.splice(0)],
        ['less memory', ({ allotments }) => allotments.pop()],
        ['more memory', ({ allotments }) => allotments.push(allotments[0])],
        ['no memory for a ring', ({ allotments }) => allotments.splice(0, 1, null)],
        ['a ring that is smaller', ringAt(address, bytes - 1)],
        ['a ring that lies askew', ringAt(address + 1)],
        ['a ring that ends beyond its block', ringAt(address + 4096)],
        ['a ring in memory of another owner', ringAt(gpaOf(others))],
        ['a ring in memory that is free', ringAt(gpaOf(free))],
        ['a ring beyond all memory', ringAt(2 ** 40)],
      ];
      if (rings === 'packed') {
        const beyond = { nextAvail: size, nextUsed: size };
        cases.push([
          'a ring that stopped beyond its end',
          ({ rings: [ring] }) => Object.assign(ring, beyond),
        ]);
      }
      for (const [what, edit] of cases) {
        const driver: Editable = JSON.parse(text);
        edit(driver);
        const edited = { ...saved, driver: new TextEncoder().encode(JSON.stringify(driver)) };
        await expect(arrive(world, 'virtio', edited, options), what).rejects.toThrow(DriverStateError);
      }
      await expect(arrive(world, 'virtio', saved, options)).resolves.toBeInstanceOf(World);
    },
  );

  test('are refused by the device, which is as it was then', async () => {
    const { world, saved } = await savedWorld();
    const device = () => new LoopbackTransport({ profile: profile('virtio'), memory: world.memory }).device;
    const edited = (edit: (text: string) => string) => {
      const length = new DataView(saved.device.buffer, saved.device.byteOffset).getUint32(0, true);
      const header = Buffer.from(edit(Buffer.from(saved.device.subarray(4, 4 + length)).toString()));
      const bytes = Buffer.concat([Buffer.alloc(4), header, saved.device.subarray(4 + length)]);
      bytes.writeUInt32LE(header.length);
      return bytes;
    };
    const runs = (...numbers: number[]) =>
      Buffer.concat([saved.device, Buffer.from(Uint32Array.from(numbers).buffer)]);
    const refused: [string, Uint8Array][] = [
      ['nothing', new Uint8Array()],
      ['half of it', saved.device.subarray(0, saved.device.length / 2)],
      ['half a run', Buffer.concat([saved.device, Buffer.alloc(4)])],
      ['another profile', edited(text => text.replace('virtio', 'sg'))],
      ['no JSON', edited(text => text.slice(1))],
      ['a negative target', edited(text => text.replace(/"targetPages":\d+/, '"targetPages":-1'))],
      ['an id that is no session', edited(text => text.replace(/"hintId":\d+/, '"hintId":7'))],
      ['pages beyond memory', runs(0x7fff_ffff, 1)],
      ['more pages than there are', runs(8191, 2)],
      ['no pages', runs(8191, 0)],
      ['pages twice', runs(8191, 1, 8191, 1)],
    ];
    for (const [what, bytes] of refused) {
      const fresh = device();
      expect(() => loadDevice(fresh, bytes), what).toThrow(DeviceStateError);
      expect([what, fresh.targetPages, fresh.accounts.balloonedPages]).toEqual([what, 0, 0]);
    }
    const fresh = device();
    loadDevice(fresh, runs(8191, 1));
    expect(fresh.accounts.balloonedPages).toBe(MIB_PAGES + 1);
  });
});
