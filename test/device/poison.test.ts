/** A guest that poisons its free pages: what it reports keeps its contents, and the rule outlives pause, resume and move. */
import { expect, test } from 'vitest';
import { loadDevice, saveDevice } from '../../src/device/saved-device.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { type DeviceRig, FIRST_PAGE, openRig, packed } from '../support/device-rig.ts';

const P = FIRST_PAGE;
const PAGES = 8;
const POISON = 0xaaaa_aaaa;
const RINGS = [
  ['split', {}],
  ['packed', packed],
] as const;

/** Reports pages full of the poison, and says whether the device left them alone. */
function keeps(rig: DeviceRig): boolean {
  rig.touch(P, PAGES, 0xaa);
  const resident = rig.residentBytes;
  const returned = rig.queue('reporting').exchange({ in: [[P * PAGE_SIZE, PAGES * PAGE_SIZE]] });
  expect(returned).toMatchObject([{ written: 0 }]);
  // Before the contents are read, which makes a page resident again.
  const freed = resident - rig.residentBytes;
  const kept = rig.contentOf(P) === 0xaa && rig.contentOf(P + PAGES - 1) === 0xaa;
  expect(freed).toBe(kept ? 0 : PAGES * PAGE_SIZE);
  return kept;
}

function pauseAndResume(rig: DeviceRig): void {
  for (const { index } of rig.queues) rig.device.suspendQueue(index);
  for (const { index } of rig.queues) rig.device.stopQueue(index, 'paused');
  for (const queue of rig.queues) {
    queue.collect();
    queue.start();
  }
}

// A device that forgets the value with its rings, or discards whatever is reported, fails these.
test.each(RINGS)('poison is kept over pause and resume, and so are reported pages (%s rings)', (_, rings) => {
  const rig = openRig({ memory: 'shmem', ...rings });
  rig.writeConfig('poisonValue', POISON);
  expect(keeps(rig)).toBe(true);
  for (let turn = 0; turn < 2; turn++) {
    pauseAndResume(rig);
    expect([rig.device.poisonValue, rig.readConfig('poisonValue')]).toEqual([POISON, POISON]);
    expect(keeps(rig)).toBe(true);
  }
  for (const { index } of rig.queues) rig.device.suspendQueue(index);
  for (const { index } of rig.queues) rig.device.resumeQueue(index);
  expect(keeps(rig)).toBe(true);
  expect(rig.device.reporting.totals.bytes).toBe(0);
  // Zero is what a discarded page holds.
  rig.writeConfig('poisonValue', 0);
  expect(keeps(rig)).toBe(false);
});

test('poison is kept over a move to another device', () => {
  const rig = openRig({ memory: 'shmem' });
  rig.writeConfig('poisonValue', POISON);
  for (const { index } of rig.queues) rig.device.stopQueue(index, 'paused');
  const there = openRig({ memory: 'shmem' });
  loadDevice(there.device, saveDevice(rig.device));
  expect([there.device.poisonValue, there.readConfig('poisonValue')]).toEqual([POISON, POISON]);
  expect(keeps(there)).toBe(true);
});

test('poison is kept no longer than its driver: the next one writes its own', () => {
  const rig = openRig({ memory: 'shmem' });
  rig.writeConfig('poisonValue', POISON);
  rig.device.reset();
  expect(rig.device.poisonValue).toBe(0);
  rig.device.setFeatures(rig.features);
  expect(rig.device.reporting.keepContents).toBe(false);
});
