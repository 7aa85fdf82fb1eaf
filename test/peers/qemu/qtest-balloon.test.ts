import { expect, it } from 'vitest';
import { CONFIG } from '../../../src/balloon/config-space.ts';
import { FREE_PAGE_HINT, PAGE_REPORTING, STATS_VQ } from '../../../src/balloon/features.ts';
import { PAGE_SIZE } from '../../../src/memory/page.ts';
import { PciError, QtestError } from '../../../src/peers/qemu/errors.ts';
import { migrateAway } from '../../../src/peers/qemu/migration.ts';
import * as commands from '../../../src/peers/qemu/qmp-commands.ts';
import { QtestMachine, type QtestMachineOptions } from '../../../src/peers/qemu/qtest-machine.ts';
import { VirtioPciTransport } from '../../../src/peers/qemu/virtio-pci.ts';
import { hasFeature, RING_EVENT_IDX, RING_PACKED, VERSION_1 } from '../../../src/virtio/features.ts';
import { DEVICE_STATUS } from '../../../src/virtio/transport.ts';
import { inflateRange, touch, wake } from './balloon-by-hand.ts';
import { cleanUp, describeWithQemu, until } from './peer.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

describeWithQemu("QEMU's balloon device, driven by qtest", () => {
  const finally_ = cleanUp();

  async function machine(options: Partial<QtestMachineOptions> = {}): Promise<QtestMachine> {
    const started = await QtestMachine.start({ memoryBytes: 64 * MIB, ...options });
    finally_(() => started.close());
    return started;
  }

  it('offers the features that it was started with, and the queues that they bring', async () => {
    const iothread = ['-object', 'iothread,id=io'];
    const balloon = { 'free-page-hint': 'on', iothread: 'io', 'free-page-reporting': 'on' };
    const started = await machine({ balloon, args: iothread });
    const transport = await started.openBalloon();
    await transport.reset();
    const features = await transport.getFeatures();
    for (const mask of [VERSION_1, STATS_VQ, FREE_PAGE_HINT, PAGE_REPORTING, RING_EVENT_IDX]) {
      expect(hasFeature(features, mask)).toBe(true);
    }
    const sizes = [];
    for (let index = 0; index < 6; index++) sizes.push(await transport.queueSizeMax(index));
    expect(sizes).toEqual([128, 128, 128, 1024, 32, 0]);
  });

  it('tells a new target by an interrupt, and keeps the balloon size that the driver writes', async () => {
    const started = await machine();
    const { qemu, memory } = started;
    const transport = await started.openBalloon();
    await wake(transport, memory, STATS_VQ);
    const changed = new Promise<void>(resolve => transport.onConfigChange(resolve));
    await commands.setBalloon(qemu.qmp, 48 * MIB);
    await changed;
    const target = new DataView((await transport.readConfig(CONFIG.offset.numPages, 4)).buffer);
    expect(target.getUint32(0, true)).toBe((16 * MIB) / PAGE_SIZE);

    const told = new Promise<number>(resolve => {
      commands.onQemuEvent(qemu.qmp, 'BALLOON_CHANGE', ({ actual }) => resolve(actual));
    });
    const actual = new Uint8Array(4);
    new DataView(actual.buffer).setUint32(0, (16 * MIB) / PAGE_SIZE, true);
    await transport.writeConfig(CONFIG.offset.actual, actual);
    expect(await told).toBe(48 * MIB);
    expect(await commands.queryBalloon(qemu.qmp)).toBe(48 * MIB);
  });

  it.each([
    ['split', {}, RING_EVENT_IDX],
    ['split, without event indices', { event_idx: 'off' }, RING_EVENT_IDX],
    ['packed', { packed: 'on' }, RING_PACKED | RING_EVENT_IDX],
  ])('frees inflated pages below and above 4 GiB (%s ring)', async (name, balloon, wanted) => {
    const started = await machine({ memoryBytes: 3 * GIB, balloon });
    const { memory } = started;
    expect(memory.regions.map(region => [region.guestAddress, region.size])).toEqual([
      [0, 2 * GIB],
      [4 * GIB, 1 * GIB],
    ]);
    const driver = await wake(await started.openBalloon(), memory, wanted);
    expect(hasFeature(driver.features, RING_PACKED)).toBe(name === 'packed');
    const before = started.residentBytes();
    const ranges = [
      [64 * MIB, 16 * MIB],
      [2 * GIB - 8 * MIB, 8 * MIB],
      [4 * GIB + 16 * MIB, 24 * MIB],
    ];
    for (const [from, bytes] of ranges) touch(memory, from, bytes);
    expect(started.residentBytes() - before).toBe(48 * MIB);
    for (const [from, bytes] of ranges) await inflateRange(driver, memory, from, bytes);
    // The page lists are the driver's own and stay.
    expect(started.residentBytes() - before).toBeLessThan(MIB);
    expect(memory.u32(4 * GIB + 16 * MIB)).toBe(0);
  });

  it('interrupts for used buffers when the driver asks for that', async () => {
    const started = await machine();
    const transport = await started.openBalloon();
    const driver = await wake(transport, started.memory, 0n);
    driver.inflate.requestInterrupts(started.memory);
    const interrupted = new Promise<number | null>(resolve => transport.onInterrupt(resolve));
    await inflateRange(driver, started.memory, 32 * MIB, MIB);
    expect(await interrupted).toBeNull();
  });

  it('forgets its queues in a reset', async () => {
    const started = await machine();
    const transport = await started.openBalloon();
    await wake(transport, started.memory, 0n);
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DEVICE_STATUS;
    expect(await transport.readStatus()).toBe(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    await transport.reset();
    expect(await transport.readStatus()).toBe(0);
    touch(started.memory, 32 * MIB, MIB);
    await inflateRange(await wake(transport, started.memory, 0n), started.memory, 32 * MIB, MIB);
    expect(started.memory.u32(32 * MIB)).toBe(0);
  });

  it('runs behind a firmware that only sleeps', async () => {
    const started = await machine({ running: true });
    const { qmp } = started.qemu;
    await until(async () => (await commands.queryStatus(qmp)).running);
    const transport = await started.openBalloon();
    await wake(transport, started.memory, STATS_VQ);
    expect(await commands.queryVirtioStatus(qmp, started.balloonPath)).toMatchObject({
      driverReady: true,
      features: ['VIRTIO_BALLOON_F_STATS_VQ', 'VIRTIO_F_VERSION_1'],
    });
  });

  it('has no memory of the host before it is used, or all of it from the start', async () => {
    const sparse = await machine();
    expect(sparse.residentBytes()).toBeLessThan(MIB);
    const full = await machine({ preallocated: true });
    expect(full.residentBytes()).toBe(64 * MIB);
  });

  it('can be migrated, even if to no other host', async () => {
    const started = await machine({ running: true });
    touch(started.memory, 32 * MIB, 8 * MIB);
    const nowhere = migrateAway(started.qemu.qmp, { uri: 'tcp:127.0.0.1:1' });
    await expect(nowhere).rejects.toThrow(/could not migrate to tcp:127.0.0.1:1/);
    const summary = await migrateAway(started.qemu.qmp, { uri: 'exec:cat >/dev/null' });
    expect(summary.sentPages).toBeGreaterThanOrEqual((8 * MIB) / PAGE_SIZE);
    expect(summary.transferredBytes).toBeGreaterThan(8 * MIB);
  });

  it('ends everything that is under way when QEMU is killed', async () => {
    const started = await machine();
    const transport = await started.openBalloon();
    const reads = Promise.allSettled(Array.from({ length: 50_000 }, () => transport.readStatus()));
    await started.qemu.kill();
    expect(await transport.ended).toBeInstanceOf(QtestError);
    const rejected = (await reads).filter(({ status }) => status === 'rejected');
    expect(rejected.length).toBeGreaterThan(0);
    await expect(transport.readConfig(0, 8)).rejects.toBeInstanceOf(QtestError);
    await expect(transport.reset()).rejects.toBeInstanceOf(QtestError);
  });

  it('is not taken for a device of another kind', async () => {
    const started = await machine();
    await expect(VirtioPciTransport.open(started.qtest, 2)).rejects.toBeInstanceOf(PciError);
  });
});
