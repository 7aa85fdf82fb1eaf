/**
 * Where a guest can tell QEMU's balloon device from ours. Each test says what both do; docs/qemu.md says who follows
 * the specification (VIRTIO 1.4). When QEMU changes its ways, a test here says so.
 */
import { describe, expect, it } from 'vitest';
import { CONFIG } from '../../../src/balloon/config-space.ts';
import { FREE_PAGE_HINT, MUST_TELL_HOST, PAGE_REPORTING, STATS_VQ } from '../../../src/balloon/features.ts';
import { HINT_ID_MIN, HINT_STOP } from '../../../src/balloon/hint-session.ts';
import { PAGE_SIZE } from '../../../src/memory/page.ts';
import { DEVICE_STATUS } from '../../../src/virtio/transport.ts';
import { HandDriver } from './hand-driver.ts';
import { cleanUp, describeWithQemu, until } from './peer.ts';
import { type DeviceChoice, type DeviceMaker, type DeviceUnderTest, startDevice } from './two-devices.ts';

const MIB = 2 ** 20;
const MEMORY_BYTES = 64 * MIB;
const FREE_AT = 32 * MIB;
const BLOCK_BYTES = 4 * MIB;

const { ACKNOWLEDGE, DRIVER, FEATURES_OK } = DEVICE_STATUS;

describeWithQemu("QEMU's device and ours differ", () => {
  const finally_ = cleanUp();

  async function start(maker: DeviceMaker, choice: Omit<DeviceChoice, 'memoryBytes'> = {}) {
    const device = await startDevice(maker, { memoryBytes: MEMORY_BYTES, ...choice });
    finally_(() => device.close());
    return device;
  }

  /** The host has taken a page that the guest wrote to. */
  const isGone = ({ memory }: DeviceUnderTest, address: number) => memory.u32(address) === 0;

  /** What each does, by maker; a test that has both in one place reads as the difference. */
  const both = <T>(qemus: T, ours: T): [DeviceMaker, T][] => [
    ['QEMU', qemus],
    ['Aerostat', ours],
  ];

  describe('in MUST_TELL_HOST, which only ours offers', () => {
    it.each(both(0n, MUST_TELL_HOST))('%s', async (maker, offered) => {
      const { transport } = await start(maker);
      await transport.reset();
      expect((await transport.getFeatures()) & MUST_TELL_HOST).toBe(offered);
    });
  });

  describe('in features that were never offered, which QEMU lets a driver accept', () => {
    it.each(both(true, false))('%s', async (maker, accepts) => {
      const { transport } = await start(maker);
      await transport.reset();
      await transport.writeStatus(ACKNOWLEDGE | DRIVER);
      const offered = await transport.getFeatures();
      const attempt = async () => {
        await transport.setFeatures(offered | FREE_PAGE_HINT);
        await transport.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        return ((await transport.readStatus()) & FEATURES_OK) !== 0;
      };
      expect(await attempt().catch(() => false)).toBe(accepts);
    });
  });

  describe('in the numbers of queues: QEMU counts what it offers, ours what was negotiated, as Linux does', () => {
    const report = { extent: { address: FREE_AT, bytes: BLOCK_BYTES } };

    it.each(both(false, true))('%s, of a report without free page hints', async (maker, heard) => {
      const device = await start(maker, { hints: true });
      const driver = await HandDriver.start(device, STATS_VQ | PAGE_REPORTING);
      device.memory.setU32(FREE_AT, 1);
      await driver.exchange('reporting', report);
      expect(isGone(device, FREE_AT)).toBe(heard);
    });

    it.each(both(true, true))(
      '%s, of a report when hints are taken as well: all agree',
      async (maker, heard) => {
        const device = await start(maker, { hints: true });
        const driver = await HandDriver.start(device, STATS_VQ | FREE_PAGE_HINT | PAGE_REPORTING);
        device.memory.setU32(FREE_AT, 1);
        await driver.exchange('reporting', report);
        expect(isGone(device, FREE_AT)).toBe(heard);
      },
    );
  });

  describe('in the configuration while a hint session runs: QEMU shows STOP, ours the id of the session', () => {
    it.each(both<number | undefined>(HINT_STOP, undefined))('%s', async (maker, fixed) => {
      const device = await start(maker, { hints: true });
      const driver = await HandDriver.start(device, STATS_VQ | FREE_PAGE_HINT);
      const commandId = () => driver.configWord(CONFIG.offset.freePageHintCommandId);
      await device.wishForHints();
      await until(async () => (await commandId()) >= HINT_ID_MIN);
      const id = await commandId();
      const shown = fixed ?? id;
      await driver.exchange('hint', { words: [id] });
      await until(async () => (await commandId()) === shown);
      await driver.exchange('hint', { extent: { address: FREE_AT, bytes: BLOCK_BYTES } });
      expect(await commandId()).toBe(shown);
    });
  });

  describe('in what a reset leaves: QEMU keeps the size of a balloon that is gone', () => {
    it.each(both(123, 0))('%s', async (maker, left) => {
      const device = await start(maker);
      const driver = await HandDriver.start(device, STATS_VQ);
      await driver.setConfigWord(CONFIG.offset.actual, 123);
      expect(await driver.configWord(CONFIG.offset.actual)).toBe(123);
      const next = await HandDriver.start(device, STATS_VQ);
      expect(await next.configWord(CONFIG.offset.actual)).toBe(left);
    });
  });

  describe('in a buffer without any bytes: QEMU stops the whole device, ours returns the buffer', () => {
    it.each(both(DEVICE_STATUS.NEEDS_RESET, 0))('%s', async (maker, needsReset) => {
      const device = await start(maker);
      const driver = await HandDriver.start(device, STATS_VQ);
      device.memory.setU32(FREE_AT, 1);
      driver.send('inflate', { extent: { address: FREE_AT, bytes: 0 } });
      const resetNeeded = async () => (await device.transport.readStatus()) & DEVICE_STATUS.NEEDS_RESET;
      // QEMU answers qtest's lines before it looks at what they have set off.
      if (needsReset === 0) expect(await driver.returned('inflate')).toBe(0);
      else await until(async () => (await resetNeeded()) !== 0);
      expect(await resetNeeded()).toBe(needsReset);
      driver.send('inflate', { words: [FREE_AT / PAGE_SIZE] });
      if (needsReset === 0) await until(() => isGone(device, FREE_AT));
      else expect(isGone(device, FREE_AT)).toBe(false);
    });
  });
});
