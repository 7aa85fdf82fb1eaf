/**
 * The same driver on QEMU's balloon device and on ours, through all that a balloon does and over every kind of ring.
 * Where a guest can see the two differ is device-differences.test.ts's.
 */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  DEFLATE_ON_OOM,
  FREE_PAGE_HINT,
  MUST_TELL_HOST,
  PAGE_REPORTING,
  STATS_VQ,
} from '../../../src/balloon/features.ts';
import { profile } from '../../../src/balloon/profiles.ts';
import { BalloonDriver } from '../../../src/driver/balloon-driver.ts';
import type { DriverTuning } from '../../../src/driver/options.ts';
import type { Scheduler } from '../../../src/driver/scheduler.ts';
import { GuestKernel } from '../../../src/guest/kernel.ts';
import { gpaOf, PAGE_SIZE } from '../../../src/memory/page.ts';
import { PAGEBLOCK_ORDER } from '../../../src/memory/page-blocks.ts';
import { PageSet } from '../../../src/memory/page-set.ts';
import { migrateAway } from '../../../src/peers/qemu/migration.ts';
import { QtestMachine } from '../../../src/peers/qemu/qtest-machine.ts';
import { hasFeature, RING_EVENT_IDX, RING_INDIRECT_DESC, RING_PACKED } from '../../../src/virtio/features.ts';
import { cleanUp, describeWithQemu, until } from './peer.ts';
import { type DeviceMaker, type DeviceUnderTest, startDevice } from './two-devices.ts';

const MIB = 2 ** 20;
const MEMORY_BYTES = 96 * MIB;
/** Below 1 MiB a PC has firmware and video memory. */
const RESERVED_PAGES = MIB / PAGE_SIZE;

const nodeScheduler: Scheduler = {
  now: () => performance.now(),
  schedule: (delayMs, run) => {
    const timer = setTimeout(run, delayMs);
    return { cancel: () => clearTimeout(timer) };
  },
};

type Device = Pick<DeviceUnderTest, 'memory' | 'transport'>;

/** A guest on a device: a kernel, a process with pages that must keep their contents, and the driver. */
class DrivenGuest {
  readonly kernel: GuestKernel;
  readonly driver: BalloonDriver;
  readonly #memory: Device['memory'];

  constructor({ memory, transport }: Device, tuning: Partial<DriverTuning> = {}) {
    this.#memory = memory;
    this.kernel = new GuestKernel({ memory, reservedPages: RESERVED_PAGES });
    this.driver = new BalloonDriver({
      kernel: this.kernel,
      transport,
      scheduler: nodeScheduler,
      profile: profile('virtio'),
      reportingDelayMs: 10,
      retryMs: 10,
      ...tuning,
    });
    const process = this.kernel.spawn('keeper');
    for (let page = 0; page < 1000; page++) process.write(page);
  }

  get freePages(): number {
    return this.kernel.allocator.freePages + this.kernel.allocator.perCpuPages;
  }

  /** Writes into every page that is free, so that the host has memory for it; returns how many. */
  touchFree(): number {
    const free = new PageSet(Number.MAX_SAFE_INTEGER);
    this.kernel.allocator.drainPerCpu();
    this.kernel.allocator.listFree(free, 0);
    free.forEachRun((pfn, count) => {
      for (let page = pfn; page < pfn + count; page++) this.#memory.setU32(gpaOf(page), page);
    });
    return free.pages;
  }

  /** Everything that the guest wrote is there, and every page is accounted for. */
  check(): void {
    this.kernel.verify();
    this.kernel.checkInvariants();
  }
}

const RINGS = [RING_PACKED, 0n].flatMap(packed =>
  [RING_EVENT_IDX, 0n].flatMap(eventIdx =>
    [RING_INDIRECT_DESC, 0n].map((indirect): [title: string, ringFeatures: bigint] => {
      const title = [
        packed === 0n ? 'split' : 'packed',
        eventIdx === 0n ? 'no event indices' : 'event indices',
        indirect === 0n ? 'no indirect tables' : 'indirect tables',
      ];
      return [title.join(', '), packed | eventIdx | indirect];
    }),
  ),
);

