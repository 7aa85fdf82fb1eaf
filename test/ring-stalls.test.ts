/** How long rings stand still (support/ring-stalls.ts): what a look at a ring says, and what counts as a stall. */
import { describe, expect, test } from 'vitest';
import { DescriptorChain } from '../src/virtio/chain.ts';
import { createDeviceQueue, createDriverQueue } from '../src/virtio/create.ts';
import { RING_PACKED } from '../src/virtio/features.ts';
import { initialState } from '../src/virtio/queue.ts';
import { RING_LOG_BYTES, RingLog } from '../src/virtio/ring-log.ts';
import { packedLook, RingStalls, splitLook } from './support/ring-stalls.ts';
import {
  BUFFERS,
  configOf,
  DESCRIPTORS,
  DEVICE_AREA,
  DRIVER_AREA,
  segments,
  testMemory,
} from './virtio/rings.ts';

const SIZE = 8;
/** Three laps of the largest chains. */
const ROUNDS = 20;

function queues(features: bigint) {
  const memory = testMemory();
  const config = configOf(SIZE, features);
  const driver = createDriverQueue(config);
  driver.initialize(memory);
  const log = new DataView(new ArrayBuffer(RING_LOG_BYTES));
  const ringLog = features === RING_PACKED ? new RingLog(log, 0) : undefined;
  ringLog?.begin(initialState(features).nextUsed);
  const device = createDeviceQueue(
    config,
    undefined,
    ringLog && {
      begin: position => ringLog.begin(position),
      writing(...descriptor) {
        const before = look();
        ringLog.writing(...descriptor);
        // The driver does not see what was noted.
        expect(look()).toEqual(before);
      },
    },
  );
  device.validate(memory);
  const bytesAt = (address: number, length: number): DataView => {
    const bytes = new Uint8Array(length);
    memory.read(address, bytes, 0, length);
    return new DataView(bytes.buffer);
  };
  const look = () =>
    ringLog === undefined
      ? splitLook(bytesAt(DRIVER_AREA, 4), bytesAt(DEVICE_AREA, 4))
      : packedLook(bytesAt(DESCRIPTORS, SIZE * 16), log);
  return { memory, driver, device, look };
}

describe.each([
  ['split', 0n],
  ['packed', RING_PACKED],
])('a look at a ring: %s', (_, features) => {
  test('says whether the device owes a buffer, and sees each that it returns', () => {
    const { memory, driver, device, look } = queues(features);
    const chain = new DescriptorChain();
    const used = { token: 0, written: 0, buffers: 1 };
    const give = (parts: number) => {
      const list = segments(Array.from({ length: parts }, (_, at) => [BUFFERS + at * 64, 64] as const));
      expect(driver.addBuffer(memory, list, 1)).toBe(true);
      driver.publish(memory);
    };
    const giveBack = () => {
      device.pushUsed(memory, chain, 0);
      device.publish(memory);
    };
    for (let round = 0; round < ROUNDS; round++) {
      const before = look();
      expect(before.owes).toBe(false);
      give(1 + (round % 3));
      give(2);
      expect(look()).toEqual({ position: before.position, owes: true });
      expect(device.pop(memory, chain)).toBe(true);
      expect(look()).toEqual({ position: before.position, owes: true });
      giveBack();
      const between = look();
      expect(between.owes).toBe(true);
      expect(between.position).not.toBe(before.position);
      expect(device.pop(memory, chain)).toBe(true);
      giveBack();
      expect(look().owes).toBe(false);
      expect(look().position).not.toBe(between.position);
      while (driver.popUsed(memory, used));
      expect(look().owes).toBe(false);
    }
  });
});

test('a stall counts from the look before it was found, and ends when the ring moves', () => {
  let now = { position: 0, owes: false };
  const stalls = new RingStalls([{ name: 'inflate', look: () => now }], 0);
  const lookAt = (ms: number, position: number, owes: boolean) => {
    now = { position, owes };
    stalls.look(ms);
  };
  lookAt(10, 0, false);
  lookAt(20, 0, true);
  lookAt(30, 0, true);
  // One that goes on is not over.
  expect(stalls.takeLongest().ms).toBe(0);
  // Another buffer is there by now.
  lookAt(100, 1, true);
  expect(stalls.takeLongest()).toEqual({ ms: 90, ring: 'inflate' });
  lookAt(105, 2, false);
  expect(stalls.takeLongest().ms).toBe(75);
  // A guest that has nothing for the device is not kept waiting.
  lookAt(500, 2, false);
  lookAt(501, 3, false);
  expect(stalls.takeLongest().ms).toBe(0);
  expect(stalls.moves.get('inflate')).toBe(3);
  stalls.stop();
});
