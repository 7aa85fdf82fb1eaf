/**
 * The driver's clauses of VIRTIO 1.4, section 5.5 (Traditional Memory Balloon Device), each by a device that looks at
 * what it gets. docs/conformance.md is made from the titles, whose numbers comments in the sources cite.
 */

import { describe, expect, it } from 'vitest';
import {
  DEFLATE_ON_OOM,
  FREE_PAGE_HINT,
  MUST_TELL_HOST,
  PAGE_POISON,
  PAGE_REPORTING,
  STATS_VQ,
} from '../../src/balloon/features.ts';
import { HINT_DONE, HINT_ID_MIN, HINT_STOP } from '../../src/balloon/hint-session.ts';
import { profile } from '../../src/balloon/profiles.ts';
import { decodeStatistics, STATISTIC_NAMES } from '../../src/balloon/statistics.ts';
import { BalloonDriver } from '../../src/driver/balloon-driver.ts';
import type { DriverTuning } from '../../src/driver/options.ts';
import { ManualScheduler } from '../../src/driver/scheduler.ts';
import { GFP_MOVABLE } from '../../src/guest/gfp.ts';
import { GuestKernel } from '../../src/guest/kernel.ts';
import type { GuestKernelOptions } from '../../src/guest/kernel-options.ts';
import { PAGE_SIZE, pfnOf } from '../../src/memory/page.ts';
import { NIL } from '../../src/memory/page-blocks.ts';
import { heapMemory } from '../guest/guest.ts';
import { promisesSettled } from '../support/promises.ts';
import { ScriptedDevice, type SeenBuffer, wordsOf } from './scripted-device.ts';

interface Bench {
  readonly kernel: GuestKernel;
  readonly device: ScriptedDevice;
  readonly driver: BalloonDriver;
  readonly scheduler: ManualScheduler;
  readonly free: () => number;
}

interface BenchOptions {
  readonly offered?: bigint;
  readonly kernel?: Partial<GuestKernelOptions>;
  readonly tuning?: Partial<DriverTuning>;
}

async function bench({ offered, kernel: guest, tuning }: BenchOptions = {}): Promise<Bench> {
  const scheduler = new ManualScheduler();
  const memory = heapMemory(32);
  const kernel = new GuestKernel({ memory, clock: scheduler, ...guest });
  const device = new ScriptedDevice(profile('virtio'), memory, offered);
  const driver = new BalloonDriver({
    kernel,
    transport: device,
    scheduler,
    profile: profile('virtio'),
    ...tuning,
  });
  await driver.probe();
  await promisesSettled();
  const free = () => kernel.allocator.freePages + kernel.allocator.perCpuPages;
  return { kernel, device, driver, scheduler, free };
}

/** Acknowledges everything on inflate and deflate until nothing more comes; returns what came. */
async function serve({ device }: Bench): Promise<SeenBuffer[]> {
  const all: SeenBuffer[] = [];
  for (;;) {
    const buffers = [...device.take('inflate'), ...device.take('deflate')];
    if (buffers.length === 0) return all;
    all.push(...buffers);
    device.giveBack(...buffers);
    await promisesSettled();
  }
}

const ownerOf = ({ kernel }: Bench, pfn: number): string | undefined => kernel.allocator.ownerOf(pfn)?.name;