describeWithQemu("the driver on QEMU's device and on ours", () => {
  describe.each<DeviceMaker>(['QEMU', 'Aerostat'])('%s', maker => {
    let device: DeviceUnderTest;
    let guest: DrivenGuest;

    beforeAll(async () => {
      device = await startDevice(maker, { memoryBytes: MEMORY_BYTES });
    });
    afterAll(() => device?.close());

    const finally_ = cleanUp();

    async function boot(tuning: Partial<DriverTuning>): Promise<DrivenGuest> {
      await device.aim(0);
      guest = new DrivenGuest(device, tuning);
      finally_(() => guest.driver.remove());
      await guest.driver.probe();
      return guest;
    }

    /** Waits until guest and host have come to a balloon of so many pages. */
    async function reach(pages: number): Promise<void> {
      await device.aim(pages);
      await until(() => guest.driver.targetPages === pages);
      await guest.driver.settled();
      expect(guest.driver.actualPages).toBe(pages);
      await until(async () => (await device.actualPages()) === pages);
    }

    it.each(RINGS)(
      'inflates, deflates, reports and tells its statistics (%s)',
      async (_title, ringFeatures) => {
        const { driver, kernel } = await boot({
          ringFeatures,
          features: STATS_VQ | PAGE_REPORTING,
          reportingBlocks: 5,
        });
        for (const ring of [RING_PACKED, RING_EVENT_IDX, RING_INDIRECT_DESC]) {
          expect(hasFeature(driver.features, ring)).toBe(hasFeature(ringFeatures, ring));
        }
        // What is free goes back when it is reported, and only then.
        const reportable = new PageSet(Number.MAX_SAFE_INTEGER);
        kernel.allocator.listFree(reportable, PAGEBLOCK_ORDER);
        await until(() => driver.counters.reportedPages === reportable.pages);

        const touched = guest.touchFree();
        const before = device.residentPages();
        await reach(9_999);
        await until(() => device.residentPages() === before - 9_999);
        expect(driver.counters.inflatedPages).toBe(9_999);

        expect(await device.statistics()).toMatchObject({
          freeBytes: kernel.meminfo().freeBytes,
          totalBytes: kernel.meminfo().totalBytes,
          cacheBytes: kernel.meminfo().cacheBytes,
        });

        await reach(1_234);
        expect(driver.counters.deflatedPages).toBe(9_999 - 1_234);
        await reach(0);
        // Blocks that are being reported are free again when their report is back.
        await until(() => guest.freePages === touched);
        guest.check();
      },
    );

    it('gives back what a report names, when the guest has freed it', async () => {
      const { driver, kernel } = await boot({ features: STATS_VQ | PAGE_REPORTING });
      const reportable = new PageSet(Number.MAX_SAFE_INTEGER);
      kernel.allocator.listFree(reportable, PAGEBLOCK_ORDER);
      await until(() => driver.counters.reportedPages === reportable.pages);
      const settled = driver.counters.reportedPages;
      const process = kernel.spawn('user');
      const before = device.residentPages();
      for (let page = 0; page < 10_000; page++) process.write(page);
      expect(device.residentPages() - before).toBeGreaterThanOrEqual(9_000);
      process.exit();
      kernel.allocator.drainPerCpu();
      await until(() => driver.counters.reportedPages - settled > 9_000);
      expect(device.residentPages() - before).toBeLessThan(1_000);
      guest.check();
    });

    it('lets a guest that is out of memory have pages back (DEFLATE_ON_OOM)', async () => {
      const { driver, kernel } = await boot({ features: DEFLATE_ON_OOM });
      const target = guest.freePages - 2_000;
      await reach(target);
      const process = kernel.spawn('hungry');
      for (let page = 0; page < 6_000; ) {
        if (process.write(page)) page++;
        // Without memory: the device has to answer first.
        else await new Promise(resolve => setTimeout(resolve, 1));
        expect(process.state).toBe('running');
      }
      expect(driver.counters.oomPages).toBeGreaterThan(3_000);
      expect(driver.actualPages).toBeLessThan(target - 3_000);
      expect(kernel.vmstat().oomKills).toBe(0);
      guest.check();
      process.exit();
    });

    it('lets the guest run out of memory where that was not agreed on', async () => {
      const { driver, kernel } = await boot({ features: 0n });
      const target = guest.freePages - 2_000;
      await reach(target);
      const process = kernel.spawn('hungry');
      for (let page = 0; page < 3_000 && process.state === 'running'; page++) process.write(page);
      expect(process.state).toBe('killed');
      expect(driver.actualPages).toBe(target);
    });

    it('gives every page back in a reset, and fills the balloon again', async () => {
      const { driver } = await boot({ features: STATS_VQ });
      const free = guest.freePages;
      await reach(3_000);
      await driver.reset();
      await until(() => driver.targetPages === 3_000);
      await driver.settled();
      expect(driver.actualPages).toBe(3_000);
      expect(guest.freePages).toBe(free - 3_000);
      await until(async () => (await device.actualPages()) === 3_000);
      guest.check();
    });

    it('takes all pages back when the driver leaves, and serves the next one', async () => {
      const { driver } = await boot({ features: STATS_VQ });
      const free = guest.freePages + driver.ownPages;
      await reach(2_000);
      await driver.remove();
      expect(guest.freePages).toBe(free);
      // QEMU says 0 of a guest without a driver; ours says that it does not know.
      await until(async () => !((await device.actualPages()) > 0));
      await boot({ ringFeatures: 0n });
      await reach(500);
      guest.check();
    });

    it(maker === 'QEMU' ? 'does without MUST_TELL_HOST' : 'has MUST_TELL_HOST', async () => {
      const { driver } = await boot({});
      expect(hasFeature(driver.features, MUST_TELL_HOST)).toBe(maker === 'Aerostat');
    });
  });

  describe('QEMU that migrates', () => {
    const finally_ = cleanUp();

    it('transfers only what the driver does not hint as free, and lets the guest have it back', async () => {
      const machine = await QtestMachine.start({
        memoryBytes: 256 * MIB,
        running: true,
        balloon: { 'free-page-hint': 'on', iothread: 'hints' },
        args: ['-object', 'iothread,id=hints'],
      });
      finally_(() => machine.close());
      const device = { memory: machine.memory, transport: await machine.openBalloon() };
      const { qmp } = machine.qemu;
      const transferred: number[] = [];
      let touched = 0;
      for (const features of [STATS_VQ | FREE_PAGE_HINT, STATS_VQ]) {
        const hints = hasFeature(features, FREE_PAGE_HINT);
        const guest = new DrivenGuest(device, { features });
        await guest.driver.probe();
        const free = guest.freePages;
        touched = guest.touchFree();
        // So slow that the hints are there before much is sent.
        const bandwidthBytesPerSecond = hints ? 64 * MIB : 2 ** 40;
        const summary = await migrateAway(qmp, { uri: 'exec:cat >/dev/null', bandwidthBytesPerSecond });
        transferred.push(summary.transferredBytes);
        if (hints) {
          expect(guest.driver.counters.hintSessions).toBeGreaterThan(0);
          expect(guest.driver.counters.hintedPages).toBeGreaterThan(0.9 * touched);
        }
        await until(() => guest.freePages === free);
        await qmp.execute('cont');
        guest.check();
        await guest.driver.remove();
      }
      const [hinted, whole] = transferred;
      expect(whole).toBeGreaterThan(touched * PAGE_SIZE);
      expect(hinted).toBeLessThan(0.2 * whole);
    });
  });
});
