/**
 * A device that takes the place of one that died with a hint session under way: what the guest sent, and still sends,
 * under the id of then counts for nothing. That the driver copes is test/driver/free-pages.test.ts's.
 */

import { expect, onTestFinished, test } from 'vitest';
import { HINT_ID_MIN, HINT_STOP } from '../../src/balloon/hint-session.ts';
import { BalloonDevice } from '../../src/device/balloon-device.ts';
import { PAGE_SIZE, PFN_LIMIT } from '../../src/memory/page.ts';
import { PageSet } from '../../src/memory/page-set.ts';
import { processClock } from '../../src/sys/monotonic.ts';
import { createDeviceQueue } from '../../src/virtio/create.ts';
import { stateFromVringBase, stateToVringBase } from '../../src/virtio/vring-base.ts';
import { type DeviceRig, FIRST_PAGE, HostLog, openRig, packed, u32 } from '../support/device-rig.ts';

const P = FIRST_PAGE;
const BLOCK = 16;
const block = (pfn: number) => ({ in: [[pfn * PAGE_SIZE, BLOCK * PAGE_SIZE]] }) as const;

/** A device that goes on with the rig's hint ring where the rig's own device stopped. */
function succeed(rig: DeviceRig, base: number, idMin: number) {
  const { config, index, driver } = rig.queue('hint');
  const unusedPages = new PageSet(PFN_LIMIT);
  const { profile, region } = rig;
  const device = new BalloonDevice({
    profile,
    features: profile.featureMask,
    host: new HostLog(),
    clock: processClock,
    unusedPages,
  });
  onTestFinished(() => device.regionRemoved(region));
  device.hints.beginAt(idMin);
  device.regionAdded(region);
  device.setFeatures(rig.features);
  const state = stateFromVringBase(rig.memory, config, base);
  device.startQueue(index, createDeviceQueue(config, state), rig.memory, { interrupt() {}, fail() {} });
  const serve = () => {
    driver.publish(rig.memory);
    while (device.serveQueue(index));
    return rig.queue('hint').collect().length;
  };
  return { device, unusedPages, serve };
}

const CASES = [
  ['split rings, before a session of its own', {}, false],
  ['split rings, after it announced one', {}, true],
  ['packed rings, before a session of its own', packed, false],
  ['packed rings, after it announced one', packed, true],
] as const;

// A successor whose first id is the predecessor's, or that lets blocks count without an id that it asked for, fails it.
test.each(CASES)(
  'hints of its predecessor that the ring kept count for nothing (%s)',
  (_, rings, announced) => {
    const rig = openRig(rings);
    const queue = rig.queue('hint');
    const old = rig.device.hints.begin();
    expect(old).toBe(HINT_ID_MIN);
    queue.exchange({ out: [u32(old)] });
    queue.exchange(block(P));
    expect(rig.unusedPages.pages).toBe(BLOCK);
    // These the predecessor did not live to see.
    const { nextUsed, nextAvail } = queue.driver.save();
    rig.forgetLists();
    for (const buffer of [{ out: [u32(old)] }, block(P + 32), block(P + 64)]) queue.add(buffer);
    const state = 'ringFeatures' in rings ? { nextAvail, nextUsed } : { nextAvail: nextUsed, nextUsed };
    const successor = succeed(rig, stateToVringBase(rig.features, state), HINT_ID_MIN + 77);
    const { device, unusedPages, serve } = successor;

    const own = announced ? device.hints.begin() : undefined;
    expect(own).not.toBe(old);
    expect(serve()).toBe(3);
    expect(device.hints.phase).toBe(announced ? 'requested' : 'idle');
    expect([unusedPages.pages, device.hints.ranges, device.counters.hintedPages]).toEqual([0, 0, 0]);
    expect(device.hints.stalePages).toBe(2 * BLOCK);

    // A guest that goes on under the old id is not believed either.
    const id = own ?? device.hints.begin();
    expect(id).not.toBe(old);
    for (const buffer of [{ out: [u32(old)] }, block(P + 96), { out: [u32(HINT_STOP)] }]) queue.add(buffer);
    expect(serve()).toBe(3);
    expect([device.hints.phase, unusedPages.pages]).toEqual(['requested', 0]);
    // Under the new one it is.
    for (const buffer of [{ out: [u32(id)] }, block(P + 128)]) queue.add(buffer);
    expect(serve()).toBe(2);
    expect([device.hints.phase, unusedPages.pages, unusedPages.has(P + 128)]).toEqual([
      'running',
      BLOCK,
      true,
    ]);
  },
);
