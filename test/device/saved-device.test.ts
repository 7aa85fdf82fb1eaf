/** What of a device can be saved; that it goes on elsewhere is test/driver/moving.test.ts's. */
import { expect, test } from 'vitest';
import { DeviceStateError, saveDevice } from '../../src/device/saved-device.ts';
import { HeapBacking } from '../../src/memory/backing.ts';
import { MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { openRig } from '../support/device-rig.ts';

const MIB = 2 ** 20;
/** Where page frame numbers need more than 32 bits. */
const HIGH = 2 ** 32 * PAGE_SIZE;

test.each([
  ['whose last page is the last below 16 TiB', HIGH - PAGE_SIZE, true],
  ['above 16 TiB', HIGH, false],
])('a balloon %s is saved, or said to be out of reach', (_, address, saved) => {
  const rig = openRig({ profile: 'sg' });
  const backing = new HeapBacking(MIB);
  const region = new MemoryRegion({ guestAddress: HIGH - MIB / 2, size: MIB, userAddress: 2 ** 46 }, backing);
  rig.memory.add(region);
  rig.device.regionAdded(region);
  rig.queue('inflate').exchange({ in: [[address, PAGE_SIZE]] });
  expect(rig.balloonedPages).toBe(1);
  if (saved) expect(() => saveDevice(rig.device)).not.toThrow();
  else expect(() => saveDevice(rig.device)).toThrow(DeviceStateError);
});
