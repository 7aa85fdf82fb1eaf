/** What of a device can be saved; that it goes on elsewhere is test/driver/moving.test.ts's. */
import { expect, test } from 'vitest';
import { DeviceStateError, loadDevice, saveDevice, saveForSuccessor } from '../../src/device/saved-device.ts';
import { HeapBacking } from '../../src/memory/backing.ts';
import { MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { openRig, FIRST_PAGE as P, withoutMustTellHost } from '../support/device-rig.ts';

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

/** Its header, as a host reads it that knows nothing of what came later. */
function headerOf(saved: Uint8Array): Record<string, unknown> {
  const length = new DataView(saved.buffer, saved.byteOffset).getUint32(0, true);
  return JSON.parse(new TextDecoder().decode(saved.subarray(4, 4 + length)));
}

test('what the guest is to keep goes along in a version of its own, and without it the state is as hosts of before read it', () => {
  const { device } = openRig({});
  const plain = saveDevice(device);
  expect(headerOf(plain)).toMatchObject({ version: 1 });
  expect(headerOf(plain)).not.toHaveProperty('wishedMemoryBytes');
  expect(loadDevice(openRig({}).device, plain)).toBeNull();
  const wished = saveDevice(device, 48 * MIB);
  expect(headerOf(wished)).toMatchObject({ version: 2 });
  expect(loadDevice(openRig({}).device, wished)).toBe(48 * MIB);
});

test.each([
  ['of version 1 that says what only version 2 may', { version: 1, wishedMemoryBytes: MIB }],
  ['of version 2 that does not say it', { version: 2, wishedMemoryBytes: undefined }],
  ['that would keep less than nothing', { version: 2, wishedMemoryBytes: -1 }],
  ['of version 3 that does not say how it stands to the driver', { version: 3, wishedMemoryBytes: MIB }],
  ['of an unknown version', { version: 4, wishedMemoryBytes: MIB }],
])('a device %s is refused', (_, changes) => {
  const { device } = openRig({});
  const header = new TextEncoder().encode(JSON.stringify({ ...headerOf(saveDevice(device)), ...changes }));
  const bytes = new Uint8Array(4 + header.length);
  new DataView(bytes.buffer).setUint32(0, header.length, true);
  bytes.set(header, 4);
  expect(() => loadDevice(openRig({}).device, bytes)).toThrow(DeviceStateError);
});

test('a successor of the same host says the same when it is saved, and discards nothing before the inflate ring starts', () => {
  const rig = openRig({});
  rig.inflate([P, 3]);
  const saved = saveForSuccessor(rig.device, 48 * MIB);
  expect(headerOf(saved)).toMatchObject({ version: 3, begun: true, partial: false, settled: true });
  const { device, host } = openRig({});
  device.suspendQueue(0);
  expect(loadDevice(device, saved)).toBe(48 * MIB);
  expect(saveForSuccessor(device, 48 * MIB)).toEqual(saved);
  // Before, a loaded device discarded all that the balloon held, and this guest may have another driver by now.
  device.drain();
  expect(device.accounts.pendingPages).toBe(3);
  expect(device.inflation.discards.bytes).toBe(0);
  expect(host.pendingMarks).toBe(0);
  device.resumeQueue(0);
  expect(host.pendingMarks).toBe(1);
  device.drain();
  expect(device.inflation.discards.bytes).toBe(3 * PAGE_SIZE);
});

test('a successor of the same host discards nothing of a driver that may use its pages already (failed before: all of it)', () => {
  const rig = openRig(withoutMustTellHost);
  rig.inflate([P, 3]);
  const { device, memory, host } = openRig(withoutMustTellHost);
  device.suspendQueue(0);
  // Its deflation is on its way.
  memory.fill(P * PAGE_SIZE, 0x5a, 3 * PAGE_SIZE);
  loadDevice(device, saveForSuccessor(rig.device));
  expect(device.accounts.balloonedPages).toBe(3);
  device.resumeQueue(0);
  device.drain();
  expect(memory.u32(P * PAGE_SIZE)).toBe(0x5a5a5a5a);
  expect([host.pendingMarks, device.inflation.discards.bytes]).toEqual([0, 0]);
});

test('a successor of a device that has no driver yet begins with the first one', () => {
  const { device } = openRig({});
  device.reset();
  const saved = saveForSuccessor(device);
  const successor = openRig({}).device;
  successor.reset();
  loadDevice(successor, saved);
  expect(successor.inflation.begun).toBe(false);
  expect(successor.actualKnown).toBe(false);
});