describe('a driver conforms to the specification', () => {
  it('D1: it accepts MUST_TELL_HOST if that is offered, wished for or not', async () => {
    expect((await bench({ tuning: { features: 0n } })).driver.features & MUST_TELL_HOST).toBe(MUST_TELL_HOST);
    expect((await bench({ offered: STATS_VQ })).driver.features & MUST_TELL_HOST).toBe(0n);
  });

  it('D2: it does not accept PAGE_POISON unless it will write poison_val', async () => {
    const careless = await bench();
    expect(careless.driver.features & PAGE_POISON).toBe(0n);
    expect(careless.device.events).not.toContain('config 12');
    const careful = await bench({ kernel: { poison: 0xaa } });
    expect(careful.driver.features & PAGE_POISON).toBe(PAGE_POISON);
    expect(careful.device.poisonValue).toBe(0xaaaaaaaa);
  });

  it('D3: it does not accept PAGE_REPORTING without PAGE_POISON if it relies on what free pages hold', async () => {
    const without = profile('virtio').featureMask & ~PAGE_POISON;
    const relying = await bench({ offered: without, kernel: { poison: 0 } });
    expect(relying.driver.features & (PAGE_REPORTING | FREE_PAGE_HINT)).toBe(0n);
    expect(relying.driver.features & STATS_VQ).toBe(STATS_VQ);
    expect((await bench({ offered: without })).driver.features & PAGE_REPORTING).toBe(PAGE_REPORTING);
    const told = await bench({ kernel: { poison: 0 } });
    expect(told.driver.features & PAGE_REPORTING).toBe(PAGE_REPORTING);
  });

  it('D4: it inflates while num_pages is greater than actual', async () => {
    const world = await bench();
    expect(world.device.take('inflate')).toEqual([]);
    world.device.configure({ numPages: 600 });
    await promisesSettled();
    const buffers = await serve(world);
    expect(buffers.map(({ role, bytes }) => [role, bytes.length / 4])).toEqual([
      ['inflate', 256],
      ['inflate', 256],
      ['inflate', 88],
    ]);
    expect(new Set(buffers.flatMap(wordsOf)).size).toBe(600);
  });

  it('D5: it takes pages back while num_pages is less than actual, otherwise only when the guest is out of memory', async () => {
    const world = await bench();
    world.device.configure({ numPages: 600 });
    await promisesSettled();
    await serve(world);
    world.device.configure({ numPages: 600 });
    await promisesSettled();
    expect(await serve(world)).toEqual([]);
    world.device.configure({ numPages: 500 });
    await promisesSettled();
    const buffers = await serve(world);
    expect(buffers.map(({ role, bytes }) => [role, bytes.length / 4])).toEqual([['deflate', 100]]);
    expect(world.kernel.oom.run().released).toBe(256);
    expect((await serve(world)).map(({ role, bytes }) => [role, bytes.length / 4])).toEqual([
      ['deflate', 256],
    ]);
    expect(world.device.actual).toBe(244);
    const hard = await bench({ offered: profile('virtio').featureMask & ~DEFLATE_ON_OOM });
    hard.device.configure({ numPages: 600 });
    await promisesSettled();
    await serve(hard);
    expect(hard.kernel.oom.run().released).toBe(0);
  });

  it('D6: it tells on the deflate queue which pages it wants back, and they are pages of the balloon', async () => {
    const world = await bench();
    world.device.configure({ numPages: 300 });
    await promisesSettled();
    const inflated = new Set((await serve(world)).flatMap(wordsOf));
    world.device.configure({ numPages: 0 });
    await promisesSettled();
    const deflated = (await serve(world)).flatMap(wordsOf);
    expect(new Set(deflated)).toEqual(inflated);
    expect(deflated.length).toBe(300);
  });

  it('D7: with MUST_TELL_HOST it uses no page before the deflation is acknowledged', async () => {
    const world = await bench();
    world.device.configure({ numPages: 300 });
    await promisesSettled();
    await serve(world);
    const before = world.free();
    world.device.configure({ numPages: 100 });
    await promisesSettled();
    const [buffer] = world.device.take('deflate');
    expect(world.free()).toBe(before);
    for (const pfn of wordsOf(buffer)) expect(ownerOf(world, pfn)).toBe('balloon');
    world.device.giveBack(buffer);
    expect(world.free()).toBe(before + 200);
  });

  it('D8: it does not use a page between adding it to the inflate queue and the acknowledgement', async () => {
    const world = await bench();
    world.device.configure({ numPages: 200 });
    await promisesSettled();
    const [buffer] = world.device.take('inflate');
    const pages = wordsOf(buffer);
    world.kernel.oom.run();
    world.kernel.compact();
    world.device.configure({ numPages: 0 });
    await promisesSettled();
    while (world.kernel.allocate(0, GFP_MOVABLE) !== NIL) {
      // No allocation gets one of them.
    }
    for (const pfn of pages) expect(ownerOf(world, pfn)).toBe('balloon');
    expect(world.device.take('inflate')).toEqual([]);
    expect(world.device.take('deflate')).toEqual([]);
  });

  it('D9: it asks no page back before its inflation was acknowledged', async () => {
    const world = await bench();
    world.device.configure({ numPages: 200 });
    await promisesSettled();
    const buffers = world.device.take('inflate');
    world.device.configure({ numPages: 0 });
    await promisesSettled();
    expect(world.device.events).not.toContain('kick deflate');
    world.device.giveBack(...buffers);
    expect(world.device.take('deflate').flatMap(wordsOf).length).toBe(200);
  });

  it('D10: it updates actual after the number of pages in the balloon changed', async () => {
    const world = await bench();
    world.device.configure({ numPages: 200 });
    await promisesSettled();
    expect(world.device.actual).toBe(0);
    await serve(world);
    expect(world.device.actual).toBe(200);
    world.device.configure({ numPages: 50 });
    await promisesSettled();
    expect(world.device.actual).toBe(200);
    await serve(world);
    expect(world.device.actual).toBe(50);
  });

  it('D11: it has at most one statistics buffer with the device', async () => {
    const { device, driver } = await bench();
    const first = device.take('stats');
    expect(first.length).toBe(1);
    device.interrupt(device.indexOf('stats'));
    driver.poll();
    expect(device.take('stats')).toEqual([]);
    device.giveBack(...first);
    expect(device.take('stats').length).toBe(1);
  });

  it('D12: it adds a statistics buffer after the start, and one after each was returned', async () => {
    const { device } = await bench();
    for (let round = 0; round < 5; round++) {
      const buffers = device.take('stats');
      expect(buffers.length).toBe(1);
      device.giveBack(...buffers);
    }
  });

  it('D13, D14: every statistic is initialized, and the tags are always the same', async () => {
    const { device, kernel } = await bench();
    const sample = (buffer: SeenBuffer) =>
      decodeStatistics(new DataView(buffer.bytes.buffer), buffer.bytes.length);
    const [first] = device.take('stats');
    expect(Object.keys(sample(first))).toEqual([...STATISTIC_NAMES]);
    expect(Object.values(sample(first)).every(value => value !== null)).toBe(true);
    expect(sample(first).totalBytes).toBe(kernel.meminfo().totalBytes);
    kernel.spawn('editor').write(0);
    device.giveBack(first);
    const [second] = device.take('stats');
    expect(sample(second).minorFaults).toBe(1);
    const tags = ({ bytes }: SeenBuffer) => bytes.filter((_, at) => at % 10 < 2);
    expect(tags(second)).toEqual(tags(first));
    expect(first.bytes.length).toBe(160);
  });

  it('D16, D17: command ids are sent in buffers of 4 bytes, first of all the one that is current', async () => {
    const { device } = await bench();
    device.configure({ freePageHintCommandId: HINT_ID_MIN + 7 });
    await promisesSettled();
    const [start, ...blocks] = device.take('hint');
    expect(start.bytes.length).toBe(4);
    expect(wordsOf(start)).toEqual([HINT_ID_MIN + 7]);
    expect(blocks.length).toBeGreaterThan(0);
    const stop = blocks.pop();
    for (const { bytes, writable } of blocks) {
      expect(bytes.length).toBe(0);
      expect(writable[0][1]).toBe(4 * 2 ** 20);
    }
    expect(stop?.bytes.length).toBe(4);
  });

  it('D18: it never starts hinting with the same id twice', async () => {
    const { device } = await bench();
    const seen: number[] = [];
    const collect = async () => {
      await promisesSettled();
      const buffers = device.take('hint');
      seen.push(...buffers.flatMap(wordsOf));
      device.giveBack(...buffers);
      await promisesSettled();
    };
    device.configure({ freePageHintCommandId: HINT_ID_MIN });
    await collect();
    device.configure({ numPages: 10 });
    await collect();
    device.configure({ freePageHintCommandId: HINT_STOP });
    await collect();
    device.configure({ freePageHintCommandId: HINT_ID_MIN });
    await collect();
    device.configure({ freePageHintCommandId: HINT_ID_MIN + 1 });
    await collect();
    expect(seen).toEqual([HINT_ID_MIN, HINT_STOP, HINT_ID_MIN + 1, HINT_STOP]);
  });

  it.each([
    ['STOP', HINT_STOP],
    ['DONE', HINT_DONE],
  ])(
    'D20, D21: it stops hinting and says STOP when the id becomes a reserved one (%s)',
    async (_, commandId) => {
      const { device } = await bench({ tuning: { queueSizeMax: 4 } });
      device.configure({ freePageHintCommandId: HINT_ID_MIN });
      await promisesSettled();
      // The ring is full but for the slot that the STOP needs.
      const before = device.take('hint');
      expect(before.length).toBe(3);
      device.configure({ freePageHintCommandId: commandId });
      await promisesSettled();
      expect(device.take('hint').map(wordsOf)).toEqual([[HINT_STOP]]);
      device.giveBack(...before);
      expect(device.take('hint')).toEqual([]);
    },
  );

  it('D20, D21: it says STOP as soon as there is room, where the ring has but one entry', async () => {
    const { device } = await bench({ tuning: { queueSizeMax: 1 } });
    device.configure({ freePageHintCommandId: HINT_ID_MIN });
    await promisesSettled();
    device.giveBack(...device.take('hint'));
    const block = device.take('hint');
    expect(block[0].writable.length).toBe(1);
    device.configure({ freePageHintCommandId: HINT_STOP });
    await promisesSettled();
    expect(device.take('hint')).toEqual([]);
    device.giveBack(...block);
    expect(device.take('hint').map(wordsOf)).toEqual([[HINT_STOP]]);
  });

  it('D24: it gives the hinted blocks back when the id becomes DONE, and not before', async () => {
    const world = await bench();
    const before = world.free();
    world.device.configure({ freePageHintCommandId: HINT_ID_MIN });
    await promisesSettled();
    const buffers = world.device.take('hint');
    const pages = buffers
      .flatMap(({ writable }) => writable)
      .reduce((sum, [, bytes]) => sum + bytes / PAGE_SIZE, 0);
    world.device.giveBack(...buffers);
    world.device.configure({ freePageHintCommandId: HINT_STOP });
    await promisesSettled();
    expect(world.free()).toBe(before - pages);
    world.device.configure({ freePageHintCommandId: HINT_DONE });
    await promisesSettled();
    expect(world.free()).toBe(before);
  });

  it('D25, D26: it writes poison_val before DRIVER_OK, and never again', async () => {
    const world = await bench({ kernel: { poison: 0x5a } });
    world.device.configure({ numPages: 300 });
    await promisesSettled();
    await serve(world);
    const { events } = world.device;
    expect(events.indexOf('config 12')).toBeLessThan(events.indexOf('DRIVER_OK'));
    expect(events.filter(event => event === 'config 12').length).toBe(1);
    expect(world.device.poisonValue).toBe(0x5a5a5a5a);
  });

  it('D27: it fills deflated pages with poison_val', async () => {
    const world = await bench({ kernel: { poison: 0x5a } });
    world.device.configure({ numPages: 300 });
    await promisesSettled();
    const pages = (await serve(world)).flatMap(wordsOf);
    // The host took them.
    for (const pfn of pages) world.kernel.access.fill(pfn, 1, 0);
    world.device.configure({ numPages: 0 });
    await promisesSettled();
    await serve(world);
    for (const pfn of pages) expect(world.kernel.access.isFilledWith(pfn, 0x5a)).toBe(true);
  });

  it('D28: it uses no reported page before its buffer is returned', async () => {
    const world = await bench();
    world.scheduler.advance(2_000);
    await promisesSettled();
    const [report] = world.device.take('reporting');
    expect(report.writable.length).toBeGreaterThan(0);
    const reported = new Set<number>();
    for (const [address, bytes] of report.writable) {
      for (let page = 0; page < bytes / PAGE_SIZE; page++) reported.add(pfnOf(address) + page);
    }
    const takeAll = () => {
      const taken: number[] = [];
      for (let pfn = 0; pfn !== NIL; ) {
        pfn = world.kernel.allocate(0, GFP_MOVABLE);
        taken.push(pfn);
      }
      return taken.filter(pfn => reported.has(pfn));
    };
    expect(takeAll()).toEqual([]);
    world.device.giveBack(report);
    expect(takeAll().length).toBeGreaterThan(0);
  });
});
