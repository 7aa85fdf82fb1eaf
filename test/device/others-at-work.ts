/** What the tests of hostile guests ask in the end: whether the rest of the device still does what it is for. */
import { expect } from 'vitest';
import type { QueueRole } from '../../src/balloon/features.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { type DeviceRig, FIRST_PAGE as P, u32 } from '../support/device-rig.ts';

/** The queues of the standard's device. */
export const ROLES = [
  'inflate',
  'deflate',
  'stats',
  'hint',
  'reporting',
] as const satisfies readonly QueueRole[];

/** All queues but `spared` still do what they are for. */
export function expectOthersToWork(rig: DeviceRig, spared?: QueueRole): void {
  const { device } = rig;
  if (spared !== 'inflate') {
    const before = rig.balloonedPages;
    expect(rig.inflate([P + 900, 1]).map(({ written }) => written)).toEqual([0]);
    expect(rig.balloonedPages).toBe(before + 1);
  }
  if (spared !== 'deflate') {
    expect(rig.deflate([P + 900, 1]).map(({ written }) => written)).toEqual([0]);
  }
  if (spared !== 'stats') {
    rig.queue('stats').exchange({ out: [new Uint8Array(10)] });
    expect(device.statistics.sample.swapInBytes).toBe(0);
  }
  if (spared !== 'reporting') {
    const before = device.reporting.totals.punches;
    rig.queue('reporting').exchange({ in: [[(P + 901) * PAGE_SIZE, PAGE_SIZE]] });
    expect(device.reporting.totals.punches).toBe(before + 1);
  }
  if (spared !== 'hint') {
    const id = device.hints.begin();
    rig.queue('hint').exchange({ out: [u32(id)] });
    expect(device.hints.phase).toBe('running');
  }
}
