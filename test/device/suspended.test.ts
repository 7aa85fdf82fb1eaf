/** A device whose rings stand still: until its guest goes on or ends, nothing that it gave away is touched. */
import { afterAll, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { type DeviceRig, openRig, FIRST_PAGE as P, type RigOptions } from '../support/device-rig.ts';
import { HUGE_PAGE_SIZE } from '../support/huge-pages.ts';

const H = HUGE_PAGE_SIZE / PAGE_SIZE;
const MEMORY_BYTES = 8 * HUGE_PAGE_SIZE;

afterAll(() => expect(openDescriptorCount()).toBe(0));

const UNITS: readonly [string, RigOptions][] = [
  ['4 KiB', { memory: 'shmem', memoryBytes: MEMORY_BYTES }],
  ['2 MiB', { discardUnit: HUGE_PAGE_SIZE, memoryBytes: MEMORY_BYTES }],
];

/** What the discarding thread does when it comes by. */
function discardSome({ device }: DeviceRig): boolean {
  return device.accounts.all.some(({ pending, discardUnits }) => pending.discardSome(discardUnits).more);
}

const suspendAll = ({ device, queues }: DeviceRig) => {
  for (const { index } of queues) device.suspendQueue(index);
};

describe.each(UNITS)('in units of %s', (_, options) => {
  const open = () => {
    const rig = openRig(options);
    rig.touch(P, H, 0x42);
    rig.inflate([P, H]);
    suspendAll(rig);
    return rig;
  };

  test('what is pending when the rings are disabled is discarded by nothing', () => {
    const rig = open();
    expect(discardSome(rig)).toBe(false);
    rig.device.drain();
    expect(rig.pendingPages).toBe(H);
    expect(rig.contentOf(P)).toBe(0x42);
  });

  test('and is discarded when the guest goes on', () => {
    const rig = open();
    const marks = rig.host.pendingMarks;
    for (const { index } of rig.queues) rig.device.resumeQueue(index);
    expect(rig.host.pendingMarks).toBe(marks + 1);
    expect(discardSome(rig)).toBe(true);
    expect(rig.contentOf(P)).toBe(0);
  });

  test('or before the pause is answered, when the rings are stopped as well', () => {
    const rig = open();
    for (const { index } of rig.queues) rig.device.stopQueue(index, 'paused');
    expect(rig.contentOf(P)).toBe(0);
    expect(rig.balloonedPages).toBe(H);
  });

  test('or never, when another driver begins', () => {
    const rig = open();
    rig.device.reset();
    rig.device.setFeatures(rig.features);
    for (const queue of rig.queues) queue.start();
    expect(discardSome(rig)).toBe(false);
    expect(rig.contentOf(P)).toBe(0x42);
    // The hold is over: what the new driver gives is discarded.
    rig.inflate([P + H, H]);
    rig.touch(P + H, 0);
    expect(discardSome(rig)).toBe(true);
  });

  test('or when rings whose memory had gone start again', () => {
    const rig = open();
    for (const { index } of rig.queues) rig.device.stopQueue(index, 'undecided');
    expect(discardSome(rig)).toBe(false);
    for (const queue of rig.queues) queue.start();
    expect(discardSome(rig)).toBe(true);
  });
});
